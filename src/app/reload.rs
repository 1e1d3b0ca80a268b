//! A new configuration under a running daemon: swapped in one step, or refused while the old one stays.
//!
//! Callers are judged by the new rules from the next request on. A token survives if nothing that reached its making
//! changed; flights begun before answer whoever waits for them and do not enter the new cache. What listens stays as it
//! is, and so does the audit file: a change of either is reported as wanting a restart.

use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use super::Error;
use super::warm;
use crate::assembly::Ground;
use crate::audit::{self, Audit};
use crate::config::{Config, Listen};
use crate::frontend::desk::CurrentBroker;
use crate::frontend::loads::Loads;
use crate::frontend::oauth::Clients;
use crate::frontend::operator::{Loaded, Unchanged};
use crate::relay::Relay;

/// The way to a new configuration.
pub(crate) struct Reload {
    ground: Ground,
    of: Reloaded,
    listen: Listen,
    audit: Option<audit::Config>,
    stop: CancellationToken,
    /// Ends the tasks of the broker in use.
    generation: Mutex<CancellationToken>,
}

/// What a new configuration changes.
pub(super) struct Reloaded {
    pub(super) broker: Arc<CurrentBroker>,
    /// The clients of the token endpoint, one for each server.
    pub(super) oauth: Option<Arc<Clients>>,
    /// Its calls are judged anew.
    pub(super) relay: Arc<Relay>,
    /// For the status.
    pub(super) loads: Arc<Loads>,
}

impl Reload {
    pub(super) fn new(
        ground: Ground,
        of: Reloaded,
        config: &Config,
        stop: CancellationToken,
        generation: CancellationToken,
    ) -> Self {
        let (listen, audit) = (config.listen.clone(), config.audit.clone());
        Self { ground, of, listen, audit, stop, generation: Mutex::new(generation) }
    }

    /// What has to be reopened after a rotation.
    pub(crate) fn audit(&self) -> Option<&Audit> {
        self.ground.audit.as_deref()
    }

    /// Puts a new broker in the place of the old one. Fails, and changes nothing, if it cannot be made, or if the file is gone that
    /// the old one was made from: another file that is found then, or none, can let other callers in.
    pub(crate) fn swap(&self, config: Config) -> Result<Loaded, Error> {
        if let Some(file) = self.of.loads.file().filter(|file| config.file.as_ref() != Some(file)) {
            return Err(Error::Gone(file));
        }
        let loaded = Loaded { servers: config.servers.len(), needs_restart: self.what_stays(&config) };
        // The listeners that there are keep their rules.
        let config = Config { listen: self.listen.clone(), audit: None, ..config };
        let file = config.file.clone();
        let next = self.stop.child_token();
        let before = self.of.broker.newest();
        let (broker, outbound) = self.ground.succeed(config, &before, &next)?;
        broker.keep_required();
        self.of.broker.replace(broker);
        let after = self.of.broker.newest();
        self.of.relay.judge_anew(&after);
        if let Some(Err(error)) = self.of.oauth.as_ref().map(|clients| clients.write(after.server_names())) {
            tracing::warn!(%error, "the secret of an OAuth client cannot be written");
        }
        self.ground.tasks.spawn(async move { before.revoke_not_taken_over(&after).await });
        warm(outbound);
        let mut generation = self.generation.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *generation, next).cancel();
        self.of.loads.taken_over(file, self.ground.clock.wall());
        Ok(loaded)
    }

    /// Notes that a new configuration is not taken over.
    pub(crate) fn note_failure(&self, why: &Unchanged) {
        self.of.loads.failed(self.ground.clock.wall(), why.clone());
    }

    /// The tables that hold only after a restart.
    fn what_stays(&self, config: &Config) -> Vec<&'static str> {
        let changed = [("listen", config.listen != self.listen), ("audit", config.audit != self.audit)];
        let changed: Vec<_> = changed.into_iter().filter(|(_, is_changed)| *is_changed).map(|(name, _)| name).collect();
        for table in &changed {
            tracing::warn!("[{table}] has changed: that needs a restart, and until then the old one holds");
        }
        changed
    }
}
