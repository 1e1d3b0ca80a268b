//! Finds tokens in logs, errors, metrics and status: the fakes register their tokens here, the harness checks every output.
//!
//! The process has one list, so that a test cannot forget to register a token.

use std::collections::{HashMap, HashSet};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

static NEEDLES: LazyLock<Mutex<Needles>> = LazyLock::new(Mutex::default);

/// Registers a token, assertion or request token of at least 16 characters. Shorter ones would match by chance.
pub fn minted(token: &str) {
    assert!(token.len() >= END, "a secret under 16 characters cannot be looked for");
    let mut needles = lock();
    needles.add(token.to_owned());
    if let Some(tail) = signature_tail(token) {
        needles.add(tail.to_owned());
    }
    (0..3).flat_map(|offset| base64_forms(token, offset)).for_each(|form| needles.add(form));
}

/// Fails, naming `label` and never the token, when `text` holds a token minted so far, the end of its signature or its base64 form.
pub fn check(label: &str, text: &str) {
    let leaked = lock().any_in(text.as_bytes());
    assert!(!leaked, "{label} contains a token");
}

/// As [`check`], for bytes that may not be UTF-8.
pub fn check_bytes(label: &str, bytes: &[u8]) {
    check(label, &String::from_utf8_lossy(bytes));
}

/// As [`check`], but silent in a thread that is failing already: for `Drop`.
pub fn check_on_drop(label: &str, text: &str) {
    if !std::thread::panicking() {
        check(label, text);
    }
}

/// The last 32 characters of a JWT's signature: enough to identify it, also if a log cuts off its start.
fn signature_tail(token: &str) -> Option<&str> {
    let (_, signature) = token.rsplit_once('.')?;
    signature.get(signature.len().checked_sub(32)?..)
}

/// The characters of a base64 text that depend on the token alone, when the token begins `offset` bytes into a group of three.
fn base64_forms(token: &str, offset: usize) -> [String; 2] {
    let padded = [&b"xxx"[..offset], token.as_bytes()].concat();
    let whole = padded.len() / 3 * 4;
    let from = if offset == 0 { 0 } else { 4 };
    [STANDARD.encode(&padded), URL_SAFE.encode(&padded)].map(|text| text[from..whole].to_owned())
}

/// All registered tokens, by their last 16 bytes: these are random, while the first bytes are the same for every JWT. A text is read
/// once for any number of needles, and adding a needle takes constant time.
struct Needles {
    by_end: HashMap<[u8; END], HashSet<Vec<u8>>>,
    /// One bit for the last four bytes of each needle. It excludes nearly every position of a text quickly, so that an unoptimised
    /// build can check every log of every test.
    last_four: Vec<bool>,
}

const END: usize = 16;
/// The bits of a place in [`Needles::last_four`].
const BITS: u32 = 20;

impl Default for Needles {
    fn default() -> Self {
        Self { by_end: HashMap::new(), last_four: vec![false; 1 << BITS] }
    }
}

impl Needles {
    fn add(&mut self, needle: String) {
        let needle = needle.into_bytes();
        if let Some(end) = needle.last_chunk::<END>() {
            let last_four = end.iter().fold(0, |four, byte| (four << 8) | u32::from(*byte));
            self.last_four[place(last_four)] = true;
            self.by_end.entry(*end).or_default().insert(needle);
        }
    }

    fn any_in(&self, text: &[u8]) -> bool {
        let mut last_four: u32 = 0;
        text.iter().enumerate().any(|(at, byte)| {
            last_four = (last_four << 8) | u32::from(*byte);
            self.last_four[place(last_four)] && self.ends_at(&text[..=at])
        })
    }

    /// Whether `text` ends with a needle.
    fn ends_at(&self, text: &[u8]) -> bool {
        let needles = text.last_chunk::<END>().and_then(|end| self.by_end.get(end));
        needles.is_some_and(|needles| needles.iter().any(|needle| text.ends_with(needle)))
    }
}

/// Multiplicative hashing (Knuth): the upper bits depend on all four bytes.
fn place(last_four: u32) -> usize {
    (last_four.wrapping_mul(0x9e37_79b1) >> (u32::BITS - BITS)) as usize
}

/// After a failed check the lock is poisoned, but the next check must still run.
fn lock() -> MutexGuard<'static, Needles> {
    NEEDLES.lock().unwrap_or_else(PoisonError::into_inner)
}
