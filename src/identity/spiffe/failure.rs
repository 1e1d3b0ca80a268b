//! Failures of the Workload API: which ones are temporary, their meaning, and their cure.

use std::collections::BTreeSet;
use std::error::Error as _;
use std::io;
use std::time::Duration;

use spiffe::transport::{Endpoint, GrpcStatusCode, TransportConnectError, TransportError};
use spiffe::{JwtSvidError, WorkloadApiError};

use super::{SOCKET, SOURCE, Workload};
use crate::identity::Error;
use crate::oauth::quoted_words;
use crate::token::NotJwt;

/// So many identities are named in an error.
const SHOWN: usize = 8;

/// Why one try failed.
pub(super) enum Failure {
    /// No answer within this time.
    Silent(Duration),
    /// An error answer, or an error of the client.
    Said(WorkloadApiError),
}

impl Failure {
    /// Is it temporary? The agent may be starting, or a registration may not have arrived (SPIFFE, "Workload Endpoint"
    /// section 6).
    pub(super) fn may_pass(&self) -> bool {
        use GrpcStatusCode as Code;
        match self {
            Self::Silent(_) => true,
            Self::Said(WorkloadApiError::NoIdentityIssued | WorkloadApiError::PermissionDenied(_)) => true,
            Self::Said(WorkloadApiError::Transport(TransportError::Connect(error))) => {
                innermost(error).kind() != io::ErrorKind::PermissionDenied
            }
            Self::Said(WorkloadApiError::Transport(TransportError::Status(status))) => matches!(
                status.code(),
                Code::Unavailable
                    | Code::DeadlineExceeded
                    | Code::ResourceExhausted
                    | Code::Aborted
                    | Code::Cancelled
                    | Code::Internal
                    | Code::Unknown
            ),
            Self::Said(_) => false,
        }
    }
}

impl Workload {
    pub(super) fn error(&self, failure: &Failure) -> Error {
        let place = self.place();
        match failure {
            Failure::Silent(limit) => {
                self.unreachable(format!("{place} gives no answer within {:.1} s", limit.as_secs_f32()))
            }
            Failure::Said(WorkloadApiError::NoIdentityIssued | WorkloadApiError::PermissionDenied(_)) => {
                self.not_registered()
            }
            Failure::Said(WorkloadApiError::Transport(TransportError::Status(status))) => {
                let what = format!("{place} answers {}: {:?}", status.code(), quoted_words(status.message()));
                if failure.may_pass() { self.unreachable(what) } else { rejected(what, of_code(status.code())) }
            }
            Failure::Said(WorkloadApiError::Transport(TransportError::Connect(error))) => {
                let cause = innermost(error);
                let what = format!("{place} cannot be reached: {cause}");
                if failure.may_pass() {
                    self.unreachable(what)
                } else {
                    let uid = self.ambient.env.uid();
                    rejected(what, &format!("let uid {uid} connect to that socket and enter its directory"))
                }
            }
            Failure::Said(WorkloadApiError::JwtSvid(error)) => self.malformed(&match error {
                JwtSvidError::InvalidSubject(_) => "a JWT-SVID whose `sub` is no SPIFFE ID".to_owned(),
                JwtSvidError::InvalidJwtFormat | JwtSvidError::InvalidBase64 | JwtSvidError::InvalidJson(_) => {
                    format!("a JWT-SVID that is {NotJwt}")
                }
                other => format!("an unsound JWT-SVID ({})", quoted_words(&other.to_string())),
            }),
            Failure::Said(other) => self.malformed(&format!("something else ({})", quoted_words(&other.to_string()))),
        }
    }

    fn place(&self) -> String {
        match &self.endpoint {
            Endpoint::Unix(path) => format!("the Workload API at {}", path.display()),
            Endpoint::Tcp { host, port } => format!("the Workload API at {host}:{port}"),
            _ => "the Workload API".to_owned(),
        }
    }

    pub(super) fn not_registered(&self) -> Error {
        let (uid, place) = (self.ambient.env.uid(), self.place());
        let (what, id) = match &self.spiffe_id {
            Some(id) => (format!("{place} does not give this workload the identity {id}"), id.to_string()),
            None => (format!("{place} has no identity for this workload"), "spiffe://TRUST-DOMAIN/NAME".to_owned()),
        };
        let hint = format!(
            "register this workload (`spire-server entry create -parentID … -spiffeID {id} -selector unix:uid:{uid}`, \
            in Kubernetes `-selector k8s:sa:NAME`); the agent learns of it within seconds"
        );
        rejected(what, &hint)
    }

    /// The workload has these identities, and the configuration does not say which one is meant.
    pub(super) fn several(&self, ids: &BTreeSet<String>) -> Error {
        let shown: Vec<&str> = ids.iter().take(SHOWN).map(String::as_str).collect();
        let more = if ids.len() > SHOWN { format!(" and {} more", ids.len() - SHOWN) } else { String::new() };
        let what = format!("{} has several identities for this workload: {}{more}", self.place(), shown.join(", "));
        rejected(what, "say which one is meant with `spiffe_id` in [identity]")
    }

    fn unreachable(&self, what: String) -> Error {
        let hint = format!("is the agent running, and its socket mounted here? {SOCKET} or `endpoint` says where");
        Error::Unreachable { source_name: SOURCE.name, what, hint: Some(hint) }
    }

    pub(super) fn malformed(&self, what: &str) -> Error {
        Error::Malformed {
            source_name: SOURCE.name,
            what: format!("{} answers with {what}", self.place()),
            hint: "what listens there is no sound Workload API: see the agent's log".to_owned(),
        }
    }
}

fn rejected(what: String, hint: &str) -> Error {
    Error::Rejected { source_name: SOURCE.name, what, hint: hint.to_owned() }
}

/// The usual cause of a permanent error.
fn of_code(code: GrpcStatusCode) -> &'static str {
    match code {
        GrpcStatusCode::InvalidArgument => {
            "this request is sound: something between drops its metadata, or this is a bug, please report it"
        }
        GrpcStatusCode::Unimplemented => "this agent issues no SVIDs of that kind: switch them on there",
        _ => "see the agent's log",
    }
}

/// The operating system's error inside the wrapping errors.
fn innermost(error: &TransportConnectError) -> io::Error {
    let mut cause = error.source();
    let mut words = "no reason given".to_owned();
    while let Some(one) = cause {
        if let Some(error) = one.downcast_ref::<io::Error>() {
            return io::Error::new(error.kind(), error.to_string());
        }
        words = one.to_string();
        cause = one.source();
    }
    io::Error::other(words)
}
