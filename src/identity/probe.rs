//! The host probe: finds out in which cloud this machine is, if no variable and no file shows a narrower identity.
//!
//! It runs only with `probe = true`, because everything on a machine shares its identity. It reads the machine's DMI data
//! first; if that names a cloud, no request is sent. Otherwise it asks all clouds at once at their shared metadata address,
//! with a limit of one second in total. A found cloud is cached. The result "no cloud" is cached for a minute only, since a
//! cloud may have been slow to answer.
//!
//! Source: Linux, `/sys/class/dmi/id`; the metadata pages of the three clouds.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Mutex;

use super::{Ambient, Chosen, Descriptor, Error, IdentitySource, SOURCES};
use crate::clock::Boot;
use crate::oauth::Audience;
use crate::outbound::{Answer, Ask, Certificate};
use crate::token::SubjectToken;

/// How the probe recognises a cloud.
pub(crate) struct Probe {
    /// Does the machine's DMI data name this cloud?
    pub dmi: fn(&Dmi) -> bool,
    /// A request to the metadata address that identifies this cloud.
    pub ask: fn(&Ambient) -> Ask,
    /// Is the answer from this cloud?
    pub is_it: fn(&Answer) -> bool,
    /// The source with its default configuration.
    pub source: fn(&Ambient) -> Arc<dyn IdentitySource>,
}

/// The machine's DMI data. A field is empty if it cannot be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dmi {
    /// `/sys/class/dmi/id/sys_vendor`.
    pub vendor: String,
    /// `/sys/class/dmi/id/product_name`.
    pub product: String,
    /// `/sys/class/dmi/id/chassis_asset_tag`.
    pub chassis: String,
}

/// The time limit for all requests together. Clouds answer within milliseconds; a firewall may drop the packets silently.
const BUDGET: Duration = Duration::from_secs(1);
/// How long the result "no cloud" is cached.
const BELIEVED: Duration = Duration::from_secs(60);
/// The limit of a DMI file, which has a word or two.
const CAP: u64 = 4 * 1024;

/// The cloud of this machine, and the evidence.
struct Found {
    row: &'static Descriptor,
    source: Arc<dyn IdentitySource>,
    evidence: &'static str,
}

/// Probes now for the identity of the machine.
pub(crate) async fn look_at_the_host(ambient: &Ambient) -> Result<Chosen, Error> {
    let Found { row, source, evidence } = probe(ambient).await.ok_or_else(Error::no_cloud)?;
    Ok(Chosen { source, evidence: format!("`probe = true`, nothing narrower, and {evidence} says {}", row.name) })
}

/// Reads the DMI data, else asks all clouds at once.
async fn probe(ambient: &Ambient) -> Option<Found> {
    let rows = || SOURCES.iter().filter_map(|row| row.probe.as_ref().map(|probe| (row, probe)));
    let dmi = Dmi::read(ambient);
    if let Some((row, _)) = rows().find(|(_, probe)| (probe.dmi)(&dmi)) {
        return Found::new(row, ambient, "the machine's DMI");
    }
    let mut asked: futures_util::stream::FuturesUnordered<_> = rows()
        .map(|(row, probe)| async move {
            let ask = Ask { limit: BUDGET, ..(probe.ask)(ambient) };
            let answer = ambient.outbound.send(ask).await;
            answer.is_ok_and(|answer| (probe.is_it)(&answer)).then_some(row)
        })
        .collect();
    let first = async {
        while let Some(answer) = futures_util::StreamExt::next(&mut asked).await {
            if answer.is_some() {
                return answer;
            }
        }
        None
    };
    let row = tokio::time::timeout(BUDGET, first).await.ok().flatten()?;
    Found::new(row, ambient, "the metadata address")
}

impl Found {
    fn new(row: &'static Descriptor, ambient: &Ambient, evidence: &'static str) -> Option<Self> {
        let source = (row.probe.as_ref()?.source)(ambient);
        Some(Self { row, source, evidence })
    }
}

impl Dmi {
    fn read(ambient: &Ambient) -> Self {
        let word = |name: &str| {
            let read = ambient.env.read(Path::new("/sys/class/dmi/id").join(name).as_path(), CAP);
            read.ok().map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned()).unwrap_or_default()
        };
        Self { vendor: word("sys_vendor"), product: word("product_name"), chassis: word("chassis_asset_tag") }
    }
}

/// The identity of the machine, probed at its first use.
pub(super) struct Host {
    ambient: Ambient,
    row: OnceLock<&'static Descriptor>,
    known: Mutex<Known>,
}

enum Known {
    NotYet,
    Found(Arc<dyn IdentitySource>),
    Nothing { at: Boot },
}

impl Host {
    pub(super) fn new(ambient: Ambient) -> Self {
        Self { ambient, row: OnceLock::new(), known: Mutex::new(Known::NotYet) }
    }

    async fn found(&self) -> Result<Arc<dyn IdentitySource>, Error> {
        let mut known = self.known.lock().await;
        match &*known {
            Known::Found(source) => return Ok(Arc::clone(source)),
            Known::Nothing { at } if self.ambient.clock.boot().since(*at) < BELIEVED => return Err(Error::no_cloud()),
            Known::Nothing { .. } | Known::NotYet => {}
        }
        let Some(Found { row, source, .. }) = probe(&self.ambient).await else {
            *known = Known::Nothing { at: self.ambient.clock.boot() };
            return Err(Error::no_cloud());
        };
        self.row.get_or_init(|| row);
        tracing::info!(source = row.name, "the machine's own identity is used");
        *known = Known::Found(Arc::clone(&source));
        Ok(source)
    }
}

#[async_trait]
impl IdentitySource for Host {
    async fn subject_token(&self, audience: &Audience) -> Result<SubjectToken, Error> {
        self.found().await?.subject_token(audience).await
    }

    fn row(&self) -> Option<&'static Descriptor> {
        self.row.get().copied()
    }

    fn mints_anew(&self) -> bool {
        true
    }

    async fn certificate(&self) -> Result<Option<Certificate>, Error> {
        self.found().await?.certificate().await
    }
}
