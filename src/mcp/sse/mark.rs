//! The byte order mark at the start of a stream.

/// In UTF-8. It is ignored at the very start of a stream.
pub(super) const BOM: &[u8] = &[0xef, 0xbb, 0xbf];

/// Takes the byte order mark off a stream to which something was sent before its first byte: there it would no longer be
/// at the start.
#[derive(Debug, Default)]
pub(crate) struct WithoutMark {
    seen: usize,
    is_over: bool,
}

impl WithoutMark {
    /// What of this piece is to be passed on: first some bytes that were held back, then a part of the piece.
    pub(crate) fn pass<'p>(&mut self, piece: &'p [u8]) -> (&'static [u8], &'p [u8]) {
        if self.is_over || piece.is_empty() {
            return (b"", piece);
        }
        let same = piece.iter().zip(&BOM[self.seen..]).take_while(|(one, other)| one == other).count();
        let held = self.seen;
        self.seen += same;
        if self.seen == BOM.len() {
            self.is_over = true;
            return (b"", &piece[same..]);
        }
        if same == piece.len() {
            return (b"", b"");
        }
        self.is_over = true;
        (&BOM[..held], piece)
    }

    /// What was held back when the stream ended.
    pub(crate) fn rest(&self) -> &'static [u8] {
        if self.is_over { b"" } else { &BOM[..self.seen] }
    }
}
