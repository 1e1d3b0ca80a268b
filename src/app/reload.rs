//! A new configuration under a running daemon: swapped in one step, or refused while the old one stays.
//!
//! Callers are judged by the new rules from the next request on. A token survives if nothing that reached its making
//! changed; flights begun before answer whoever waits for them and do not enter the new cache. What listens stays as it
//! is, and so does the audit file: a change of either is reported as wanting a restart.

use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use super::core::Ground;
use super::{Error, warm};
use crate::audit::{self, Audit};
use crate::config::{Config, Listen};
use crate::frontend::desk::CurrentBroker;

/// The way to a new configuration.
pub(crate) struct Reload {
    ground: Ground,
    broker: Arc<CurrentBroker>,
    listen: Listen,
    audit: Option<audit::Config>,
    stop: CancellationToken,
    /// Ends the tasks of the broker in use.
    generation: Mutex<CancellationToken>,
}

impl Reload {
    pub(super) fn new(
        ground: Ground,
        broker: Arc<CurrentBroker>,
        config: &Config,
        stop: CancellationToken,
        generation: CancellationToken,
    ) -> Self {
        let (listen, audit) = (config.listen.clone(), config.audit.clone());
        Self { ground, broker, listen, audit, stop, generation: Mutex::new(generation) }
    }

    /// What has to be reopened after a rotation.
    pub(crate) fn audit(&self) -> Option<&Audit> {
        self.ground.audit.as_deref()
    }

    /// Puts a new broker in the place of the old one. Fails, and changes nothing, if it cannot be made.
    pub(crate) fn swap(&self, config: Config) -> Result<(), Error> {
        self.report_what_stays(&config);
        // The listeners that there are keep their rules.
        let config = Config { listen: self.listen.clone(), audit: None, ..config };
        let next = self.stop.child_token();
        let before = self.broker.newest();
        let (broker, outbound) = self.ground.succeed(config, &before, &next)?;
        broker.keep_required();
        self.broker.replace(broker);
        let after = self.broker.newest();
        self.ground.tasks.spawn(async move { before.revoke_not_taken_over(&after).await });
        warm(outbound);
        let mut generation = self.generation.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *generation, next).cancel();
        Ok(())
    }

    fn report_what_stays(&self, config: &Config) {
        if config.listen != self.listen {
            tracing::warn!("[listen] has changed: that needs a restart, and until then nothing of it holds");
        }
        if config.audit != self.audit {
            tracing::warn!("[audit] has changed: that needs a restart, and until then the old file is written");
        }
    }
}
