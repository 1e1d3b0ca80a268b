//! The probe: which cloud this machine is, where no variable and no file speaks for anything narrower.
//!
//! Only with `probe = true`, because everything on a machine shares its identity. The machine's own description (DMI) is
//! read first and costs nothing; where it names a cloud, nobody is asked. Where it says nothing, all clouds are asked at
//! once at the address that they share, and within a second in all. A cloud that is found is kept; that none was found is
//! believed for a minute, since a slow answer is no proof.
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

/// How a host source is found where neither variables nor files speak for any other.
pub(crate) struct Probe {
    /// Does the machine's own description (DMI) name this cloud?
    pub dmi: fn(&Dmi) -> bool,
    /// A request to the metadata address that only this cloud answers so.
    pub ask: fn(&Ambient) -> Ask,
    /// Is the answer this cloud's own?
    pub is_it: fn(&Answer) -> bool,
    /// The source, with nothing configured.
    pub source: fn(&Ambient) -> Arc<dyn IdentitySource>,
}

/// What the firmware says of the machine. Empty where it cannot be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dmi {
    /// `/sys/class/dmi/id/sys_vendor`.
    pub vendor: String,
    /// `/sys/class/dmi/id/product_name`.
    pub product: String,
    /// `/sys/class/dmi/id/chassis_asset_tag`.
    pub chassis: String,
}

/// All questions together. Clouds answer in milliseconds; where packets vanish nothing ever comes.
const BUDGET: Duration = Duration::from_secs(1);
/// How long we believe that there is no cloud.
const BELIEVED: Duration = Duration::from_secs(60);
/// A line of the firmware's is a word or two.
const CAP: u64 = 4 * 1024;

/// The cloud that this machine belongs to, and how we know.
struct Found {
    row: &'static Descriptor,
    source: Arc<dyn IdentitySource>,
    evidence: &'static str,
}

/// The identity of the machine, for whoever wants to know now.
pub(crate) async fn look_at_the_host(ambient: &Ambient) -> Result<Chosen, Error> {
    let Found { row, source, evidence } = probe(ambient).await.ok_or_else(Error::no_cloud)?;
    Ok(Chosen { source, evidence: format!("`probe = true`, nothing narrower, and {evidence} says {}", row.name) })
}

/// Looks at the firmware's words, else asks everybody at once.
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

/// The identity of the machine, found when it is first wanted.
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
