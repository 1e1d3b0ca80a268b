//! The order of the groups: one is written while the next one grows.

use std::sync::{Mutex, TryLockError};

use super::file::Held;
use super::group::Group;
use super::{Error, lock};

/// The file of a daemon, and the group that is written next. Whoever needs both locks takes that of the writer first.
#[derive(Debug)]
pub(super) struct Queue {
    /// Locked only to add a line or to take the group.
    waiting: Mutex<Group>,
    /// Locked while a group is written, so that groups are written in the order in which they are taken.
    writer: Mutex<Writer>,
}

#[derive(Debug)]
struct Writer {
    held: Held,
    /// The group that is written, or was written last.
    group: Group,
}

impl Queue {
    pub(super) fn new(held: Held) -> Self {
        Self { waiting: Mutex::default(), writer: Mutex::new(Writer { held, group: Group::default() }) }
    }

    /// Changes the group that is written next.
    pub(super) fn waiting<R>(&self, change: impl FnOnce(&mut Group) -> R) -> R {
        change(&mut lock(&self.waiting))
    }

    /// Is a group being written?
    pub(super) fn is_writing(&self) -> bool {
        matches!(self.writer.try_lock(), Err(TryLockError::WouldBlock))
    }

    /// Writes what waits. When this returns, every line that was added before is settled. Then runs `then` with the file.
    pub(super) fn written<R>(
        &self,
        write: impl FnOnce(&mut Held, &Group) -> Result<(), Error>,
        then: impl FnOnce(&mut Held) -> R,
    ) -> R {
        let Writer { held, group } = &mut *lock(&self.writer);
        group.renew();
        std::mem::swap(group, &mut lock(&self.waiting));
        if group.len() > 0 {
            let outcome = write(held, group);
            // Nobody else sets it.
            drop(group.outcome.set(outcome));
        }
        then(held)
    }
}
