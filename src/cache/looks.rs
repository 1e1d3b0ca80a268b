//! When which key is looked at next. A key has one look: the newest plan replaces the one before.

use std::collections::{BTreeMap, HashMap};

use super::Key;
use crate::clock::Boot;

/// The planned looks, in the order of their time.
#[derive(Default)]
pub(super) struct Looks {
    /// The number tells apart the looks of one moment.
    by_time: BTreeMap<(Boot, u64), Key>,
    by_key: HashMap<Key, (Boot, u64)>,
    planned: u64,
}

impl Looks {
    /// Plans a look at this key, and no other.
    pub(super) fn plan(&mut self, key: Key, at: Boot) {
        self.planned += 1;
        let place = (at, self.planned);
        if let Some(before) = self.by_key.insert(key, place) {
            self.by_time.remove(&before);
        }
        self.by_time.insert(place, key);
    }

    /// The time of the next look.
    pub(super) fn next(&self) -> Option<Boot> {
        self.by_time.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes out a key whose time has come.
    pub(super) fn due(&mut self, now: Boot) -> Option<Key> {
        let first = self.by_time.first_entry().filter(|first| first.key().0 <= now)?;
        let key = first.remove();
        self.by_key.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Clock;

    #[tokio::test(start_paused = true)]
    async fn the_newest_plan_of_a_key_counts_and_keys_come_in_the_order_of_their_time() {
        let now = Clock::virtual_at(std::time::SystemTime::UNIX_EPOCH).boot();
        let after = |seconds| now + Duration::from_secs(seconds);
        let [a, b, c] = ["a", "b", "c"].map(|name| Key::of(name.as_bytes()));
        let mut looks = Looks::default();
        for (key, at) in [(a, 5), (b, 3), (c, 3), (a, 1), (b, 9)] {
            looks.plan(key, after(at));
        }
        assert_eq!(looks.next(), Some(after(1)));
        assert_eq!(looks.due(now), None);
        let mut due = |seconds| std::iter::from_fn(|| looks.due(after(seconds))).collect::<Vec<_>>();
        assert_eq!((due(3), due(8), due(9)), (vec![a, c], vec![], vec![b]));
        assert_eq!(looks.next(), None);
    }
}
