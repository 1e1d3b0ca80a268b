//! The claims about this workload that the first party on the path to a server gets, for whoever writes its trust
//! policy.

use std::time::Duration;

use super::error::Unusable;
use super::flight::expected_audience;
use super::{Broker, Error, Refusal, Target};
use crate::identity;
use crate::oauth::{Audience, AuthorizationServer};
use crate::outbound::Origins;
use crate::platform::{self, Platform};

/// Everything that the platform states about this workload. Contains no secret, and not the token itself.
pub struct Attested {
    /// The platform that issues the token.
    pub(crate) platform: &'static Platform,
    /// The claims of the token that the first party would get.
    pub claims: serde_json::Map<String, serde_json::Value>,
    /// Does each exchange present a new token?
    pub(crate) mints_anew: bool,
}

impl Broker {
    /// Fetches the token that the first party would get and returns its claims. The token is sent to nobody. `audience`
    /// overrides configuration and discovery. Fails if the server or its issuer is not known, or if the platform gives
    /// no valid JWT for this audience.
    pub async fn attest(&self, target: &Target, audience: Option<&str>) -> Result<Attested, Error> {
        let server = self.find(target).ok_or_else(|| match target {
            Target::Name(name) => Error::from(Refusal::unknown_server(name, std::iter::empty())),
            Target::Url(url) => Refusal::not_served(url, std::iter::empty()).into(),
        })?;
        let maker = &*self.maker;
        let chain = maker.chain(&server.order)?;
        let audience = match (audience, chain.first(), server.order.issuer()) {
            (Some(audience), ..) => Audience::from(audience),
            (None, Some(link), _) => link.audience(),
            (None, None, Some(pinned)) => {
                let addressee = maker.addressee(&server.order, pinned, &server.origins()).await?;
                expected_audience(&server.order, &addressee)
            }
            (None, None, None) => {
                let protection = maker.discovery.protection(&server.url, &server.origins()).await?;
                let (issuer, _) = maker.pick(&server, &protection)?;
                expected_audience(&server.order, &AuthorizationServer::silent(issuer, ""))
            }
        };
        let source = &maker.identity(&server.order)?.source;
        let subject = source.subject_token(&audience).await?;
        let fit = subject.must_be_jwt();
        let fit = fit.and_then(|()| subject.fit_for(&audience, self.clock.unix(), Duration::ZERO));
        fit.map_err(|unfit| Unusable::Subject { source_name: source.name(), unfit })?;
        let claims = subject.all_claims();
        let platform = identity::platform(source.row(), platform::text(&claims, "iss"));
        Ok(Attested { platform, claims, mints_anew: source.mints_anew() })
    }

    /// Where the keys of the platform's issuer are, by its own discovery document (OpenID Connect Discovery 1.0 section 3). `None`
    /// if it has none that can be read from here.
    pub async fn keys_of(&self, issuer: &str) -> Option<String> {
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let document = self.maker.discovery.see_with(&url, &Origins::of([url.as_str()]), None).await.json()?;
        let keys = document.get("jwks_uri")?.as_str()?;
        (document.get("issuer")?.as_str() == Some(issuer)).then(|| keys.to_owned())
    }
}
