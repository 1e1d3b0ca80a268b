//! How many memory arenas threads have.
//!
//! glibc gives each new thread an arena of its own, up to eight for each processor, and returns little of what an arena once held.
//! One thread of safeconduct serves the API, a few serve the data path, and the others wait for files and names. With two arenas
//! for all, the process is about 0.2 MB smaller, and what a burst of blocking work took is used again by all. One would make the
//! threads of the data path wait for each other.

use std::ffi::c_int;

/// `M_ARENA_MAX` of glibc's <malloc.h>.
const ARENA_MAX: c_int = -8;

#[expect(unsafe_code, reason = "the signature is the one in glibc's <malloc.h>")]
unsafe extern "C" {
    fn mallopt(parameter: c_int, value: c_int) -> c_int;
}

/// Lets all threads that start later share two arenas in turn. Where glibc does not accept that, threads have arenas of their own as before.
pub fn share_two_arenas() {
    #[expect(unsafe_code, reason = "glibc has no safe way to set this")]
    // SAFETY: it takes two numbers and keeps them.
    let _accepted = unsafe { mallopt(ARENA_MAX, 2) };
}
