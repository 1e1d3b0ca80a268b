//! The calls into glibc for which there is no safe way. With other C libraries these functions do nothing.
//!
//! Call [`share_two_arenas`] first in `main`, before every thread, and [`keep_to_files_and_dns`] before the first look-up. An embedding
//! program decides for itself.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod arenas;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod code;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod names;

#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub use arenas::share_two_arenas;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub use code::unmap_code;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub use names::keep_to_files_and_dns;

/// Does nothing: other C libraries have no arenas.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn share_two_arenas() {}

/// Does nothing: this was only measured with glibc on Linux.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn unmap_code() {}

/// Does nothing: other C libraries have no name-service modules.
///
/// # Errors
///
/// None.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn keep_to_files_and_dns() -> Result<(), &'static str> {
    Ok(())
}
