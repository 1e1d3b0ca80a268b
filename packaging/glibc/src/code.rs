//! Unmaps the pages of this program's code that are not in use.
//!
//! A start runs through most of the code once: options, configuration, certificates. The kernel maps 64 KiB around each place, and
//! all of it stays mapped and counts as resident memory (RSS), although a request needs a fifteenth of it. What is unmapped here
//! stays in the page cache, and is mapped again where it runs. So this frees no memory by itself: resident memory says what the
//! process uses, and the kernel may drop the rest without looking for who has it mapped.

use std::ffi::{c_int, c_void};
use std::ops::Range;

/// `MADV_DONTNEED` of <sys/mman.h>.
const DONTNEED: c_int = 4;

#[expect(unsafe_code, reason = "the signature is the one in glibc's <sys/mman.h>")]
unsafe extern "C" {
    fn madvise(address: *mut c_void, length: usize, advice: c_int) -> c_int;
}

/// Unmaps the pages of the program's code. A page that runs again is mapped again, without reading the disk unless the kernel had to
/// drop it meanwhile; then its thread waits for the disk. Takes about half a millisecond. Does nothing where `/proc` is not there, or
/// where a page is not the file's: code that was unpacked into memory, or in which a debugger has a breakpoint.
pub fn unmap_code() {
    if let Some(code) = code() {
        #[expect(unsafe_code, reason = "there is no safe way to advise the kernel")]
        // SAFETY: the range is one mapping of a file that cannot be written, and none of its pages was changed. So each of them is
        // what the file has there, and is that again when it is next used.
        let _locked_in_memory = unsafe { madvise(code.start as *mut c_void, code.len(), DONTNEED) };
    }
}

/// The addresses of the mapping that holds this function, if all its pages are the file's.
fn code() -> Option<Range<usize>> {
    let here = code as *const () as usize;
    let maps = std::fs::read_to_string("/proc/self/smaps").ok()?;
    let mut lines = maps.lines();
    let range = lines.find_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let range = usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?;
        (range.contains(&here) && rest.starts_with("r-xp ")).then_some(range)
    })?;
    // A page that was changed is memory of the process alone, or is swapped out.
    let mut is_none = |name| Some(lines.find_map(|line| line.strip_prefix(name))?.trim() == "0 kB");
    (is_none("Anonymous:")? && is_none("Swap:")?).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kilobytes of the code that are mapped.
    fn mapped() -> usize {
        let start = format!("{:x}-", code().expect("a mapping").start);
        let maps = std::fs::read_to_string("/proc/self/smaps").expect("it can be read");
        let of_code = maps.lines().skip_while(|line| !line.starts_with(&start));
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
