//! Cuts what comes on stdin into lines. Pure.
//!
//! A line ends with LF or CRLF. Other characters that some programs take for line ends, U+2028 among them, belong to the
//! message. A line may be cut anywhere between two reads.

/// A line, without its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Whole(Vec<u8>),
    /// Longer than the cap: so much of its beginning.
    TooLong(Vec<u8>),
}

/// Puts the pieces of lines together.
#[derive(Debug)]
pub(super) struct Lines {
    /// The longest line, without its end.
    cap: usize,
    kept: Vec<u8>,
    /// The rest of this line is dropped.
    is_too_long: bool,
}

impl Lines {
    pub(super) fn new(cap: usize) -> Self {
        Self { cap, kept: Vec::new(), is_too_long: false }
    }

    /// Reads up to the end of a line, and removes from `piece` what was read. `None` if the piece is used up. To be called
    /// again until then.
    pub(super) fn read(&mut self, piece: &mut &[u8]) -> Option<Line> {
        let end = piece.iter().position(|&byte| byte == b'\n');
        let (part, rest) = piece.split_at(end.unwrap_or(piece.len()));
        *piece = rest.get(1..).unwrap_or_default();
        // One more than the cap, because the last byte may be the CR of the line's end.
        let room = self.cap + 1 - self.kept.len();
        self.is_too_long |= part.len() > room;
        self.kept.extend_from_slice(&part[..part.len().min(room)]);
        end?;
        let mut line = std::mem::take(&mut self.kept);
        if std::mem::take(&mut self.is_too_long) {
            return Some(Line::TooLong(line));
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        let is_whole = line.len() <= self.cap;
        Some(if is_whole { Line::Whole(line) } else { Line::TooLong(line) })
    }

    /// How many bytes of an unfinished line are kept.
    pub(super) fn kept(&self) -> usize {
        self.kept.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of a text that comes in pieces of this size.
    fn lines(cap: usize, text: &[u8], size: usize) -> Vec<Line> {
        let mut lines = Lines::new(cap);
        let mut found = Vec::new();
        for mut piece in text.chunks(size) {
            while !piece.is_empty() {
                found.extend(lines.read(&mut piece));
            }
        }
        found
    }

    fn whole(text: &str) -> Line {
        Line::Whole(text.as_bytes().to_vec())
    }

    #[test]
    fn wire_3_and_4_a_line_ends_with_lf_or_crlf_alone() {
        let text = "a\r\nb\n\u{2028}c\rd\u{85}\n\r\n\nunfinished".as_bytes();
        for size in 1..text.len() {
            let expected = [whole("a"), whole("b"), whole("\u{2028}c\rd\u{85}"), whole(""), whole("")];
            assert_eq!(lines(64, text, size), expected, "{size}");
        }
    }

    #[test]
    fn wire_6_the_limit_does_not_depend_on_how_the_pipe_cuts_a_line() {
        for end in ["\n", "\r\n"] {
            let text = format!("{}{end}{}{end}x{end}", "a".repeat(10), "b".repeat(11));
            for size in 1..text.len() {
                let found = lines(10, text.as_bytes(), size);
                assert_eq!(found[0], whole("aaaaaaaaaa"), "{size}");
                assert!(
                    matches!(&found[1], Line::TooLong(part) if part.starts_with(b"bbbbbbbbbb")),
                    "{size}: {found:?}"
                );
                assert_eq!(found[2], whole("x"), "the next line is read as ever");
            }
        }
    }

    #[test]
    fn wire_7_an_endless_line_keeps_no_more_than_the_cap() {
        let mut lines = Lines::new(1_000);
        for _ in 0..1_000 {
            let mut piece = &[b'x'; 999][..];
            assert_eq!(lines.read(&mut piece), None);
            assert!(lines.kept() <= 1_001 && lines.kept.capacity() <= 4_096);
        }
        assert!(matches!(lines.read(&mut &b"\n"[..]), Some(Line::TooLong(part)) if part.len() <= 1_001));
    }
}
