//! Which scopes were last requested for a caller at a server that wanted more of them, and which the issuer refused.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::oauth::Scopes;

/// How long a larger set is remembered without being used.
const UNUSED: Duration = Duration::from_secs(15 * 60);
/// How long a set that the issuer refused is not asked for.
const REFUSED: Duration = Duration::from_secs(10 * 60);
/// The most that is remembered of either. Beyond it the oldest is forgotten.
const CAP: usize = 256;
/// The most of one user.
const OF_USER: usize = 64;

/// What is remembered until a reload.
#[derive(Debug, Default)]
pub(super) struct Steps(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    asked: Vec<Entry>,
    refused: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    uid: u32,
    server: Arc<str>,
    scopes: Scopes,
    at: Instant,
}

impl Entry {
    fn is_of(&self, uid: u32, server: &str) -> bool {
        self.uid == uid && *self.server == *server
    }
}

fn add(entries: &mut Vec<Entry>, entry: Entry) {
    let of_user = entries.iter().filter(|one| one.uid == entry.uid).count();
    let oldest = if of_user >= OF_USER { entries.iter().position(|one| one.uid == entry.uid) } else { None };
    let of_all = if entries.len() >= CAP { Some(0) } else { None };
    if let Some(oldest) = oldest.or(of_all) {
        entries.remove(oldest);
    }
    entries.push(entry);
}

impl Steps {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to be requested for this caller; `None` is the usual.
    pub(super) fn asked(&self, uid: u32, server: &str) -> Option<Scopes> {
        let mut state = self.lock();
        if state.asked.is_empty() {
            return None;
        }
        state.asked.retain(|one| one.at.elapsed() < UNUSED);
        let entry = state.asked.iter_mut().find(|one| one.is_of(uid, server))?;
        entry.at = Instant::now();
        Some(entry.scopes.clone())
    }

    /// The issuer gave these scopes.
    pub(super) fn granted(&self, uid: u32, server: &Arc<str>, scopes: &Scopes) {
        let mut state = self.lock();
        state.asked.retain(|one| !one.is_of(uid, server));
        let (server, scopes) = (Arc::clone(server), scopes.clone());
        add(&mut state.asked, Entry { uid, server, scopes, at: Instant::now() });
    }

    /// The issuer refused them.
    pub(super) fn note_refused(&self, uid: u32, server: &Arc<str>, scopes: Scopes) {
        add(&mut self.lock().refused, Entry { uid, server: Arc::clone(server), scopes, at: Instant::now() });
    }

    /// The sets that the issuer refused lately.
    pub(super) fn refused(&self, uid: u32, server: &str) -> Vec<Scopes> {
        let mut state = self.lock();
        state.refused.retain(|one| one.at.elapsed() < REFUSED);
        state.refused.iter().filter(|one| one.is_of(uid, server)).map(|one| one.scopes.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scopes(text: &str) -> Scopes {
        Scopes::parse(text).expect("scopes")
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_counts_for_its_caller_and_server_until_it_was_unused_for_a_quarter_of_an_hour() {
        let (steps, server) = (Steps::default(), "demo".into());
        steps.granted(1, &server, &scopes("a b"));
        assert_eq!((steps.asked(2, "demo"), steps.asked(1, "other")), (None, None));
        for _ in 0..3 {
            tokio::time::advance(UNUSED - Duration::from_secs(1)).await;
            assert_eq!(steps.asked(1, "demo"), Some(scopes("a b")));
        }
        tokio::time::advance(UNUSED).await;
        assert_eq!(steps.asked(1, "demo"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_set_is_remembered_for_ten_minutes() {
        let (steps, server) = (Steps::default(), "demo".into());
        steps.note_refused(1, &server, scopes("a b"));
        assert_eq!((steps.refused(1, "demo").len(), steps.refused(2, "demo").len()), (1, 0));
        tokio::time::advance(REFUSED).await;
        assert!(steps.refused(1, "demo").is_empty());
    }

    #[test]
    fn no_user_makes_another_forgotten() {
        let steps = Steps::default();
        steps.granted(1, &"demo".into(), &scopes("a"));
        for number in 0..1_000 {
            steps.granted(2, &format!("{number}").into(), &scopes("a"));
        }
        assert!(steps.asked(1, "demo").is_some());
        assert_eq!(steps.lock().asked.len(), OF_USER + 1);
    }
}
