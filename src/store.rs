//! The keyring, behind its time limit: the one place where something of ours outlives the process.
//!
//! Opt-in (`[keyring] enabled = true`), for registered clients and own keys, never for tokens. A secret service that is
//! there and silent would hold its caller for ever: every call runs on a blocking thread and is given up after two
//! seconds, and from then on memory alone serves. Losing a keyring costs one more registration, never a token.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use secrecy::SecretString;

use crate::token::expose;

/// What the keyring calls us.
const SERVICE: &str = "safeconduct";
/// A secret service that is there answers in milliseconds.
const LIMIT: Duration = Duration::from_secs(2);

/// Where registrations and keys are kept beyond this process. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Store {
    enabled: bool,
    /// It was silent or absent once: nobody waits for it again.
    given_up: Arc<AtomicBool>,
}

impl Store {
    /// The platform's keyring, or none.
    pub(crate) fn new(enabled: bool) -> Self {
        Self { enabled, given_up: Arc::default() }
    }

    /// Do both keep things in the same place?
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.enabled == other.enabled
    }

    /// What is kept under this name. `None` also when the keyring cannot be used.
    pub(crate) async fn read(&self, name: &str) -> Option<SecretString> {
        let read = |entry: keyring::Entry| match entry.get_password() {
            Ok(text) => Ok(Some(SecretString::from(text))),
            // What is no text is not ours: nothing to read, and the next thing kept takes its place.
            Err(keyring::Error::NoEntry | keyring::Error::BadEncoding(_)) => Ok(None),
            Err(error) => Err(error),
        };
        self.within(name, read).await.flatten()
    }

    /// Keeps a secret.
    pub(crate) async fn write(&self, name: &str, secret: SecretString) {
        self.within(name, move |entry| entry.set_password(expose(&secret))).await;
    }

    /// Forgets it.
    pub(crate) async fn remove(&self, name: &str) {
        let remove = |entry: keyring::Entry| match entry.delete_credential() {
            Err(keyring::Error::NoEntry) => Ok(()),
            outcome => outcome,
        };
        self.within(name, remove).await;
    }

    async fn within<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce(keyring::Entry) -> keyring::Result<T> + Send + 'static,
    ) -> Option<T> {
        if !self.enabled || self.given_up.load(Ordering::Relaxed) {
            return None;
        }
        let name = name.to_owned();
        let work = tokio::task::spawn_blocking(move || keyring::Entry::new(SERVICE, &name).and_then(work));
        let why = match tokio::time::timeout(LIMIT, work).await {
            Ok(Ok(Ok(outcome))) => return Some(outcome),
            // Its own words may hold what it was given.
            Ok(Ok(Err(error))) => reason(&error),
            Ok(Err(_)) => "it broke off",
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
