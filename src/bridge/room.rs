//! How many bytes of messages are kept at the same time.
//!
//! Each direction has a room of its own. What comes from the client waits for room; its thread has nothing else to do. What comes
//! from the server never waits, because two answers could wait for each other: the one that finds no room fails.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Room for so many bytes.
#[derive(Clone, Debug)]
pub(super) struct Room(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    all: usize,
    used: Mutex<usize>,
    freed: Condvar,
}

/// A part of the room. It is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Part {
    room: Room,
    bytes: usize,
}

impl Room {
    pub(super) fn new(all: usize) -> Self {
        Self(Arc::new(Shared { all, used: Mutex::default(), freed: Condvar::new() }))
    }

    /// No bytes yet.
    pub(super) fn part(&self) -> Part {
        Part { room: self.clone(), bytes: 0 }
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.0.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Part {
    /// Takes more, if it is there.
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let mut used = self.room.lock();
        if bytes > self.room.0.all - *used {
            return false;
        }
        *used += bytes;
        self.bytes += bytes;
        true
    }

    /// Takes more, and waits until it is there. Blocks the thread.
    pub(super) fn grow_in_time(&mut self, bytes: usize) {
        let room = &self.room.0;
        let is_full = |used: &mut usize| bytes > room.all - *used;
        let used = room.freed.wait_while(self.room.lock(), is_full);
        *used.unwrap_or_else(PoisonError::into_inner) += bytes;
        self.bytes += bytes;
    }

    /// Gives all of it but this back.
    pub(super) fn shrink_to(&mut self, bytes: usize) {
        if let Some(freed) = self.bytes.checked_sub(bytes).filter(|freed| *freed > 0) {
            *self.room.lock() -= freed;
            self.bytes = bytes;
            self.room.0.freed.notify_all();
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_leaves_room_for_the_next() {
        let room = Room::new(10);
        let (mut one, mut other) = (room.part(), room.part());
        assert!(one.grow(7) && !other.grow(4) && other.grow(3));
        one.shrink_to(2);
        assert!(other.grow(5) && !other.grow(1));
        let waits = std::thread::spawn(move || {
            let mut late = room.part();
            late.grow_in_time(8);
        });
        drop(other);
        waits.join().expect("it found room");
    }
}
