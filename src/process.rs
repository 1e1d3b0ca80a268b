//! What the kernel and /proc say of the process at the other end of a connection, and of this process: the facts of a
//! [`Caller`](crate::caller::Caller), for rules that name programs and units.

#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "used on Linux only"))]
mod digests;
#[cfg(target_os = "linux")]
mod held;
#[cfg(not(target_os = "linux"))]
#[path = "process/elsewhere.rs"]
mod held;

pub(crate) use digests::Digests;
pub(crate) use held::{Connected, Process};
