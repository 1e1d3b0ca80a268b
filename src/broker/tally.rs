//! Counts how often each user was served, for the status and metrics. One tally per server, so that a request needs a
//! single lookup.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use prometheus_client::metrics::counter::Counter;

/// More users than run agents on one machine. Further ones are counted in the metric only.
const CAP: usize = 256;

/// The counts of one server.
pub(super) struct Tally {
    served: Counter,
    /// How often each user was served, by user id.
    callers: Mutex<BTreeMap<u32, u64>>,
}

impl Tally {
    pub(super) fn new(served: Counter) -> Self {
        Self { served, callers: Mutex::default() }
    }

    pub(super) fn served(&self, uid: u32) {
        self.served.inc();
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = callers.get_mut(&uid) {
            *count += 1;
        } else if callers.len() < CAP {
            callers.insert(uid, 1);
        }
    }

    pub(super) fn callers(&self) -> Vec<(u32, u64)> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(uid, count)| (*uid, *count)).collect()
    }
}
