//! `aws`: the role of a workload on AWS, as a JWT that AWS signs for any audience (`sts:GetWebIdentityToken`).
//!
//! Only the platform's own variables select the role, in this order:
//!
//! 1. a pod whose service account has a role (IRSA): `AWS_WEB_IDENTITY_TOKEN_FILE` and `AWS_ROLE_ARN`
//! 2. EKS Pod Identity, ECS, Fargate: `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI` or `…_FULL_URI` (`aws/container.rs`)
//! 3. a Lambda function: `AWS_LAMBDA_FUNCTION_NAME` and its keys
//! 4. the machine (EC2, `aws/imds.rs`), only with `source = "aws"` in the configuration: everything on it shares the role
//!
//! The first one found is used, as in every AWS SDK. If it fails, the others are not tried. Access keys in other variables or
//! files usually belong to a person and are never used, nor what tools for developers lend (`aws/provider.rs`).
//!
//! ```toml
//! [identity]                       # optional, except on EC2   
//! source = "aws"
//! region = "eu-central-1"          # omit: AWS_REGION, AWS_DEFAULT_REGION; on EC2 the machine's
//! ```
//!
//! A JWT needs three settings: outbound identity federation is enabled in the account
//! (`aws iam enable-outbound-web-identity-federation`), the role may call `sts:GetWebIdentityToken`, and the authorization
//! server trusts the account's issuer, which that command prints. The JWT's `sub` is the role's ARN. `AWS_ENDPOINT_URL_STS`
//! names the STS of a VPC endpoint; `AWS_USE_FIPS_ENDPOINT` and `AWS_USE_DUALSTACK_ENDPOINT` select the region's other ones.
//!
//! If the account has not enabled federation, Google's pools and some other verifiers accept a signed `GetCallerIdentity`
//! request instead of a JWT (`token = "caller-identity"`, with `exchange = "gcp"` or `"token-exchange"`; see
//! `src/aws/caller_identity.rs`).
//!
//! Source: AWS STS API reference, "GetWebIdentityToken"; AWS SDKs and Tools reference guide, "Standardized credential
//! providers"; Lambda developer guide, "Defined runtime environment variables". The value `CloudShell` of
//! `AWS_EXECUTION_ENV` is observed, not documented.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{Ambient, Built, Defect, Descriptor, Error, Finding, Given, IdentitySource, Kind, Setting, Tier};
use crate::aws::{self, Algorithm, Credentials, Sts};
use crate::oauth::Audience;
use crate::outbound::{self, Again, Patience};
use crate::platform::{Pin, Platform};
use crate::token::SubjectToken;
use container::Container;
use imds::Imds;
use provider::{
    DUAL_STACK, KEY, KEY_ID, Provider, ROLE, RoleHolder, SESSION, SESSION_TOKEN, TOKEN_FILE, function_keys, is_for_sts,
    named, service_account, switches,
};

mod container;
mod imds;
mod keys;
mod provider;

/// With it a process can ask for the credentials of the task or pod.
pub(super) const REQUEST_TOKENS: [&str; 1] = [container::TOKEN];

pub(super) const SOURCE: Descriptor = Descriptor {
    name: "aws",
    tier: Tier::Pod,
    about: "a role on AWS: EKS (IRSA, Pod Identity), ECS, Lambda; EC2 when named",
    evidence: "`AWS_WEB_IDENTITY_TOKEN_FILE` with `AWS_ROLE_ARN`, else `AWS_CONTAINER_CREDENTIALS_…_URI` (on loopback only where a platform has it there), else `AWS_LAMBDA_FUNCTION_NAME`, of no developer (`AWS_SAM_LOCAL`, `AWS_VAULT` …); a region",
    token: "any audience, signed by the account (`sts:GetWebIdentityToken`)",
    settings: &[OF_REGION, SIGNING_ALGORITHM, TOKEN, AUDIENCE_FIELD, CREDENTIALS],
    variables: &[
        TOKEN_FILE,
        ROLE,
        SESSION,
        container::RELATIVE,
        container::FULL,
        container::TOKEN_FILE,
        container::TOKEN,
        KEY_ID,
        KEY,
        SESSION_TOKEN,
        imds::ENDPOINT,
        ENDPOINT,
    ],
    trust: &TRUST,
    detect,
    from_config,
    probe: Some(imds::PROBE),
};

/// The claims that a trust policy pins.
const TRUST: Platform = Platform {
    name: "aws",
    issues: |issuer| issuer.ends_with(".tokens.sts.global.api.aws"),
    pins: &[
        Pin::required(&["https://sts.amazonaws.com/", "aws_account"], "the account, by its number"),
        Pin::optional(&["https://sts.amazonaws.com/", "org_id"], "the organisation of accounts"),
    ],
    stable_subject: |sub| sub.starts_with("arn:").then_some(sub),
    warnings: &[|_| Some("whoever can assume this role is let in".to_owned())],
    ..Platform::PLAIN
};

const OF_REGION: Setting = Setting::optional(
    "region",
    Kind::Text,
    "Whose STS is asked. Omit: AWS_REGION, AWS_DEFAULT_REGION; on EC2 the machine's own.",
)
.checked(|text| if aws::is_region(text) { Ok(()) } else { Err(NO_REGION_NAME.to_owned()) });
const SIGNING_ALGORITHM: Setting =
    Setting::optional("signing_algorithm", Kind::Text, "\"RS256\" or \"ES384\". Omit: RS256.")
        .checked(|text| Algorithm::parse(text).map(drop).ok_or_else(|| "must be \"RS256\" or \"ES384\"".to_owned()));
const TOKEN: Setting = Setting::optional(
    "token",
    Kind::Text,
    "\"jwt\", or \"caller-identity\": a signed request of GetCallerIdentity, for \"gcp\" and \"token-exchange\". Omit: jwt.",
)
.checked(|text| match text {
    JWT | CALLER_IDENTITY => Ok(()),
    _ => Err("must be \"jwt\" or \"caller-identity\"".to_owned()),
});
const AUDIENCE_FIELD: Setting = Setting::optional(
    "audience_field",
    Kind::Text,
    "The signed field of the header that says for whom that request is. Omit: x-goog-cloud-target-resource.",
)
.checked(|text| if is_own_field(text) { Ok(()) } else { Err(NO_OWN_FIELD.to_owned()) });
const CREDENTIALS: Setting = Setting::optional(
    "credentials",
    Kind::Text,
    "Whose role: \"web-identity\", \"container\", \"lambda\" or \"ec2\". Omit: as the variables say.",
)
.checked(|text| match RoleHolder::parse(text) {
    Some(_) => Ok(()),
    None => Err("must be \"web-identity\", \"container\", \"lambda\" or \"ec2\"".to_owned()),
});

const NO_REGION_NAME: &str = "must be a region such as \"eu-central-1\"; the global ones have no such call";

const NO_OWN_FIELD: &str =
    "must be a field of the verifier's own that starts with `x-`, such as \"x-vault-aws-iam-server-id\", in lower case";

const JWT: &str = "jwt";
const CALLER_IDENTITY: &str = "caller-identity";

/// Is it a header that only the verifier reads? It must have no meaning in HTTP or for AWS.
fn is_own_field(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    text.starts_with("x-") && !text.starts_with("x-amz-") && text.len() <= 64 && text.bytes().all(fits)
}

const REGION: &str = "AWS_REGION";
const DEFAULT_REGION: &str = "AWS_DEFAULT_REGION";
const ENDPOINT: &str = "AWS_ENDPOINT_URL_STS";

/// Retries for an unavailable STS, or one that throttles the account.
const PATIENCE: Patience = Patience { tries: 4, delay: Duration::from_millis(500), total: Duration::from_secs(20) };

struct Aws {
    provider: Provider,
    region: Option<String>,
    endpoint: Option<String>,
    token: Token,
    ambient: Ambient,
}

/// The subject token to make.
enum Token {
    Jwt(Algorithm),
    /// A signed `GetCallerIdentity` request whose header `field` names the audience.
    CallerIdentity {
        field: String,
    },
}

impl Default for Token {
    fn default() -> Self {
        Self::Jwt(Algorithm::default())
    }
}

fn detect(ambient: &Ambient) -> Finding {
    let found = RoleHolder::ALL.iter().find_map(|(_, holder)| Some((*holder, holder.evidence(&ambient.env)?)));
    let Some((holder, evidence)) = found else {
        return Finding::Absent {
            looked_for: "the variables of IRSA, EKS Pod Identity, ECS or Lambda; EC2 is `source = \"aws\"`",
        };
    };
    Finding::of(&evidence, &[], Aws::of(holder, None, Token::default(), ambient))
}

fn from_config(given: &Given<'_>, ambient: &Ambient) -> Built {
    let holder = match given.text(&CREDENTIALS).and_then(RoleHolder::parse) {
        Some(holder) => holder,
        None => named(&ambient.env)?,
    };
    Aws::of(holder, given.text(&OF_REGION).map(str::to_owned), token_of(given)?, ambient)
}

/// Do these keys ask for a signed request in the place of a JWT?
pub(super) fn signs_requests(settings: &toml::Table) -> bool {
    settings.get(TOKEN.name).and_then(toml::Value::as_str) == Some(CALLER_IDENTITY)
}

fn token_of(given: &Given<'_>) -> Result<Token, Defect> {
    match (given.text(&TOKEN), given.text(&AUDIENCE_FIELD), given.text(&SIGNING_ALGORITHM)) {
        (Some(CALLER_IDENTITY), _, Some(_)) => Err(Defect::new(
            "`signing_algorithm` is of a JWT, and `token = \"caller-identity\"` is none",
            "one of the two",
        )),
        (Some(CALLER_IDENTITY), field, None) => {
            Ok(Token::CallerIdentity { field: field.unwrap_or(aws::GOOGLE_FIELD).to_owned() })
        }
        (_, Some(_), _) => Err(Defect::new(
            "`audience_field` has no effect: a JWT has `aud`",
            "it goes with `token = \"caller-identity\"`",
        )),
        (_, None, algorithm) => Ok(Token::Jwt(algorithm.and_then(Algorithm::parse).unwrap_or_default())),
    }
}

/// The source for the role of the machine, as the probe finds it.
fn of_machine(imds: Imds, ambient: &Ambient) -> Arc<dyn IdentitySource> {
    let provider = Provider::Machine(imds);
    Arc::new(Aws { provider, region: None, endpoint: None, token: Token::default(), ambient: ambient.clone() })
}

impl Aws {
    fn of(holder: RoleHolder, region: Option<String>, token: Token, ambient: &Ambient) -> Built {
        let env = &ambient.env;
        let provider = match holder {
            RoleHolder::ServiceAccount => service_account(ambient)?,
            RoleHolder::Container => Provider::Container(Container::new(ambient)?),
            RoleHolder::Function => {
                function_keys(env)?;
                Provider::Function(ambient.clone())
            }
            RoleHolder::Machine => Provider::Machine(Imds::new(ambient)?),
        };
        let set = [REGION, DEFAULT_REGION].into_iter().find_map(|name| Some((name, env.get(name)?)));
        let region = match (region, set) {
            (Some(region), _) => Some(region),
            (None, Some((_, region))) if aws::is_region(region) => Some(region.to_owned()),
            (None, Some((name, _))) => {
                return Err(Defect::new(
                    format!("{name} is no region"),
                    "set it, or `region` in [identity], to one such as eu-central-1",
                ));
            }
            (None, None) if holder == RoleHolder::Machine => None,
            (None, None) => {
                return Err(Defect::new(
                    format!("no region: neither {REGION} nor {DEFAULT_REGION} is set"),
                    format!(
                        "set {REGION}, or `region` in [identity]: the call is not to be had at the global endpoint"
                    ),
                ));
            }
        };
        let endpoint = env.get(ENDPOINT).map(|text| text.trim_end_matches('/').to_owned());
        if endpoint.as_deref().is_some_and(|text| !aws::may_be_endpoint(text)) {
            return Err(Defect::new(
                format!("{ENDPOINT} is neither an https host of AWS nor on loopback"),
                "it would get this workload's identity: name a VPC endpoint of AWS, or take it out",
            ));
        }
        switches(env)?;
        Ok(Arc::new(Self { provider, region, endpoint, token, ambient: ambient.clone() }))
    }

    async fn region(&self) -> Result<String, Error> {
        match (&self.region, &self.provider) {
            (Some(region), _) => Ok(region.clone()),
            (None, Provider::Machine(imds)) => imds.region().await,
            (None, _) => Err(malformed("no region", "set `region` in [identity]")),
        }
    }

    fn sts(&self, region: &str) -> Result<Sts, Error> {
        let variant = switches(&self.ambient.env).map_err(|defect| defect.of(SOURCE.name))?;
        let endpoint = self.endpoint.clone().or_else(|| aws::endpoint_of(region, variant));
        let endpoint = endpoint.ok_or_else(|| Error::Misconfigured {
            what: format!("aws: STS has no dual-stack endpoint in the partition of {region}"),
            hint: format!("unset {DUAL_STACK}, or name the endpoint in {ENDPOINT}"),
        })?;
        Ok(Sts::new(&self.ambient.outbound, &self.ambient.clock, region, &endpoint))
    }

    async fn credentials(&self) -> Result<Credentials, Error> {
        match &self.provider {
            Provider::ServiceAccount { file, role_arn, session } => {
                let token = file.subject_token(&Audience::from(aws::AUDIENCE)).await?;
                is_for_sts(&token)?;
                let sts = self.sts(&self.region().await?)?;
                let assume = || sts.assume(role_arn, session.as_deref(), &token);
                Ok(self.patiently(assume).await.map_err(said)?.credentials)
            }
            Provider::Container(container) => container.credentials().await,
            Provider::Function(ambient) => {
                function_keys(&ambient.env).map_err(|defect| malformed(&defect.what, &defect.cure))
            }
            Provider::Machine(imds) => imds.credentials().await,
        }
    }

    /// Repeats a call while its failure is temporary, within [`PATIENCE`].
    async fn patiently<T, F>(&self, call: impl Fn() -> F) -> Result<T, aws::Error>
    where
        F: Future<Output = Result<T, aws::Error>>,
    {
        let work = |left: Duration| {
            let call = call();
            async move {
                let silent = outbound::Error::Timeout { host: "STS".to_owned(), limit: left };
                tokio::time::timeout(left, call).await.unwrap_or(Err(aws::Error::Outbound(silent)))
            }
        };
        let again = |outcome: &Result<T, aws::Error>| match outcome {
            Err(error) if error.is_temporary() => Again::Later,
            _ => Again::No,
        };
        self.ambient.outbound.patiently(PATIENCE, work, again).await
    }
}

#[async_trait]
impl IdentitySource for Aws {
    async fn subject_token(&self, audience: &Audience) -> Result<SubjectToken, Error> {
        switches(&self.ambient.env).map_err(|defect| defect.of(SOURCE.name))?;
        let region = self.region().await?;
        let credentials = self.credentials().await?;
        match &self.token {
            Token::Jwt(algorithm) => {
                let sts = self.sts(&region)?;
                let call = || sts.web_identity_token(&credentials, audience.as_str(), *algorithm);
                self.patiently(call).await.map_err(said)?.ok_or_else(|| Error::Unreachable {
                    source_name: SOURCE.name,
                    what: "the role's credentials end within a minute, and the platform has not renewed them yet"
                        .to_owned(),
                    hint: Some(
                        "compare this machine's clock; the platform renews them some minutes before they end"
                            .to_owned(),
                    ),
                })
            }
            Token::CallerIdentity { field } => {
                let who = match &self.provider {
                    Provider::ServiceAccount { role_arn, .. } => Some(role_arn.clone()),
                    Provider::Container(_) | Provider::Function(_) | Provider::Machine(_) => None,
                };
                let now = self.ambient.clock.wall();
                let request = aws::caller_identity(credentials, &region, field, audience.as_str(), now);
                request.map(|request| request.about(who)).ok_or_else(|| {
                    malformed(
                        "no request of GetCallerIdentity could be signed",
                        "the audience must be text that a header can have",
                    )
                })
            }
        }
    }

    fn row(&self) -> Option<&'static Descriptor> {
        Some(&SOURCE)
    }

    fn mints_anew(&self) -> bool {
        true
    }

    async fn aws_credentials(&self) -> Result<Option<Credentials>, Error> {
        self.credentials().await.map(Some)
    }
}

/// The workload's role as signed `GetCallerIdentity` requests, for an `external_account` file of Google's. The machine's role
/// is used only if the configuration names that file.
pub(super) fn caller_identity(ambient: &Ambient, is_named: bool) -> Built {
    const OWN: &str = "give it a role of its own (EKS: annotate the service account, or make a Pod Identity association; ECS: a \
        task role), and see that AWS_REGION is set";
    let of_its_own = |defect: Defect| Defect::new(defect.what, OWN);
    let holder = named(&ambient.env).map_err(of_its_own)?;
    if holder == RoleHolder::Machine && !is_named {
        return Err(Defect::new(
            "it asks for a role of AWS, and no variable of one is here but, perhaps, the machine's own",
            "if that role, which all that runs on the machine shares, is meant, name the file: `source = \"gcp\"` and \
                `credentials_file` in [identity]",
        ));
    }
    let token = Token::CallerIdentity { field: aws::GOOGLE_FIELD.to_owned() };
    Aws::of(holder, None, token, ambient).map_err(of_its_own)
}

fn said(error: aws::Error) -> Error {
    let what = error.to_string();
    match error {
        error if error.is_temporary() => Error::Unreachable { source_name: SOURCE.name, what, hint: None },
        aws::Error::Refused { cure, .. } => Error::Rejected { source_name: SOURCE.name, what, hint: cure.to_owned() },
        aws::Error::Outbound(error) => malformed(&what, &error.hint().unwrap_or_else(|| aws::NOT_STS.to_owned())),
        aws::Error::Busy { .. } | aws::Error::Malformed(_) => malformed(&what, aws::NOT_STS),
    }
}

fn malformed(what: &str, hint: &str) -> Error {
    Error::Malformed { source_name: SOURCE.name, what: what.to_owned(), hint: hint.to_owned() }
}
