//! How urgently a token is wanted: whoever hands out places in a queue asks for it at that moment.
//!
//! A flight may begin for nobody, and a caller may join it later. So the urgency belongs to the flight and can be raised.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// The urgency of one flight. Its copies change together.
#[derive(Clone, Debug)]
pub struct Urgency(Option<Arc<AtomicU8>>);

/// How urgent it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nobody waits for it and nobody uses the token yet: the first token of a required server.
    Background,
    /// The token before it is in use and will end.
    Renewal,
    /// A caller waits for it.
    Awaited,
}

impl Urgency {
    /// A caller waits from the beginning. It cannot be raised, and takes no memory.
    pub const AWAITED: Self = Self(None);

    /// Of a flight that begins with this level.
    pub fn new(level: Level) -> Self {
        if level == Level::Awaited { Self::AWAITED } else { Self(Some(Arc::new(AtomicU8::new(level as u8)))) }
    }

    /// Raises it to this level, unless it is that high already.
    pub fn raise(&self, level: Level) {
        if let Some(urgency) = &self.0 {
            urgency.fetch_max(level as u8, Ordering::Relaxed);
        }
    }

    /// What it is now.
    pub fn level(&self) -> Level {
        match self.0.as_ref().map(|urgency| urgency.load(Ordering::Relaxed)) {
            Some(0) => Level::Background,
            Some(1) => Level::Renewal,
            _ => Level::Awaited,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_and_never_falls() {
        let urgency = Urgency::new(Level::Background);
        let copy = urgency.clone();
        copy.raise(Level::Awaited);
        assert_eq!(urgency.level(), Level::Awaited);
        urgency.raise(Level::Renewal);
        assert_eq!(copy.level(), Level::Awaited);
    }
}
