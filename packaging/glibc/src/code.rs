//! Unmaps the pages of this program's code that are not in use.
//!
//! A start runs through most of the code once: options, configuration, certificates. The kernel maps 64 KiB around each place, and
//! all of it stays mapped and counts as resident memory (RSS), although a request needs a fifteenth of it. What is unmapped here
//! stays in the page cache, and is mapped again where it runs. So this frees no memory by itself: resident memory says what the
//! process uses, and the kernel may drop the rest without looking for who has it mapped.

use std::ffi::{c_int, c_void};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::ops::Range;

/// `MADV_DONTNEED` of <sys/mman.h>.
const DONTNEED: c_int = 4;

#[expect(unsafe_code, reason = "the signature is the one in glibc's <sys/mman.h>")]
unsafe extern "C" {
    fn madvise(address: *mut c_void, length: usize, advice: c_int) -> c_int;
}

/// Unmaps the pages of the program's code. A page that runs again is mapped again, without reading the disk unless the kernel had to
/// drop it meanwhile; then its thread waits for the disk. Takes about half a millisecond. Does nothing where the kernel does not say
/// how it is mapped (no `/proc`, or no `smaps` there), or where a page is not the file's: code that was unpacked into memory, or in
/// which a debugger has a breakpoint.
pub fn unmap_code() {
    let Ok(maps) = File::open("/proc/self/smaps") else { return };
    let lines = BufReader::new(maps).lines().map_while(Result::ok);
    if let Some(code) = code_in(lines, unmap_code as *const () as usize) {
        #[expect(unsafe_code, reason = "there is no safe way to advise the kernel")]
        // SAFETY: the range is one mapping of a file, the mapping cannot be written, and none of its pages was changed. So each of
        // them is what the file has there, and is that again when it is next used.
        let _locked_in_memory = unsafe { madvise(code.start as *mut c_void, code.len(), DONTNEED) };
    }
}

/// The addresses of the mapping around `here`, if it is code and all its pages are the file's. Reads no further than that.
fn code_in(mut smaps: impl Iterator<Item = String>, here: usize) -> Option<Range<usize>> {
    let range = smaps.find_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let range = usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?;
        (range.contains(&here) && rest.starts_with("r-xp ")).then_some(range)
    })?;
    // A page that was changed is memory of the process alone, or is swapped out. `VmFlags` is the last line about a mapping.
    let mut changed = smaps.take_while(|line| !line.starts_with("VmFlags:"));
    let mut is_none = |name| changed.find_map(|line| Some(line.strip_prefix(name)?.trim() == "0 kB"));
    (is_none("Anonymous:")? && is_none("Swap:")?).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mappings(anonymous: &str, swap: &str) -> impl Iterator<Item = String> {
        let text = format!(
            "1000-2000 r--p 00000000 fe:00 7 /bin/a\nAnonymous: 4 kB\nSwap: 4 kB\nVmFlags: rd\n\
             2000-5000 r-xp 00001000 fe:00 7 /bin/a\nRss: 8 kB\n{anonymous}\nSwapPss: 9 kB\n{swap}\nVmFlags: rd ex\n\
             5000-6000 rw-p 00004000 fe:00 7 /bin/a\nAnonymous: 0 kB\nSwap: 0 kB\nVmFlags: rd\n"
        );
        text.lines().map(str::to_owned).collect::<Vec<_>>().into_iter()
    }

    #[test]
    fn only_code_that_is_as_in_its_file_may_be_unmapped() {
        let found = |anonymous, swap, here| code_in(mappings(anonymous, swap), here);
        let (none, some) = (("Anonymous:  0 kB", "Swap:  0 kB"), ("Anonymous:  4 kB", "Swap:  4 kB"));
        assert_eq!(found(none.0, none.1, 0x4fff), Some(0x2000..0x5000));
        for (anonymous, swap, here) in [
            (some.0, none.1, 0x2000),
            (none.0, some.1, 0x2000),
            ("", none.1, 0x2000),
            (none.0, "", 0x2000),
            (none.0, none.1, 0x1000),
            (none.0, none.1, 0x5000),
            (none.0, none.1, 0x9000),
        ] {
            assert_eq!(found(anonymous, swap, here), None, "{anonymous} {swap} {here:x}");
        }
    }

    /// The kilobytes of the code that are mapped.
    fn mapped() -> usize {
        let here = unmap_code as *const () as usize;
        let maps = std::fs::read_to_string("/proc/self/smaps").expect("it can be read");
        let code = code_in(maps.lines().map(str::to_owned), here).expect("code that nobody changed");
        let start = format!("{:x}-", code.start);
        let of_code = maps.lines().skip_while(|line| !line.trim_start_matches('0').starts_with(&start));
        let kilobytes = of_code.filter_map(|line| line.strip_prefix("Rss:")?.split_whitespace().next()).next();
        kilobytes.and_then(|text| text.parse().ok()).expect("a number")
    }

    #[test]
    fn code_that_was_unmapped_runs_again() {
        // Runs through much of the standard library.
        let text = format!("{:?}", std::net::ToSocketAddrs::to_socket_addrs(&("localhost", 80)));
        let before = mapped();
        unmap_code();
        let after = mapped();
        assert!(after < before, "{after} of {before} KB are mapped");
        assert_eq!(text, format!("{:?}", std::net::ToSocketAddrs::to_socket_addrs(&("localhost", 80))));
    }
}
