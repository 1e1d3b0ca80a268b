//! Looks up names of hosts, users and groups in files and by DNS alone, whatever `/etc/nsswitch.conf` names.
//!
//! A static program has glibc's services `files` and `dns` linked in (since glibc 2.34). glibc loads every other service that
//! `nsswitch.conf` names as a module (`libnss_resolve.so.2`, `libnss_sss.so.2`), and with it the C library that the module
//! needs: a second one in the same process, perhaps of another version. That ends in a crash at the first look-up.
//!
//! [`keep_to_files_and_dns`] sets the services for the whole process, so that it holds for every crate that calls
//! `getaddrinfo`, `getpwuid_r` or `getgrnam_r`. glibc does not ask its cache daemon (nscd) about them any more either.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub use glibc::keep_to_files_and_dns;

/// Other C libraries have no name-service modules: there is nothing to set.
///
/// # Errors
///
/// None.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn keep_to_files_and_dns() -> Result<(), &'static str> {
    Ok(())
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    use std::ffi::{CStr, c_char, c_int};

    /// What the functions above read. `getaddrinfo` may read `services`; libdbus asks for the groups of a user.
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

    /// Sets the services that the whole process looks names up with. Call it first in the `main` of a static program: it must
    /// come before every look-up and every thread. In a program that is not static the modules fit, and `nsswitch.conf`
    /// should decide.
    ///
    /// # Errors
    ///
    /// With the name of the database that glibc did not take. It takes them all unless it has no memory.
    pub fn keep_to_files_and_dns() -> Result<(), &'static str> {
        for (database, services) in SERVICES {
            #[expect(unsafe_code, reason = "glibc has no safe way to set this")]
            // SAFETY: both are strings that end with NUL and live for ever. glibc copies what it keeps of them.
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

        /// A database that glibc does not know, or a line that it cannot read, is an error.
        #[test]
        fn glibc_takes_every_line_and_still_finds_names() {
            assert_eq!(super::keep_to_files_and_dns(), Ok(()));
            let mut found = ("localhost", 80).to_socket_addrs().expect("it is in the hosts file");
            assert!(found.any(|address| address.ip().is_loopback()));
        }
    }
}
