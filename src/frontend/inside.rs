//! Connections of this process to itself, over socket pairs: nothing has a name in the file system, and no other process can
//! connect. They are served as those on the socket are.

use std::io;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;

use safeconduct_listener::{Places, Seats};
use tokio::net::UnixStream;

use super::course::Course;
use super::desk::State;
use super::socket;

/// More than this process opens.
const PLACES: Places = Places { all: 512, user: 512, strangers: 0 };

/// What serves them.
pub(crate) struct Inside {
    state: Arc<State>,
    course: Course,
    seats: Arc<Seats>,
}

impl Inside {
    pub(crate) fn new(state: Arc<State>, course: Course) -> Self {
        Self { state, course, seats: Seats::new(PLACES) }
    }

    /// A connection. Must be called inside a runtime.
    pub(crate) fn connect(&self) -> io::Result<StdStream> {
        let (ours, theirs) = StdStream::pair()?;
        ours.set_nonblocking(true)?;
        let ours = UnixStream::from_std(ours)?;
        let (state, seats) = (Arc::clone(&self.state), Arc::clone(&self.seats));
        self.course.tasks.spawn(socket::serve_one(state, self.course.clone(), seats, ours));
        Ok(theirs)
    }
}
