//! Names are looked up by the system, and only here.
//!
//! A lookup cannot be interrupted, and with a silent name server it takes half a minute. So all who want the same name at the same
//! time share one lookup, and a name whose server is silent takes one thread, however often it is asked for.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::{CONNECT_LIMIT, Outbound};
use crate::address;
use crate::blocking::{self, Kind};

/// The lookups of this process.
static LOOKUPS: Lookups = Lookups::new(|name| (name, 0).to_socket_addrs().map(Iterator::collect));

/// The addresses that the system gives for a name.
pub(super) async fn look_up(name: &str) -> io::Result<impl Iterator<Item = SocketAddr>> {
    LOOKUPS.of(name).await.map(Vec::into_iter)
}

type Found = io::Result<Vec<SocketAddr>>;

/// Lookups that run, each with those who wait for it.
struct Lookups {
    resolve: fn(&str) -> Found,
    waiting: Mutex<BTreeMap<String, Vec<oneshot::Sender<Found>>>>,
}

impl Lookups {
    const fn new(resolve: fn(&str) -> Found) -> Self {
        Self { resolve, waiting: Mutex::new(BTreeMap::new()) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Vec<oneshot::Sender<Found>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn of(&'static self, name: &str) -> Found {
        let (tell, told) = oneshot::channel();
        self.join(name, tell)?;
        told.await.unwrap_or_else(|_| Err(io::Error::other("the lookup broke off")))
    }

    /// Waits for the lookup that runs, or starts one.
    fn join(&'static self, name: &str, tell: oneshot::Sender<Found>) -> io::Result<()> {
        match self.lock().entry(name.to_owned()) {
            Entry::Occupied(mut running) => {
                let waiting = running.get_mut();
                // Some have waited too long and gone.
                waiting.retain(|tell| !tell.is_closed());
                waiting.push(tell);
                return Ok(());
            }
            Entry::Vacant(place) => drop(place.insert(vec![tell])),
        }
        let mut lookup = Lookup { all: self, name: name.to_owned(), is_over: false };
        // If there is no thread, the lookup is dropped.
        Ok(blocking::post(Kind::Names, move || lookup.run())?)
    }
}

/// One lookup. If it is dropped before it is over, whoever waits for it is told that it broke off.
struct Lookup {
    all: &'static Lookups,
    name: String,
    is_over: bool,
}

impl Lookup {
    fn run(&mut self) {
        let is_unwanted = |waiting: &Vec<oneshot::Sender<Found>>| waiting.iter().all(oneshot::Sender::is_closed);
        let mut all = self.all.lock();
        if all.get(&self.name).is_none_or(is_unwanted) {
            all.remove(&self.name);
            self.is_over = true;
            return;
        }
        drop(all);
        let found = (self.all.resolve)(&self.name);
        let waiting = self.all.lock().remove(&self.name);
        self.is_over = true;
        for tell in waiting.unwrap_or_default() {
            let copy = found.as_ref().map(Clone::clone);
            // Who has gone meanwhile is not told.
            drop(tell.send(copy.map_err(|error| io::Error::new(error.kind(), error.to_string()))));
        }
    }
}

impl Drop for Lookup {
    fn drop(&mut self) {
        if !self.is_over {
            self.all.lock().remove(&self.name);
        }
    }
}

impl Outbound {
    /// Does the system resolve the name of a platform's endpoint to the one address that is dialled here for it? Only then may
    /// another client, which lets the system resolve the name, be used for that endpoint.
    pub(crate) async fn agrees_with_the_system(&self, host: &str) -> bool {
        let literal = host.parse().ok();
        let Some(dialled) = literal.or_else(|| address::fixed(host)) else { return false };
        let found = tokio::time::timeout(self.left(CONNECT_LIMIT), look_up(host)).await;
        found.is_ok_and(|found| found.is_ok_and(|found| leads_only_to(dialled, found)))
    }
}

fn leads_only_to(dialled: IpAddr, mut found: impl Iterator<Item = SocketAddr>) -> bool {
    let first = found.next();
    first.is_some_and(|first| first.ip() == dialled) && found.all(|other| other.ip() == dialled)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_name_that_leads_anywhere_else_as_well_does_not_agree() {
        let place = |text: &str| SocketAddr::new(text.parse().expect("an address"), 0);
        let (metadata, other) = (place("169.254.169.254"), place("10.0.0.7"));
        let agrees = |found: &[SocketAddr]| leads_only_to(metadata.ip(), found.iter().copied());
        assert!(agrees(&[metadata]));
        assert!(agrees(&[metadata, metadata]), "once for each kind of socket");
        assert!(!agrees(&[]));
        assert!(!agrees(&[other]));
        assert!(!agrees(&[metadata, other]));
        assert!(!agrees(&[other, metadata]));
    }

    #[tokio::test]
    async fn a_silent_name_takes_one_thread_and_holds_up_no_other() {
        static HANGS: AtomicBool = AtomicBool::new(true);
        static BEGUN: AtomicUsize = AtomicUsize::new(0);
        static LOOKUPS: Lookups = Lookups::new(|name| {
            if name == "silent" {
                BEGUN.fetch_add(1, Ordering::SeqCst);
                while HANGS.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
            }
            Ok(vec![SocketAddr::from(([10, 0, 0, 7], 0))])
        });
        for _ in 0..50 {
            let waited = tokio::time::timeout(Duration::from_millis(1), LOOKUPS.of("silent")).await;
            assert!(waited.is_err());
        }
        assert_eq!(LOOKUPS.of("other").await.expect("found").len(), 1);
        while BEGUN.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let (first, second) = (LOOKUPS.of("silent"), LOOKUPS.of("silent"));
        HANGS.store(false, Ordering::SeqCst);
        let (first, second) = tokio::join!(first, second);
        assert_eq!((first.expect("found").len(), second.expect("found").len()), (1, 1));
        assert!(BEGUN.load(Ordering::SeqCst) <= 3, "not one for each of fifty");
        assert!(LOOKUPS.lock().is_empty());
    }

    #[tokio::test]
    async fn a_lookup_that_breaks_off_or_fails_is_told_and_the_next_one_begins_anew() {
        static LOOKUPS: Lookups = Lookups::new(|name| match name {
            "breaks" => panic!("on purpose"),
            _ => Err(io::Error::new(io::ErrorKind::NotFound, "no such name")),
        });
        for _ in 0..2 {
            assert!(LOOKUPS.of("breaks").await.is_err());
            let error = LOOKUPS.of("absent").await.expect_err("absent");
            assert_eq!((error.kind(), error.to_string()), (io::ErrorKind::NotFound, "no such name".to_owned()));
        }
        assert!(LOOKUPS.lock().is_empty());
    }

    #[tokio::test]
    async fn a_name_of_no_platform_never_agrees() {
        let outbound = Outbound::new(crate::outbound::Config::default());
        assert!(outbound.agrees_with_the_system("127.0.0.1").await);
        assert!(!outbound.agrees_with_the_system("metadata.example").await);
    }
}
