//! The two calls, at one region's STS.

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sdk_sts::Client;
use aws_sdk_sts::config::retry::RetryConfig;
use aws_sdk_sts::config::timeout::TimeoutConfig;
use aws_sdk_sts::config::{BehaviorVersion, Config, IdentityCache, Region, StalledStreamProtectionConfig};
use aws_smithy_async::time::TimeSource;
use aws_smithy_types::retry::ReconnectMode;
use secrecy::SecretString;

use super::{Error, smithy};
use crate::clock::Clock;
use crate::outbound::Outbound;
use crate::token::SubjectToken;

/// Short: a subject token is presented once and at once. What STS gives where nothing is said.
const LIFE: Duration = Duration::from_secs(300);
/// The least that STS gives. Credentials that end before are as good as ended.
const LEAST: Duration = Duration::from_secs(60);
/// The name under which a session appears in the account's records, where nothing names it.
const SESSION: &str = "safeconduct";

/// How a JWT of the role is signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256: the one that every verifier of OpenID Connect tokens must know (OpenID Connect
    /// Core section 15.1), so the one that servers take.
    #[default]
    Rs256,
    /// ECDSA on P-384: shorter, and not known everywhere.
    Es384,
}

impl Algorithm {
    /// As written in the configuration and on the wire.
    pub(crate) const ALL: [(&'static str, Self); 2] = [("RS256", Self::Rs256), ("ES384", Self::Es384)];

    /// The one of that name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, one)| *one)
    }

    fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, one)| *one == self).map_or("RS256", |(name, _)| name)
    }
}

/// A role, taken on.
pub(crate) struct Assumed {
    /// Its keys.
    pub(crate) credentials: Credentials,
    /// Who we are then: `arn:aws:sts::ACCOUNT:assumed-role/ROLE/SESSION`.
    pub(crate) arn: Option<String>,
}

/// One region's STS.
pub(crate) struct Sts {
    config: aws_sdk_sts::config::Builder,
    clock: Clock,
}

impl Sts {
    /// Nothing is dialled yet.
    pub(crate) fn new(outbound: &Outbound, clock: &Clock, region: &str, endpoint: &str) -> Self {
        let config = Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new(region.to_owned()))
            .endpoint_url(endpoint)
            .http_client(smithy::over(outbound))
            .time_source(Time(clock.clone()))
            // Time limits, retries, connections and freshness are ours.
            .retry_config(RetryConfig::disabled().with_reconnect_mode(ReconnectMode::ReuseAllConnections))
            .timeout_config(TimeoutConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .identity_cache(IdentityCache::no_cache());
        Self { config, clock: clock.clone() }
    }

    /// Takes on a role with a JWT that the role trusts. One request, unsigned.
    pub(crate) async fn assume(
        &self,
        role_arn: &str,
        session: Option<&str>,
        token: &SubjectToken,
    ) -> Result<Assumed, Error> {
        let client = Client::from_conf(self.config.clone().build());
        let call = client.assume_role_with_web_identity().role_arn(role_arn);
        let call = call.role_session_name(session.unwrap_or(SESSION)).web_identity_token(token.expose());
        let answer = call.send().await.map_err(|error| Error::of(&error))?;
        let keys = answer.credentials.ok_or_else(|| Error::Malformed("its answer has no credentials".to_owned()))?;
        let expiry = SystemTime::try_from(keys.expiration)
            .map_err(|_| Error::Malformed("its credentials end at no time that there is".to_owned()))?;
        if keys.access_key_id.is_empty() || keys.secret_access_key.is_empty() {
            return Err(Error::Malformed("its credentials are empty".to_owned()));
        }
        let token = Some(keys.session_token).filter(|token| !token.is_empty());
        let credentials =
            Credentials::new(keys.access_key_id, keys.secret_access_key, token, Some(expiry), "web identity");
        Ok(Assumed { credentials, arn: answer.assumed_role_user.map(|user| user.arn) })
    }

    /// A JWT of the role whose credentials these are, for one audience. One request. `None` when the credentials end
    /// before the shortest token that STS makes would.
    pub(crate) async fn web_identity_token(
        &self,
        credentials: &Credentials,
        audience: &str,
        algorithm: Algorithm,
    ) -> Result<Option<SubjectToken>, Error> {
        let rest = super::rest(credentials, self.clock.wall());
        // Longer than the session would be an escalation.
        let life = rest.map_or(LIFE, |rest| rest.min(LIFE));
        if life < LEAST {
            return Ok(None);
        }
        let config = self.config.clone().credentials_provider(credentials.clone());
        let call = Client::from_conf(config.build()).get_web_identity_token().audience(audience);
        let call = call.signing_algorithm(algorithm.as_str());
        let call = call.duration_seconds(i32::try_from(life.as_secs()).unwrap_or(i32::MAX));
        let answer = call.send().await.map_err(|error| Error::of(&error))?;
        let text = answer.web_identity_token.unwrap_or_default();
        SubjectToken::parse(SecretString::from(text))
            .map(Some)
            .map_err(|error| Error::Malformed(format!("its web identity token is {error}")))
    }
}

/// Our clock for the SDK's signatures.
#[derive(Debug)]
struct Time(Clock);

impl TimeSource for Time {
    fn now(&self) -> SystemTime {
        self.0.wall()
    }
}
