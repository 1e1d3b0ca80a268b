//! How many memory arenas threads have.
//!
//! glibc gives each new thread an arena of its own, up to eight for each processor, and returns little of what an arena once held.
//! One thread of safeconduct serves; the others wait for files and names. With one arena for all, the process is about 0.2 MB
//! smaller, and what a burst of blocking work took is used again by all.

use std::ffi::c_int;

/// `M_ARENA_MAX` of glibc's <malloc.h>.
const ARENA_MAX: c_int = -8;

#[expect(unsafe_code, reason = "the signature is the one in glibc's <malloc.h>")]
unsafe extern "C" {
    fn mallopt(parameter: c_int, value: c_int) -> c_int;
}

/// Lets all threads that start later share one arena. Where glibc does not accept that, threads have arenas of their own as before.
pub fn share_one_arena() {
    #[expect(unsafe_code, reason = "glibc has no safe way to set this")]
    // SAFETY: it takes two numbers and keeps them.
    let _accepted = unsafe { mallopt(ARENA_MAX, 1) };
}
