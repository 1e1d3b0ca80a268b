//! Limits the connections of a listener so that no user can take all of them.
//!
//! A user's share is a quarter of the socket's connections. Above it, a new connection of that user replaces that
//! user's connection that was answered and has been idle for longest. Connections that wait for an answer are not
//! closed for this, so a user can hold more than a share while there is room. When the listener is full, the longest
//! idle connection of a user above the share is closed; if none is idle, one that is being answered. A TCP connection
//! belongs to a stranger until it presents the secret, and all strangers together have a small share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::activity::Activity;

/// Who a connection belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// A user, identified by the kernel or by the secret.
    User(u32),
    /// Not known yet.
    Stranger,
}

/// The maximum numbers of connections.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// In total.
    pub all: usize,
    /// Per user.
    pub user: usize,
    /// For all strangers together.
    pub strangers: usize,
}

impl Places {
    /// The descriptors that connections can take here, where one takes `each`.
    pub const fn descriptors(self, each: usize) -> usize {
        self.all * each
    }

    /// As many places as these descriptors allow, with the same shares. A user and the strangers have at least one.
    pub fn within(self, descriptors: usize, each: usize) -> Self {
        let all = self.all.min(descriptors / each).max(1);
        let part = |share: usize| if share == 0 { 0 } else { (share * all / self.all).max(1) };
        Self { all, user: part(self.user), strangers: part(self.strangers) }
    }
}

/// The connections of one listener.
pub struct Seats {
    places: Places,
    /// A clock for activity: counts events on all connections, so that they can be ordered by their last event.
    ticks: Arc<AtomicU64>,
    taken: Mutex<Taken>,
}

/// The present connections with their owners, and their number for each owner.
#[derive(Default)]
struct Taken {
    next: u64,
    seats: BTreeMap<u64, (Owner, Arc<Activity>)>,
    counts: BTreeMap<Owner, usize>,
}

/// A connection that counts against the limits until this is dropped.
pub struct Seat {
    seats: Arc<Seats>,
    number: u64,
    is_strangers: AtomicBool,
    activity: Arc<Activity>,
}

impl Seats {
    pub fn new(places: Places) -> Arc<Self> {
        Arc::new(Self { places, ticks: Arc::default(), taken: Mutex::default() })
    }

    /// Admits a new connection. At a limit this evicts another connection; `None` if no other may be evicted.
    pub fn take(self: &Arc<Self>, owner: Owner) -> Option<Seat> {
        let mut taken = self.lock();
        if taken.count(owner) >= self.share(owner)
            && let Some(victim) = taken.least_of(owner)
        {
            taken.evict(victim);
        }
        if taken.seats.len() >= self.places.all {
            let victim = taken.least(owner, |owner| self.share(owner))?;
            taken.evict(victim);
        }
        let activity = Arc::new(Activity::new(Arc::clone(&self.ticks)));
        let number = taken.next;
        taken.next += 1;
        taken.seats.insert(number, (owner, Arc::clone(&activity)));
        *taken.counts.entry(owner).or_default() += 1;
        let is_strangers = AtomicBool::new(owner == Owner::Stranger);
        Some(Seat { seats: Arc::clone(self), number, is_strangers, activity })
    }

    /// The limit of this owner.
    fn share(&self, owner: Owner) -> usize {
        match owner {
            Owner::User(_) => self.places.user,
            Owner::Stranger => self.places.strangers,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn count(&self, owner: Owner) -> usize {
        self.counts.get(&owner).copied().unwrap_or_default()
    }

    /// The connection of this owner to evict for a new one of the same owner. A user's connection must have been
    /// answered before: one without a request may be about to send it.
    fn least_of(&self, owner: Owner) -> Option<u64> {
        let may_go = |activity: &Activity| owner == Owner::Stranger || (activity.is_idle() && activity.was_answered());
        let of_owner = self.seats.iter().filter(|(_, (whose, activity))| *whose == owner && may_go(activity));
        of_owner.min_by_key(|(_, (_, activity))| activity.rank()).map(|(number, _)| *number)
    }

    /// The connection to evict when the listener is full: an idle one of an owner above the share; else any idle one;
    /// else a busy one of the owner that has most, if the newcomer has fewer even afterwards. So several users together
    /// cannot keep another out.
    fn least(&self, newcomer: Owner, share: impl Fn(Owner) -> usize) -> Option<u64> {
        let has = self.count(newcomer);
        let candidates = self.seats.iter().filter_map(|(number, (owner, activity))| {
            let count = self.count(*owner);
            let is_over = count > share(*owner);
            let may_go = activity.is_idle() || (*owner != newcomer && (is_over || count > has + 1));
            let (is_busy, since) = activity.rank();
            let most_first = if is_busy { usize::MAX - count } else { 0 };
            may_go.then_some(((is_busy, !is_over, most_first, since), *number))
        });
        candidates.min().map(|(_, number)| number)
    }

    fn evict(&mut self, number: u64) {
        if let Some(activity) = self.remove(number) {
            activity.evict();
        }
    }

    fn remove(&mut self, number: u64) -> Option<Arc<Activity>> {
        let (owner, activity) = self.seats.remove(&number)?;
        self.uncount(owner);
        Some(activity)
    }

    fn uncount(&mut self, owner: Owner) {
        if let Some(count) = self.counts.get_mut(&owner) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&owner);
            }
        }
    }
}

impl Seat {
    /// The activity on the connection.
    pub(super) fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    pub(super) fn is_strangers(&self) -> bool {
        self.is_strangers.load(Ordering::Relaxed)
    }

    /// Assigns a stranger's connection to the user who presented the secret. Does nothing for other connections.
    pub fn belongs_to(&self, uid: u32) {
        if !self.is_strangers.swap(false, Ordering::Relaxed) {
            return;
        }
        let mut taken = self.seats.lock();
        if let Some((owner, _)) = taken.seats.get_mut(&self.number) {
            let before = std::mem::replace(owner, Owner::User(uid));
            taken.uncount(before);
            *taken.counts.entry(Owner::User(uid)).or_default() += 1;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.lock().remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOCKET: Places = Places { all: 8, user: 2, strangers: 2 };
    const LOOPBACK: Places = Places { all: 8, user: 8, strangers: 2 };
    const A: Owner = Owner::User(1);
    const B: Owner = Owner::User(2);

    fn take(seats: &Arc<Seats>, owner: Owner) -> Seat {
        seats.take(owner).expect("there is a place")
    }

    /// An idle connection that was answered.
    fn answered(seats: &Arc<Seats>, owner: Owner) -> Seat {
        let seat = take(seats, owner);
        drop(seat.activity().begin());
        seat
    }

    fn gone(seats: &[&Seat]) -> Vec<bool> {
        seats.iter().map(|seat| seat.activity().is_evicted()).collect()
    }

    #[test]
    fn with_few_descriptors_there_are_few_places_with_the_same_shares() {
        let places = Places { all: 2_048, user: 512, strangers: 64 };
        let of = |descriptors, each| {
            let Places { all, user, strangers } = places.within(descriptors, each);
            (all, user, strangers)
        };
        assert_eq!(of(10_000, 2), (2_048, 512, 64));
        assert_eq!(of(2_048, 2), (1_024, 256, 32));
        assert_eq!(of(16, 2), (8, 2, 1));
        assert_eq!(of(0, 2), (1, 1, 1));
    }

    #[test]
    fn at_its_share_a_user_gives_up_the_longest_idle_connection() {
        let seats = Seats::new(SOCKET);
        let (first, second) = (answered(&seats, A), answered(&seats, A));
        drop(first.activity().begin());
        let others = answered(&seats, B);
        let third = answered(&seats, A);
        assert_eq!(gone(&[&first, &second, &others, &third]), [false, true, false, false], "the first asked again");
    }

    #[test]
    fn callers_that_wait_for_an_answer_or_have_not_asked_yet_are_not_turned_away() {
        let seats = Seats::new(SOCKET);
        let waiting: Vec<Seat> = (0..4).map(|_| take(&seats, A)).collect();
        let running: Vec<_> = waiting.iter().map(|seat| seat.activity().begin()).collect();
        let silent: Vec<Seat> = (0..4).map(|_| take(&seats, A)).collect();
        assert!(waiting.iter().chain(&silent).all(|seat| !seat.activity().is_evicted()));
        drop(running);
    }

    #[test]
    fn who_holds_more_than_a_share_makes_room_for_others_idle_connections_first() {
        let seats = Seats::new(SOCKET);
        let busy: Vec<Seat> = (0..5).map(|_| take(&seats, A)).collect();
        let running: Vec<_> = busy.iter().map(|seat| seat.activity().begin()).collect();
        let others = answered(&seats, B);
        let (older, newer) = (take(&seats, A), take(&seats, A));
        let mut newcomers = vec![take(&seats, B)];
        assert_eq!(gone(&[&older, &newer, &others]), [true, false, false], "A has more than a share");
        newcomers.push(take(&seats, Owner::User(3)));
        assert_eq!(gone(&[&newer, &others]), [true, false]);
        newcomers.push(take(&seats, Owner::User(4)));
        assert_eq!(gone(&[&others, &newcomers[0], &newcomers[1]]), [true, false, false], "the longest idle of all");
        let running_too: Vec<_> = newcomers.iter().map(|seat| seat.activity().begin()).collect();
        newcomers.push(take(&seats, Owner::User(5)));
        assert_eq!(gone(&busy.iter().collect::<Vec<_>>()), [true, false, false, false, false], "none is idle any more");
        drop((running, running_too));
    }

    #[test]
    fn who_fills_all_places_with_requests_gets_no_more_and_keeps_nobody_out() {
        let seats = Seats::new(SOCKET);
        let busy: Vec<Seat> = (0..8).map(|_| take(&seats, A)).collect();
        let running: Vec<_> = busy.iter().map(|seat| seat.activity().begin()).collect();
        assert!(seats.take(A).is_none());
        assert!(seats.take(B).is_some());
        drop(running);
    }

    #[test]
    fn several_users_that_fill_all_places_with_requests_keep_nobody_out() {
        let seats = Seats::new(SOCKET);
        let full: Vec<Seat> = (0..8).map(|at| take(&seats, Owner::User(10 + at / 2))).collect();
        let running: Vec<_> = full.iter().map(|seat| seat.activity().begin()).collect();
        let newcomer = take(&seats, A);
        let busy = newcomer.activity().begin();
        assert_eq!(full.iter().filter(|seat| seat.activity().is_evicted()).count(), 1);
        assert!(seats.take(A).is_none(), "with another one A would have as many as they");
        drop((running, busy));
    }

    #[test]
    fn strangers_have_few_places_whatever_they_do_there() {
        let seats = Seats::new(LOOPBACK);
        let (first, second) = (take(&seats, Owner::Stranger), take(&seats, Owner::Stranger));
        let running = (first.activity().begin(), second.activity().begin());
        let third = take(&seats, Owner::Stranger);
        assert_eq!(gone(&[&first, &second, &third]), [true, false, false]);
        drop(running);
    }

    #[test]
    fn who_shows_the_secret_is_no_stranger_any_more() {
        let seats = Seats::new(LOOPBACK);
        let (first, second) = (take(&seats, Owner::Stranger), take(&seats, Owner::Stranger));
        first.belongs_to(1);
        first.belongs_to(1);
        assert!(!first.is_strangers() && second.is_strangers());
        let third = take(&seats, Owner::Stranger);
        assert_eq!(gone(&[&first, &second, &third]), [false; 3]);
        let fourth = take(&seats, Owner::Stranger);
        assert_eq!(gone(&[&first, &second, &third, &fourth]), [false, true, false, false]);
    }

    #[test]
    fn a_place_is_free_again_when_its_connection_ends() {
        let seats = Seats::new(SOCKET);
        for _ in 0..100 {
            let kept: Vec<Seat> = (0..8).map(|_| take(&seats, A)).collect();
            let running: Vec<_> = kept.iter().map(|seat| seat.activity().begin()).collect();
            drop((running, kept));
        }
        let taken = seats.lock();
        assert!(taken.seats.is_empty() && taken.counts.is_empty());
    }
}
