//! No token in any log, error, metric or status: the fakes tell this file what they minted, the harness asks it about every output.
//!
//! The list is one for the process, so that a test cannot forget to hand a token over.

use std::collections::HashSet;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

static NEEDLES: LazyLock<Mutex<HashSet<String>>> = LazyLock::new(Mutex::default);

/// Remembers a token, assertion or request token. Too short a one would be found everywhere: 16 characters at least.
pub fn minted(token: &str) {
    assert!(token.len() >= 16, "a secret under 16 characters cannot be looked for");
    let mut needles = lock();
    needles.insert(token.to_owned());
    if let Some(tail) = signature_tail(token) {
        needles.insert(tail.to_owned());
    }
    needles.extend((0..3).flat_map(|offset| base64_forms(token, offset)));
}

/// Fails, naming `label` and never the token, when `text` holds a token minted so far, the end of its signature or its base64 form.
pub fn check(label: &str, text: &str) {
    let leaked = lock().iter().any(|needle| text.contains(needle));
    assert!(!leaked, "{label} contains a token");
}

/// As [`check`], for what may not be UTF-8.
pub fn check_bytes(label: &str, bytes: &[u8]) {
    check(label, &String::from_utf8_lossy(bytes));
}

/// As [`check`], but silent in a thread that is failing already: for `Drop`.
pub fn check_on_drop(label: &str, text: &str) {
    if !std::thread::panicking() {
        check(label, text);
    }
}

/// The last 32 characters of a JWT's signature: enough to know it by, and what is left when a log cuts the front off.
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

/// A failed check must not hide the next one: a poisoned lock is as good as any.
fn lock() -> MutexGuard<'static, HashSet<String>> {
    NEEDLES.lock().unwrap_or_else(PoisonError::into_inner)
}
