//! A text that changes once a second.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

/// The last such text, with its second. It holds no secret.
#[derive(Default)]
pub struct OfSecond(Mutex<Option<(u64, Bytes)>>);

impl OfSecond {
    /// The text of this second. It is made if the last one is of another second.
    pub(crate) fn text(&self, second: u64, make: impl FnOnce() -> String) -> Bytes {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((of, text)) if *of == second => text.clone(),
            _ => last.insert((second, make().into())).1.clone(),
        }
    }
}

/// The copy begins without a text.
impl Clone for OfSecond {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl fmt::Debug for OfSecond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OfSecond(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_made_once_for_each_second() {
        let text = OfSecond::default();
        assert_eq!(text.text(60, || "first".to_owned()), "first");
        assert_eq!(text.text(60, || "second".to_owned()), "first");
        assert_eq!(text.text(59, || "third".to_owned()), "third");
        let copy = text.clone();
        assert_eq!(copy.text(59, || "fourth".to_owned()), "fourth");
        assert_eq!(text.text(59, || "fifth".to_owned()), "third");
    }
}
