//! A cache of fetched documents. Each document is fetched by one task at a time.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Error;
use crate::clock::{Boot, Clock};

/// The maximum number of documents.
const CAP: usize = 256;

type Cell<V> = Arc<tokio::sync::Mutex<CachedDocument<V>>>;

/// A document and its last failed fetch, each with its time.
struct CachedDocument<V> {
    value: Option<(V, Boot)>,
    failed: Option<(Error, Boot)>,
}

impl<V> Default for CachedDocument<V> {
    fn default() -> Self {
        Self { value: None, failed: None }
    }
}

/// The cache. Tasks that request a document while it is being fetched wait for that fetch and share its result.
pub(super) struct DocumentCache<K, V> {
    clock: Clock,
    cells: Mutex<HashMap<K, Cell<V>>>,
}

impl<K: Clone + Eq + Hash, V: Clone> DocumentCache<K, V> {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, cells: Mutex::default() }
    }

    /// Returns the document, from the cache if it is younger than `believed`, else from `fetch`.
    ///
    /// If `fetch` fails with an error that says nothing of the document, an older one is returned if there is one.
    pub(super) async fn get(
        &self,
        key: K,
        believed: impl Fn(&V) -> Duration,
        fetch: impl AsyncFnOnce() -> Result<V, Error>,
    ) -> Result<V, Error> {
        let asked = self.clock.boot();
        let cell = self.cell(key);
        let mut held = cell.lock().await;
        match &*held {
            CachedDocument { value: Some((value, since)), .. } if self.clock.boot().since(*since) < believed(value) => {
                return Ok(value.clone());
            }
            // The fetch failed while this task waited for it, so it shares the failure.
            CachedDocument { failed: Some((error, at)), value: None } if *at >= asked => return Err(error.clone()),
            _ => {}
        }
        match fetch().await {
            Ok(value) => {
                *held = CachedDocument { value: Some((value.clone(), self.clock.boot())), failed: None };
                Ok(value)
            }
            Err(error) => {
                held.failed = Some((error.clone(), self.clock.boot()));
                // While nobody sends the document, the older one stays valid.
                match &held.value {
                    Some((value, _)) if error.is_no_document() => Ok(value.clone()),
                    _ => Err(error),
                }
            }
        }
    }

    pub(super) fn forget(&self, key: &K) {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    fn cell(&self, key: K) -> Cell<V> {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        if cells.len() >= CAP && !cells.contains_key(&key) {
            // Drop every document that is not being fetched: it can be fetched again.
            cells.retain(|_, cell| Arc::strong_count(cell) > 1);
        }
        Arc::clone(cells.entry(key).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Document, Oddity};
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whoever_asks_while_a_document_is_fetched_waits_for_it() {
        let memory: DocumentCache<u8, u8> = DocumentCache::new(Clock::virtual_at(std::time::SystemTime::UNIX_EPOCH));
        let fetched = std::cell::Cell::new(0);
        let get = || {
            memory.get(
                1,
                |_| Duration::from_secs(10),
                async || {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    fetched.set(fetched.get() + 1);
                    Ok::<u8, Error>(7)
                },
            )
        };
        assert_eq!(tokio::join!(get(), get(), get()), (Ok(7), Ok(7), Ok(7)));
        assert_eq!(fetched.get(), 1);
        tokio::time::advance(Duration::from_secs(11)).await;
        assert_eq!(get().await, Ok(7));
        assert_eq!(fetched.get(), 2);
    }

    fn busy() -> Error {
        Error::Busy { document: Document::Server, host: "h.example".to_owned(), status: 503, retry_after: None }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_server_said_holds_while_it_has_trouble_and_not_when_it_is_wrong() {
        let memory: DocumentCache<u8, u8> = DocumentCache::new(Clock::virtual_at(std::time::SystemTime::UNIX_EPOCH));
        let believed = |_: &u8| Duration::from_secs(10);
        assert_eq!(memory.get(1, believed, async || Ok(7)).await, Ok(7));
        tokio::time::advance(Duration::from_secs(11)).await;
        let (host, what) = ("h.example".to_owned(), "no HTTP".to_owned());
        let garbled =
            Error::Outbound { document: Document::Server, error: crate::outbound::Error::Malformed { host, what } };
        for trouble in [busy(), garbled] {
            assert_eq!(memory.get(1, believed, async || Err(trouble.clone())).await, Ok(7), "{trouble}");
        }
        let wrong = || Error::Unusable {
            document: Document::Server,
            place: "https://h.example/".to_owned(),
            why: Oddity::Content("it is wrong".to_owned()),
        };
        assert_eq!(memory.get(1, believed, async || Err(wrong())).await, Err(wrong()));
        assert_eq!(memory.get(1, believed, async || Ok(8)).await, Ok(8));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_for_a_fetch_that_fails_shares_the_failure() {
        let memory: DocumentCache<u8, u8> = DocumentCache::new(Clock::virtual_at(std::time::SystemTime::UNIX_EPOCH));
        let fetched = std::cell::Cell::new(0);
        let get = || {
            memory.get(
                1,
                |_| Duration::from_secs(10),
                async || {
                    tokio::time::sleep(Duration::from_secs(5)).await;
                    fetched.set(fetched.get() + 1);
                    Err(busy())
                },
            )
        };
        assert_eq!(tokio::join!(get(), get(), get()), (Err(busy()), Err(busy()), Err(busy())));
        assert_eq!(fetched.get(), 1);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(get().await, Err(busy()));
        assert_eq!(fetched.get(), 2, "who asks later asks anew");
    }
}
