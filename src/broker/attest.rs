//! The workload as the first party on the way to a server sees it: for whoever has to write that party's trust policy.

use std::time::Duration;

use super::error::Unusable;
use super::flight::expected_audience;
use super::{Broker, Error, Target};
use crate::identity;
use crate::oauth::Audience;
use crate::trust::{self, Platform};

/// What the platform says of us, whole. Nothing in it is a secret; the token itself is not in it.
pub struct Attested {
    /// Whose tokens these are.
    pub(crate) platform: &'static Platform,
    /// The claims of the token that the first party would get.
    pub claims: serde_json::Map<String, serde_json::Value>,
}

impl Broker {
    /// Asks the platform for the token that the first party would get, and shows it to nobody. `audience` overrules what
    /// configuration and discovery say.
    pub async fn attest(&self, target: &Target, audience: Option<&str>) -> Result<Attested, Error> {
        let server = self.configured(target)?;
        let maker = &*self.maker;
        let chain = maker.chain(&server.order)?;
        let audience = match (audience, chain.first(), server.order.issuer()) {
            (Some(audience), ..) => Audience::from(audience),
            (None, Some(link), _) => link.audience(),
            (None, None, Some(pinned)) => expected_audience(&server.order, pinned),
            (None, None, None) => {
                let protection = maker.discovery.protection(&server.url, server.named_by).await?;
                let (issuer, _) = maker.pick(&server, &protection)?;
                expected_audience(&server.order, &issuer)
            }
        };
        let source = &maker.identity(&server.order)?.source;
        let subject = source.subject_token(&audience).await?;
        let fit = subject.must_be_jwt();
        let fit = fit.and_then(|()| subject.fit_for(&audience, self.clock.unix(), Duration::ZERO));
        fit.map_err(|unfit| Unusable::Subject { source_name: source.name(), unfit })?;
        let claims = subject.all_claims();
        let platform = identity::platform(source.row(), trust::text(&claims, "iss"));
        Ok(Attested { platform, claims })
    }
}
