//! `safeconduct exec` where the system does not say who sent a signal.

use super::{Context, CoreLimit, Failure};
use crate::broker::Class;
use crate::cli::Exec;

pub(super) fn run(_: &Context<'_>, _: &Exec, _: CoreLimit) -> Result<u8, Failure> {
    Err(Failure::new(Class::BadRequest, "`exec` works on Linux alone").hint("`safeconduct run` and `token` work here"))
}
