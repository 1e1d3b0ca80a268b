//! The classes of characters in a head.

/// The characters of a token: `tchar` of RFC 9110 section 5.6.2.
pub(super) const TOKEN: u8 = 1;
/// The characters of a path and query. Allows some that RFC 3986 requires to be percent-encoded, such as brackets,
/// because HTTP clients send them. Does not allow a backslash, because some servers treat it as a slash.
pub(super) const TARGET: u8 = 2;
/// The characters of a field value (RFC 9110 section 5.5).
pub(super) const TEXT: u8 = 4;

/// The classes of each byte, as a table, because nearly all bytes of a head are looked up here.
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0_u8;
    loop {
        let is_mark = matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~');
        let is_token = byte.is_ascii_alphanumeric() || is_mark;
        let is_target = byte.is_ascii_graphic() && !matches!(byte, b'"' | b'#' | b'<' | b'>' | b'\\');
        let is_text = byte == b'\t' || (byte >= b' ' && byte != 0x7f);
        classes[byte as usize] = is_token as u8 * TOKEN + is_target as u8 * TARGET + is_text as u8 * TEXT;
        if byte == u8::MAX {
            break classes;
        }
        byte += 1;
    }
};

pub(super) fn is_of(class: u8, byte: u8) -> bool {
    CLASSES[usize::from(byte)] & class != 0
}
