//! How many probes (`server/discover`, `initialize`) of a user are held while a temporary failure may pass. Each keeps a
//! connection and its body, so there is a limit, after which the error comes at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The most of one user.
const OF_USER: usize = 16;

/// The held probes of each user.
#[derive(Debug, Default)]
pub(super) struct HeldProbes(Mutex<BTreeMap<u32, usize>>);

/// A probe that is held until this is dropped.
#[derive(Debug)]
pub(super) struct HeldProbe {
    all: Arc<HeldProbes>,
    uid: u32,
}

impl HeldProbes {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds one more, if this user may have one.
    pub(super) fn hold(self: &Arc<Self>, uid: u32) -> Option<HeldProbe> {
        let mut held = self.lock();
        let of_user = held.entry(uid).or_default();
        if *of_user >= OF_USER {
            return None;
        }
        *of_user += 1;
        Some(HeldProbe { all: Arc::clone(self), uid })
    }
}

impl Drop for HeldProbe {
    fn drop(&mut self) {
        let mut held = self.all.lock();
        if let Some(of_user) = held.get_mut(&self.uid) {
            *of_user -= 1;
            if *of_user == 0 {
                held.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_sixteen_and_takes_none_of_another() {
        let all = Arc::new(HeldProbes::default());
        let mut held: Vec<HeldProbe> = (0..OF_USER).filter_map(|_| all.hold(1)).collect();
        assert_eq!(held.len(), OF_USER);
        assert!(all.hold(1).is_none() && all.hold(2).is_some());
        held.pop();
        assert!(all.hold(1).is_some());
        drop(held);
        assert!(all.lock().is_empty(), "nothing is kept of users that hold none");
    }
}
