//! The two calls of STS, at one region's endpoint.

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

/// The default of STS. It is short because a subject token is used once, immediately.
const DEFAULT_LIFE: Duration = Duration::from_secs(300);
/// The shortest lifetime that STS issues. Credentials that expire sooner cannot be used.
const SHORTEST_LIFE: Duration = Duration::from_secs(60);
/// The default session name, which appears in the account's CloudTrail records.
const SESSION: &str = "safeconduct";

/// The signing algorithm of the role's JWT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256, which every verifier of OpenID Connect tokens must support (OpenID Connect Core
    /// section 15.1).
    #[default]
    Rs256,
    /// ECDSA on P-384: shorter, but not supported everywhere.
    Es384,
}

impl Algorithm {
    /// The names in the configuration and in requests.
    pub(crate) const ALL: [(&'static str, Self); 2] = [("RS256", Self::Rs256), ("ES384", Self::Es384)];

    /// The algorithm of that name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, one)| *one)
    }

    fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, one)| *one == self).map_or("RS256", |(name, _)| name)
    }
}

/// An assumed role.
pub(crate) struct Assumed {
    /// Its credentials.
    pub(crate) credentials: Credentials,
    /// The ARN of the session: `arn:aws:sts::ACCOUNT:assumed-role/ROLE/SESSION`.
    pub(crate) arn: Option<String>,
}

/// The STS of one region.
pub(crate) struct Sts {
    config: aws_sdk_sts::config::Builder,
    clock: Clock,
}

impl Sts {
    /// Makes the client without connecting.
    pub(crate) fn new(outbound: &Outbound, clock: &Clock, region: &str, endpoint: &str) -> Self {
        let config = Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new(region.to_owned()))
            .endpoint_url(endpoint)
            .http_client(smithy::over(outbound))
            .time_source(Time(clock.clone()))
            // `outbound` and the caller do time limits, retries, connections and caching.
            .retry_config(RetryConfig::disabled().with_reconnect_mode(ReconnectMode::ReuseAllConnections))
            .timeout_config(TimeoutConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .identity_cache(IdentityCache::no_cache());
        Self { config, clock: clock.clone() }
    }

    /// Assumes a role with a JWT that the role trusts. One unsigned request.
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

    /// Gets a JWT for one audience with the role's credentials. One request. `None` if the credentials expire before the
    /// shortest token that STS issues.
    pub(crate) async fn web_identity_token(
        &self,
        credentials: &Credentials,
        audience: &str,
        algorithm: Algorithm,
    ) -> Result<Option<SubjectToken>, Error> {
        let rest = super::remaining(credentials, self.clock.wall());
        // STS refuses a token that outlives the session (privilege escalation).
        let life = rest.map_or(DEFAULT_LIFE, |rest| rest.min(DEFAULT_LIFE));
        if life < SHORTEST_LIFE {
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

/// Gives the SDK our clock for its signatures.
#[derive(Debug)]
struct Time(Clock);

impl TimeSource for Time {
    fn now(&self) -> SystemTime {
        self.0.wall()
    }
}
