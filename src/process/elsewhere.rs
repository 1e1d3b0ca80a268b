//! The process on other systems than Linux: none is held, and rules that name a program or a unit match nothing.

use std::os::fd::AsFd;

use super::digests::Digests;
use crate::caller::{Facts, Needs, Why};

/// Has no values.
pub(crate) enum Process {}

/// Has no values.
pub(crate) enum Connected {}

impl Connected {
    pub(crate) async fn looked_at(self, _digests: &Digests, _uid: u32) -> Process {
        match self {}
    }
}

impl Process {
    pub(crate) fn connected(_stream: &impl AsFd, _pid: Option<i32>, _needs: &Needs) -> Result<Connected, Why> {
        Err(Why::NotLinux)
    }

    pub(crate) fn own() -> Result<Self, Why> {
        Err(Why::NotLinux)
    }

    pub(crate) async fn facts(&self, _needs: &Needs, _digests: &Digests, _uid: u32) -> Facts {
        match *self {}
    }
}
