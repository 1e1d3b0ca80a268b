//! The exit codes of safeconduct that the tests expect (`safeconduct --help` lists them).

pub(crate) const ASKED_WRONGLY: i32 = 64;
pub(crate) const NO_IDENTITY: i32 = 69;
pub(crate) const TEMPORARY: i32 = 75;
pub(crate) const REFUSED: i32 = 76;
pub(crate) const DENIED: i32 = 77;
pub(crate) const CONFIG: i32 = 78;
