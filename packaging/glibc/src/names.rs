//! Makes a static program resolve hosts, users and groups with files and DNS only, whatever `/etc/nsswitch.conf` names.
//!
//! A static program contains glibc's services `files` and `dns` (since glibc 2.34). If `nsswitch.conf` names another service, glibc
//! loads it as a module (`libnss_resolve.so.2`, `libnss_sss.so.2`). The module brings its own C library: a second one in the same
//! process, perhaps of another version. The program then crashes at the first look-up.
//!
//! [`keep_to_files_and_dns`] sets the services for the whole process, so it applies to every crate that calls `getaddrinfo`,
//! `getpwuid_r` or `getgrnam_r`. glibc then does not use its cache daemon (nscd) either.

use std::ffi::{CStr, c_char, c_int};

/// The databases that these functions read. `getaddrinfo` may read `services`; libdbus asks for the groups of a user.
const SERVICES: [(&CStr, &CStr); 5] = [
    (c"hosts", c"files dns"),
    (c"passwd", c"files"),
    (c"group", c"files"),
    (c"initgroups", c"files"),
    (c"services", c"files"),
];

#[expect(unsafe_code, reason = "the signature is the one in glibc's <nss.h>")]
unsafe extern "C" {
    fn __nss_configure_lookup(database: *const c_char, services: *const c_char) -> c_int;
}

/// Sets the services for all look-ups of this process. Call it in a static program before the first look-up, and before every thread
/// that looks names up. Do not call it in a dynamic program, where the modules work and `nsswitch.conf` should decide.
///
/// # Errors
///
/// The name of the database that glibc did not accept. glibc accepts all of them unless it is out of memory.
pub fn keep_to_files_and_dns() -> Result<(), &'static str> {
    for (database, services) in SERVICES {
        #[expect(unsafe_code, reason = "glibc has no safe way to set this")]
        // SAFETY: both arguments are static strings that end with NUL. glibc copies the parts that it keeps.
        let taken = unsafe { __nss_configure_lookup(database.as_ptr(), services.as_ptr()) };
        if taken != 0 {
            return Err(database.to_str().unwrap_or("a database"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::ToSocketAddrs;

    /// glibc reports an unknown database and a line that it cannot parse as an error.
    #[test]
    fn glibc_takes_every_line_and_still_finds_names() {
        assert_eq!(super::keep_to_files_and_dns(), Ok(()));
        let mut found = ("localhost", 80).to_socket_addrs().expect("it is in the hosts file");
        assert!(found.any(|address| address.ip().is_loopback()));
    }
}
