//! How much is kept, and what is forgotten beyond that.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::{Key, Opening, Session, State};

/// The most that is kept.
pub(super) struct Bound {
    pub(super) sessions: usize,
    bytes: usize,
}

pub(super) const OF_USER: Bound = Bound { sessions: 256, bytes: 1024 * 1_024 };
const OF_ALL: Bound = Bound { sessions: 1_024, bytes: 4 * 1_024 * 1_024 };
/// What a session takes besides its texts.
const BASE: usize = 512;

/// How much some sessions take.
#[derive(Clone, Copy)]
struct Size {
    sessions: usize,
    bytes: usize,
    /// The use of the one that was unused the longest.
    oldest: u64,
}

const NOTHING: Size = Size { sessions: 0, bytes: 0, oldest: u64::MAX };

impl Size {
    fn add(self, session: &Session) -> Self {
        let (sessions, bytes) = (self.sessions + 1, self.bytes + weight(session));
        Self { sessions, bytes, oldest: self.oldest.min(session.used) }
    }
}

/// Forgets sessions until all bounds hold: of this user if it is over its own bound, else of the user that keeps most.
/// The session that was just used is the last to be forgotten.
pub(super) fn keep(all: &mut HashMap<Key, Session>, uid: u32, just_used: &Key) {
    while let Some(loser) = loser(all, uid) {
        let candidates = all.iter().filter(|(key, _)| key.uid == loser);
        // A session that is being healed has requests that wait for it.
        let order =
            |(key, session): &(&Key, &Session)| (*key == just_used, session.state == State::Healing, session.used);
        let Some(key) = candidates.min_by_key(order).map(|(key, _)| key.clone()) else { return };
        all.remove(&key);
    }
}

/// Whose session is to be forgotten, if one is.
fn loser(all: &HashMap<Key, Session>, uid: u32) -> Option<u32> {
    let mut by_user: HashMap<u32, Size> = HashMap::new();
    for (key, session) in all {
        let size = by_user.entry(key.uid).or_insert(NOTHING);
        *size = size.add(session);
    }
    let own = by_user.get(&uid).copied().unwrap_or(NOTHING);
    if own.sessions > OF_USER.sessions || own.bytes > OF_USER.bytes {
        return Some(uid);
    }
    let total = all.values().fold(NOTHING, Size::add);
    let most: fn(&Size) -> usize = if total.sessions > OF_ALL.sessions {
        |size| size.sessions
    } else if total.bytes > OF_ALL.bytes {
        |size| size.bytes
    } else {
        return None;
    };
    by_user.iter().max_by_key(|(_, size)| (most(size), Reverse(size.oldest))).map(|(uid, _)| *uid)
}

fn weight(session: &Session) -> usize {
    let opening = match &session.opening {
        Opening::Kept(text) | Opening::Before(text) => text.len(),
        Opening::TooLarge => 0,
    };
    let subscriptions: usize = session.subscriptions.iter().map(|uri| uri.len() + 32).sum();
    BASE + opening + subscriptions + session.offer.as_ref().map_or(0, super::Offer::weight)
}
