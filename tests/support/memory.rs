//! How much memory a process has.

/// One of the kernel's counters in `/proc/PID/status`, in KiB: `VmRSS` (all that is mapped), `VmHWM` (the most that ever was), or
/// `RssAnon` (what nobody shares).
pub fn memory(pid: u32, counter: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let count = status.lines().find_map(|line| line.strip_prefix(counter)?.strip_prefix(':'));
    count.and_then(|count| count.trim().trim_end_matches(" kB").parse().ok()).expect("the kernel counts it")
}
