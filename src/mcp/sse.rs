//! Event streams (WHATWG HTML, section 9.2): a reader that watches a stream while its bytes pass by, and a writer.
//!
//! The reader changes nothing. The caller passes the bytes on as they came and shows each piece to [`Reader::read`], in pieces
//! of any size. Afterwards the reader knows which events ended, the last event id, whether another event has begun
//! ([`Reader::is_between_events`]), and how to end an event that will never be complete ([`Reader::abandon`]).
//!
//! What is kept is bounded: the data of one event by the cap that the caller gives, every other value by 1 KiB.

use std::time::Duration;

mod line;
pub(crate) mod mark;
#[cfg(test)]
mod tests;

use line::{Field, Line, Name};
use mark::BOM;

/// The longest event name, id or retry value that is kept.
const VALUE_CAP: usize = 1_024;
/// A buffer that grew beyond this is given back after its event.
const KEPT_ROOM: usize = 16 * 1_024;

/// A comment to insert between two events. Clients ignore it, and know that the stream is alive.
pub(crate) const COMMENT: &[u8] = b": keep-alive\n\n";

/// Watches one stream.
#[derive(Debug)]
pub(crate) struct Reader {
    data_cap: usize,
    start: Start,
    line: Line,
    /// The last byte was a CR. A LF after it belongs to it.
    after_cr: bool,
    /// A CR was seen without a LF after it, so this stream ends its lines so.
    has_lone_cr: bool,
    value: Value,
    event: Draft,
    ended: Draft,
    last_id: Option<Vec<u8>>,
    retry: Option<Duration>,
}

/// What comes before the first line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// So many bytes of a byte order mark were seen.
    Mark(usize),
    Over,
}

/// The value of a line, up to its cap.
#[derive(Debug, Default)]
struct Value {
    bytes: Vec<u8>,
    is_too_long: bool,
}

/// An event in progress.
#[derive(Debug, Default)]
struct Draft {
    has_fields: bool,
    name: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    is_data_too_long: bool,
    /// The id that counts once the event ends; `Some(None)` if it cannot be used.
    id: Option<Option<Vec<u8>>>,
}

/// An event that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event<'r> {
    /// The name of its `event` line, empty if it has none.
    pub(crate) name: &'r [u8],
    pub(crate) data: Data<'r>,
}

/// The data of an event: its `data` lines, with a LF between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Data<'r> {
    /// It has no `data` line, so clients do not see the event.
    None,
    Kept(&'r [u8]),
    /// Longer than the reader keeps.
    TooLong,
}

impl Event<'_> {
    /// May a message be in it? MCP clients ignore events of other names.
    pub(crate) fn is_message(&self) -> bool {
        matches!(self.name, b"" | b"message")
    }
}

impl Reader {
    /// A reader at the start of a stream. It keeps this many bytes of the data of one event.
    pub(crate) fn new(data_cap: usize) -> Self {
        Self {
            data_cap,
            start: Start::Mark(0),
            line: Line::Start,
            after_cr: false,
            has_lone_cr: false,
            value: Value::default(),
            event: Draft::default(),
            ended: Draft::default(),
            last_id: None,
            retry: None,
        }
    }

    /// Reads up to the end of an event, and removes from `piece` what was read. `None` if the piece is used up. To be called
    /// again until then.
    pub(crate) fn read(&mut self, piece: &mut &[u8]) -> Option<Event<'_>> {
        while !piece.is_empty() {
            if self.step(piece) {
                let Draft { name, data, has_data, is_data_too_long, .. } = &self.ended;
                let data = match (has_data, is_data_too_long) {
                    (false, _) => Data::None,
                    (true, false) => Data::Kept(data),
                    (true, true) => Data::TooLong,
                };
                return Some(Event { name, data });
            }
        }
        None
    }

    /// May something be inserted here: is no line and no event in progress? Between the CR and the LF of one line end it may
    /// not.
    pub(crate) fn is_between_events(&self) -> bool {
        let is_line_over = !self.after_cr || self.has_lone_cr;
        !self.has_begun() && is_line_over
    }

    /// Has an event, a line or a byte order mark begun that is not complete?
    pub(crate) fn has_begun(&self) -> bool {
        self.is_within_line() || self.event.has_fields
    }

    fn is_within_line(&self) -> bool {
        self.line != Line::Start || matches!(self.start, Start::Mark(1..))
    }

    /// The id of the last event that ended, from which the stream can be resumed. It may hold any byte but CR, LF and NUL.
    pub(crate) fn last_id(&self) -> Option<&[u8]> {
        self.last_id.as_deref()
    }

    /// How long the server asks to wait before reconnecting.
    pub(crate) fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// Another stream follows, which resumes this one: the last id and the wait stay.
    pub(crate) fn restart(&mut self) {
        let (last_id, retry) = (self.last_id.take(), self.retry);
        *self = Self { last_id, retry, ..Self::new(self.data_cap) };
    }

    /// What to send after the last byte of a stream that broke, so that clients ignore the event in progress, and that
    /// another event can follow. Its name is one that no MCP client knows, and the last id is as before. Empty if nothing is in
    /// progress.
    pub(crate) fn abandon(&self) -> Vec<u8> {
        let mut end = Vec::new();
        if !self.has_begun() {
            return end;
        }
        if self.is_within_line() {
            // Digits that are cut off would be another number, and anything else is ignored.
            end.extend_from_slice(if self.line == Line::Value(Field::Retry) { b"x\n" } else { b"\n" });
        }
        end.extend_from_slice(b"event: incomplete\nid");
        if let Some(id) = &self.last_id {
            end.extend_from_slice(b": ");
            end.extend_from_slice(id);
        }
        end.extend_from_slice(b"\n\n");
        end
    }

    /// Reads some bytes. `true` if they end an event.
    fn step(&mut self, piece: &mut &[u8]) -> bool {
        let &[first, ..] = *piece else { return false };
        if std::mem::take(&mut self.after_cr) {
            if first == b'\n' {
                *piece = &piece[1..];
                return false;
            }
            self.has_lone_cr = true;
        }
        if let Start::Mark(seen) = self.start {
            self.read_mark(seen, first, piece);
            return false;
        }
        match self.line {
            Line::Start if is_line_end(first) => {
                self.end_line(piece);
                return self.end_event();
            }
            Line::Start => self.line = Line::Name(Name::default()),
            Line::Name(name) => self.read_name(name, piece),
            // One blank after the colon does not belong to the value.
            Line::Colon(field) => {
                if first == b' ' {
                    *piece = &piece[1..];
                }
                self.line = Line::Value(field);
            }
            Line::Value(field) => self.read_value(field, piece),
        }
        false
    }

    fn read_mark(&mut self, seen: usize, first: u8, piece: &mut &[u8]) {
        if first == BOM[seen] {
            *piece = &piece[1..];
            self.start = if seen + 1 == BOM.len() { Start::Over } else { Start::Mark(seen + 1) };
            return;
        }
        self.start = Start::Over;
        if seen > 0 {
            // No mark after all: a line whose name begins with these bytes.
            self.line = Line::Name(Name::default().with(&BOM[..seen]));
        }
    }

    fn read_name(&mut self, name: Name, piece: &mut &[u8]) {
        let end = piece.iter().position(|&byte| byte == b':' || is_line_end(byte)).unwrap_or(piece.len());
        let name = name.with(&piece[..end]);
        *piece = &piece[end..];
        let Some(&next) = piece.first() else {
            self.line = Line::Name(name);
            return;
        };
        let field = name.field();
        self.begin_value(field);
        if next == b':' {
            *piece = &piece[1..];
            self.line = Line::Colon(field);
        } else {
            self.end_value(field);
            self.end_line(piece);
        }
    }

    fn read_value(&mut self, field: Field, piece: &mut &[u8]) {
        let end = piece.iter().position(|&byte| is_line_end(byte)).unwrap_or(piece.len());
        let (value, rest) = piece.split_at(end);
        match field {
            Field::Data => self.event.add_data(value, self.data_cap),
            Field::Event | Field::Id | Field::Retry => self.value.add(value),
            Field::Comment | Field::Unknown => {}
        }
        *piece = rest;
        if !piece.is_empty() {
            self.end_value(field);
            self.end_line(piece);
        }
    }

    fn begin_value(&mut self, field: Field) {
        self.value.bytes.clear();
        self.value.is_too_long = false;
        self.event.has_fields |= field != Field::Comment;
        if field == Field::Data {
            if self.event.has_data {
                self.event.add_data(b"\n", self.data_cap);
            }
            self.event.has_data = true;
        }
    }

    fn end_value(&mut self, field: Field) {
        let Value { bytes, is_too_long } = &self.value;
        match field {
            // A name that is cut off is still one that nobody knows.
            Field::Event => self.event.name.clone_from(bytes),
            // An id with a NUL is ignored. One that is empty or cannot be kept leaves none to resume from.
            Field::Id if bytes.contains(&0) => {}
            Field::Id => self.event.id = Some((!is_too_long && !bytes.is_empty()).then(|| bytes.clone())),
            Field::Retry if bytes.is_empty() || !bytes.iter().all(u8::is_ascii_digit) => {}
            Field::Retry => {
                let digit = |number: u64, byte: &u8| number.saturating_mul(10).saturating_add(u64::from(byte - b'0'));
                self.retry = Some(Duration::from_millis(bytes.iter().fold(0, digit)));
            }
            Field::Data | Field::Comment | Field::Unknown => {}
        }
    }

    /// Reads a line end. The LF of a CRLF may come with the next piece.
    fn end_line(&mut self, piece: &mut &[u8]) {
        self.line = Line::Start;
        let length = match **piece {
            [b'\r', b'\n', ..] => 2,
            [b'\r', _, ..] => {
                self.has_lone_cr = true;
                1
            }
            [b'\r'] => {
                self.after_cr = true;
                1
            }
            _ => 1,
        };
        *piece = &piece[length..];
    }

    /// An empty line ends the event, if one has begun.
    fn end_event(&mut self) -> bool {
        if !self.event.has_fields {
            return false;
        }
        if let Some(id) = self.event.id.take() {
            self.last_id = id;
        }
        std::mem::swap(&mut self.event, &mut self.ended);
        self.event.clear();
        true
    }
}

impl Value {
    fn add(&mut self, bytes: &[u8]) {
        let room = VALUE_CAP - self.bytes.len();
        self.is_too_long |= bytes.len() > room;
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

impl Draft {
    fn add_data(&mut self, bytes: &[u8], cap: usize) {
        self.is_data_too_long |= bytes.len() > cap - self.data.len();
        if self.is_data_too_long {
            self.data.clear();
        } else {
            self.data.extend_from_slice(bytes);
        }
    }

    /// Makes it an empty draft, with the room of the old one.
    fn clear(&mut self) {
        self.has_fields = false;
        self.name.clear();
        self.data.clear();
        self.data.shrink_to(KEPT_ROOM);
        self.has_data = false;
        self.is_data_too_long = false;
        self.id = None;
    }
}

fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

/// An event with this data, and with this id unless it has a character that an id cannot have.
pub(crate) fn event(id: Option<&str>, data: &str) -> Vec<u8> {
    let mut text = Vec::with_capacity(data.len() + 64);
    if let Some(id) = id.filter(|id| !id.contains(['\r', '\n', '\0'])) {
        text.extend_from_slice(b"id: ");
        text.extend_from_slice(id.as_bytes());
        text.push(b'\n');
    }
    for line in data.replace("\r\n", "\n").split(['\r', '\n']) {
        text.extend_from_slice(b"data: ");
        text.extend_from_slice(line.as_bytes());
        text.push(b'\n');
    }
    text.push(b'\n');
    text
}
