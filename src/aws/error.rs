//! Errors of STS, one variant per remedy. The API reference lists the error codes; some are temporary whatever their status.

use aws_sdk_sts::error::SdkError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_types::error::metadata::{ErrorMetadata, ProvideErrorMetadata};

use crate::oauth::OauthError;
use crate::outbound;

/// Why a call of STS failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Error {
    /// STS refused, and another try would not help.
    Refused {
        /// The code and message of STS.
        error: OauthError,
        /// What to do about it.
        cure: &'static str,
    },
    /// STS is unavailable, or throttles this account. Throttling has status 400.
    Busy {
        /// The HTTP status.
        status: u16,
        /// The error code; empty if there was none.
        code: String,
    },
    /// The connection failed.
    Outbound(outbound::Error),
    /// The answer is not from STS.
    Malformed(String),
}

/// The cure when another server answers.
pub(crate) const NOT_STS: &str = "something answers in the place of STS: a proxy, or a wrong `endpoint`";

/// Codes that are temporary whatever the status. `IDPCommunicationError`: STS could not fetch the keys of the token's
/// issuer.
const BUSY: &[&str] = &[
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
    "TooManyRequestsException",
    "IDPCommunicationError",
    "ServiceUnavailable",
    "InternalFailure",
    "InternalError",
    "RequestTimeout",
];

const CLOCK: &str = "STS takes a signature for a few minutes: set this machine's clock";
const KEYS: &str = "the credentials of this role are no longer good, or of another partition: see what the platform gives this workload";

/// An error code, a text that the message must contain, and the cure.
const CURES: &[(&str, &str, &str)] = &[
    (
        "OutboundWebIdentityFederation",
        "",
        "an administrator switches it on, once for each account: `aws iam enable-outbound-web-identity-federation`",
    ),
    (
        "AccessDenied",
        "AssumeRoleWithWebIdentity",
        "the role does not let this identity assume it: compare `safeconduct whoami --audience sts.amazonaws.com` with the role's trust policy (its Federated provider, and the conditions on `sub` and `aud`)",
    ),
    (
        "AccessDenied",
        "",
        "a policy must allow the role `sts:GetWebIdentityToken`, for this audience (`sts:IdentityTokenAudience`), life and algorithm; policies of the organization and of the VPC endpoint count too",
    ),
    (
        "SessionDurationEscalation",
        "",
        "the role's session ends before the token would: it is renewed by the platform; if it never is, start the workload anew",
    ),
    (
        "JWTPayloadSizeExceeded",
        "",
        "the role's tags make the token too large: an administrator takes some of them away",
    ),
    (
        "ExpiredToken",
        "",
        "the platform gives a token that is no longer good: its file is stale, or this machine's clock is wrong",
    ),
    (
        "InvalidIdentityToken",
        "",
        "IAM does not take the identity: an identity provider with exactly this issuer must be registered in the role's account, with `sts.amazonaws.com` among its audiences; a JWT of AWS itself is never taken",
    ),
    (
        "IDPRejectedClaim",
        "",
        "the identity's issuer must vouch for it: its claims are not what the provider in IAM expects",
    ),
    ("PackedPolicyTooLarge", "", "the session's tags are too many: the identity's issuer puts fewer into its token"),
    ("RegionDisabled", "", "an administrator activates STS in this region, or set `region` to one where it is"),
    ("InvalidClientTokenId", "", KEYS),
    ("UnrecognizedClient", "", KEYS),
    ("SignatureDoesNotMatch", "", CLOCK),
    ("RequestExpired", "", CLOCK),
    (
        "ValidationError",
        "",
        "STS does not take one of the parameters: compare `role_arn` and the audience with what it says",
    ),
];

const ELSE: &str = "ask whoever administers the AWS account, with the time and these words";

impl Error {
    /// Can the same call succeed a little later?
    pub(crate) fn is_temporary(&self) -> bool {
        match self {
            Self::Busy { .. } => true,
            Self::Outbound(error) => error.is_temporary(),
            Self::Refused { .. } | Self::Malformed(_) => false,
        }
    }

    /// Converts an error of the SDK. Keeps only its code, its message and our own cause, because its `Display` prints whole
    /// answers.
    pub(super) fn of<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Self {
        let status = error.raw_response().map_or(0, |answer| answer.status().as_u16());
        match error {
            SdkError::ServiceError(inner) => Self::said(status, inner.err().meta()),
            SdkError::DispatchFailure(failure) => {
                let cause = failure.as_connector_error().and_then(std::error::Error::source);
                match cause.and_then(|cause| cause.downcast_ref::<outbound::Error>()) {
                    Some(error) => Self::Outbound(error.clone()),
                    None => Self::Malformed("the call could not be sent".to_owned()),
                }
            }
            SdkError::ResponseError(_) => Self::unreadable(status),
            _ => Self::Malformed("the call could not be made".to_owned()),
        }
    }

    fn said(status: u16, meta: &ErrorMetadata) -> Self {
        let Some(code) = meta.code() else { return Self::unreadable(status) };
        if BUSY.contains(&code) || status == 429 || status >= 500 {
            return Self::Busy { status, code: OauthError::new(code, None, None).code };
        }
        let message = meta.message().unwrap_or_default();
        let known = CURES.iter().find(|(start, word, _)| code.starts_with(start) && message.contains(word));
        Self::Refused {
            error: OauthError::new(code, meta.message(), None),
            cure: known.map_or(ELSE, |(_, _, cure)| cure),
        }
    }

    fn unreadable(status: u16) -> Self {
        match status {
            429 | 500.. => Self::Busy { status, code: "no code".to_owned() },
            _ => Self::Malformed(format!("what answers with status {status} does not speak like STS")),
        }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused { error, .. } => write!(f, "STS refuses with {error}"),
            Self::Busy { status, code } => write!(f, "STS answers status {status} ({code})"),
            Self::Outbound(error) => write!(f, "STS: {error}"),
            Self::Malformed(what) => write!(f, "STS: {what}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(status: u16, code: &str, message: &str) -> Error {
        Error::said(status, &ErrorMetadata::builder().code(code).message(message).build())
    }

    #[test]
    fn a_limit_is_temporary_though_its_status_is_400() {
        assert!(said(400, "Throttling", "Rate exceeded").is_temporary());
        assert!(said(400, "IDPCommunicationError", "Couldn't retrieve verification key").is_temporary());
        assert!(said(503, "SomethingNew", "").is_temporary());
        assert!(Error::unreadable(502).is_temporary());
        assert!(!said(403, "AccessDenied", "").is_temporary());
    }

    #[test]
    fn every_cure_can_be_reached_and_no_one_hides_another() {
        for (at, (code, word, cure)) in CURES.iter().enumerate() {
            let first = CURES.iter().position(|(start, other, _)| code.starts_with(start) && word.contains(other));
            assert_eq!(first, Some(at), "{code} {word}");
            let Error::Refused { cure: found, .. } = said(403, &format!("{code}Exception"), word) else {
                panic!("{code} is no refusal");
            };
            assert_eq!(found, *cure);
        }
    }

    #[test]
    fn its_words_are_cut_and_cleaned() {
        let shown = said(400, "Weird\u{7}Code", &"x".repeat(500)).to_string();
        assert!(shown.len() < 300 && !shown.contains('\u{7}'), "{shown}");
    }
}
