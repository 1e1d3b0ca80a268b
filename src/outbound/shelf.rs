//! A few things that are costly to make, each under the key that it was made for.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// Keys change as certificates are renewed. A process uses one of a kind, or a few during the change.
const CAP: usize = 8;

/// Keeps the newest eight.
pub(super) struct Shelf<K, V>(Mutex<VecDeque<(K, V)>>);

impl<K: PartialEq, V: Clone> Shelf<K, V> {
    /// The one of this key, which is made if it is not there. If that fails, nothing is kept.
    pub(super) fn get_or_make<E>(&self, key: K, make: impl FnOnce() -> Result<V, E>) -> Result<V, E> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, value)) = kept.iter().find(|(of, _)| *of == key) {
            return Ok(value.clone());
        }
        let value = make()?;
        if kept.len() >= CAP {
            kept.pop_front();
        }
        kept.push_back((key, value.clone()));
        Ok(value)
    }

    /// Forgets all of them.
    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl<K, V> Default for Shelf<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_made_once_and_the_oldest_goes() {
        let shelf = Shelf::<usize, usize>::default();
        let made = std::cell::Cell::new(0);
        let get = |key: usize| {
            let make = || {
                made.set(made.get() + 1);
                Ok::<_, ()>(key * 10)
            };
            shelf.get_or_make(key, make)
        };
        assert_eq!((get(1), get(1), made.get()), (Ok(10), Ok(10), 1));
        (2..=CAP + 1).for_each(|key| assert_eq!(get(key), Ok(key * 10)));
        assert_eq!(made.get(), CAP + 1);
        assert_eq!(get(2), Ok(20));
        assert_eq!(made.get(), CAP + 1, "it is still there");
        assert_eq!(get(1), Ok(10));
        assert_eq!(made.get(), CAP + 2, "it was the oldest");
        assert_eq!(shelf.get_or_make(99, || Err("no")), Err("no"));
        assert_eq!(shelf.get_or_make(99, || Ok::<_, &str>(5)), Ok(5));
    }
}
