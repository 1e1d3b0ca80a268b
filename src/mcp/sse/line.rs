//! The part of a line in which a stream is, and the names of its fields.

/// Where in a line the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    Start,
    Name(Name),
    /// After the colon.
    Colon(Field),
    Value(Field),
}

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// A line that begins with a colon.
    Comment,
    Data,
    Event,
    Id,
    Retry,
    Unknown,
}

/// The longest name of a field that means something, and one more.
const ROOM: usize = 6;

/// The name of a field so far. Longer names mean nothing, so only their length matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Name {
    bytes: [u8; ROOM],
    length: usize,
}

impl Name {
    /// The name with these bytes after it.
    pub(super) fn with(mut self, more: &[u8]) -> Self {
        let room = &mut self.bytes[self.length..];
        let length = room.len().min(more.len());
        room[..length].copy_from_slice(&more[..length]);
        self.length += length;
        self
    }

    /// The field of this name.
    pub(super) fn field(&self) -> Field {
        match &self.bytes[..self.length] {
            b"" => Field::Comment,
            b"data" => Field::Data,
            b"event" => Field::Event,
            b"id" => Field::Id,
            b"retry" => Field::Retry,
            _ => Field::Unknown,
        }
    }
}
