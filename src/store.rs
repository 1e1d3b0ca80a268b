//! The platform's keyring, with a time limit: the only store that outlives the process.
//!
//! Opt-in (`[keyring] enabled = true`). It holds registered clients and generated keys, never tokens. A secret service
//! can block forever, so every call runs on a thread of its own and is abandoned after two seconds. After that only
//! memory is used. A lost keyring costs one more registration, never a token.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use secrecy::SecretString;
use tokio::sync::Semaphore;

use crate::blocking::{self, Kind};
use crate::token::expose;

/// Our service name in the keyring.
const SERVICE: &str = "safeconduct";
/// The time limit of a call. A working secret service answers in milliseconds.
const LIMIT: Duration = Duration::from_secs(2);

/// Stores registrations and keys beyond this process. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Store {
    enabled: bool,
    /// A call timed out or failed; no further calls are made.
    given_up: Arc<AtomicBool>,
    /// One call at a time, so that the time limit does not count the calls before.
    turn: Arc<Semaphore>,
}

impl Store {
    /// The platform's keyring, or no store if not `enabled`.
    pub(crate) fn new(enabled: bool) -> Self {
        Self { enabled, given_up: Arc::default(), turn: Arc::new(Semaphore::new(1)) }
    }

    /// Do both store things in the same place?
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.enabled == other.enabled
    }

    /// Reads the secret with this name. `None` also if the keyring cannot be used.
    pub(crate) async fn read(&self, name: &str) -> Option<SecretString> {
        let read = |entry: keyring::Entry| match entry.get_password() {
            Ok(text) => Ok(Some(SecretString::from(text))),
            // A value that is not text is not ours. Treat it as absent; the next write replaces it.
            Err(keyring::Error::NoEntry | keyring::Error::BadEncoding(_)) => Ok(None),
            Err(error) => Err(error),
        };
        self.within(name, read).await.flatten()
    }

    /// Stores a secret. Does nothing if the keyring cannot be used.
    pub(crate) async fn write(&self, name: &str, secret: SecretString) {
        self.within(name, move |entry| entry.set_password(expose(&secret))).await;
    }

    /// Removes a secret. Does nothing if the keyring cannot be used.
    pub(crate) async fn remove(&self, name: &str) {
        let remove = |entry: keyring::Entry| match entry.delete_credential() {
            Err(keyring::Error::NoEntry) => Ok(()),
            outcome => outcome,
        };
        self.within(name, remove).await;
    }

    /// Runs `work` on a blocking thread within the time limit. `None` if the keyring is off, fails or does not answer.
    async fn within<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce(keyring::Entry) -> keyring::Result<T> + Send + 'static,
    ) -> Option<T> {
        if !self.enabled {
            return None;
        }
        let _turn = Arc::clone(&self.turn).acquire_owned().await.ok()?;
        if self.given_up.load(Ordering::Relaxed) {
            return None;
        }
        let name = name.to_owned();
        let work = blocking::run(Kind::Keyring, move || keyring::Entry::new(SERVICE, &name).and_then(work));
        let why = match tokio::time::timeout(LIMIT, work).await {
            Ok(Ok(Ok(outcome))) => return Some(outcome),
            // Do not log the text of the error: it may contain the secret.
            Ok(Ok(Err(error))) => reason(&error),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the keyring cannot be used now");
                return None;
            }
            Err(_) => "it does not answer within 2 s",
        };
        if !self.given_up.swap(true, Ordering::Relaxed) {
            tracing::warn!(why, "the keyring cannot be used: registrations and keys last as long as this process");
        }
        None
    }
}

fn reason(error: &keyring::Error) -> &'static str {
    match error {
        keyring::Error::NoStorageAccess(_) => "it is locked or refuses access",
        keyring::Error::PlatformFailure(_) => "there is no secret service, or it fails",
        _ => "it does not do what was asked",
    }
}
