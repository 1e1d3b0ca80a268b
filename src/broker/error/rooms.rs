//! The facts of errors from other modules: one function per module, one row per error.

use super::Class::{Config, Denied, Internal, NoIdentity, Refused, Temporary};
use super::facts::{Facts, Party, Stage};
use crate::cache::Lost;
use crate::exchange::revocation;
use crate::{audit, discovery, exchange, identity, outbound, policy};
use Party::{AuthorizationServer, Machine, McpServer, Platform, Workload};

const BUG: &str = "this is a bug: please report it with the log at `--log debug`";

pub(super) fn policy(denied: &policy::Denied) -> Facts<'_> {
    let code = match denied {
        policy::Denied::Undecided { .. } => {
            return Facts::before(Machine, Temporary, "temporarily_unavailable").hint(denied.hint());
        }
        policy::Denied::Caller { .. } => "access_denied",
        policy::Denied::AskedTooMuch { .. } => "invalid_scope",
        policy::Denied::GrantedTooMuch { .. } => "scope_beyond_ceiling",
    };
    Facts::before(Machine, Denied, code).hint(denied.hint())
}

pub(super) fn identity(error: &identity::Error) -> Facts<'_> {
    let row = |class, code| Facts::of(Stage::Identity, Platform, class, code).maybe(error.hint());
    match error {
        identity::Error::Unreachable { .. } | identity::Error::Busy { .. } => row(Temporary, "identity_unreachable"),
        identity::Error::Misconfigured { .. }
        | identity::Error::Rejected { .. }
        | identity::Error::Malformed { .. } => row(NoIdentity, "no_identity"),
    }
}

pub(super) fn discovery(error: &discovery::Error) -> Facts<'_> {
    use discovery::Error as E;
    let row = |party, class, code| Facts::of(Stage::Discovery, party, class, code).maybe(error.hint());
    let operator = |document| match document {
        discovery::Document::Challenge | discovery::Document::Resource => McpServer,
        discovery::Document::Server => AuthorizationServer,
    };
    match error {
        E::Outbound { document, error } => outbound(Stage::Discovery, operator(*document), error),
        E::Busy { document, .. } => row(operator(*document), Temporary, "temporarily_unavailable"),
        E::Unusable { document, why: discovery::Oddity::Refused(cause), .. } => {
            let facts = outbound(Stage::Discovery, operator(*document), cause);
            facts.maybe(error.hint())
        }
        E::Unusable { document, .. } => row(operator(*document), Refused, "invalid_metadata"),
        E::ResourceMismatch { .. } => row(McpServer, Refused, "resource_mismatch"),
        E::IssuerMismatch { .. } => row(AuthorizationServer, Refused, "issuer_mismatch"),
        E::NoServerMetadata { .. } => row(AuthorizationServer, Refused, "no_metadata"),
        E::NamesNoIssuer { .. } | E::NoResourceMetadata { .. } => row(McpServer, Refused, "no_metadata"),
    }
}

pub(super) fn exchange(error: &exchange::Error) -> Facts<'_> {
    use exchange::Error as E;
    let row = |party, class, code| Facts::of(Stage::Exchange, party, class, code).maybe(error.hint());
    match error {
        E::Refused { error, .. } => row(AuthorizationServer, Refused, &*error.code),
        E::Busy { .. } => row(AuthorizationServer, Temporary, "temporarily_unavailable"),
        E::FileBusy { .. } | E::Crowded { .. } => row(Workload, Temporary, "temporarily_unavailable"),
        E::Outbound { error, .. } => outbound(Stage::Exchange, AuthorizationServer, error),
        E::Misconfigured { .. } => row(Workload, Config, "client_misconfigured"),
        E::Moved { .. } => row(AuthorizationServer, Refused, "issuer_changed"),
        E::NonceWanted { .. } | E::Elsewhere { .. } | E::Malformed { .. } => {
            row(AuthorizationServer, Refused, "invalid_metadata")
        }
    }
}

/// `other` is the operator of the other side.
fn outbound(stage: Stage, other: Party, error: &outbound::Error) -> Facts<'_> {
    let (party, class) = match error {
        error if error.is_temporary() => (other, Temporary),
        outbound::Error::NotAllowed { .. }
        | outbound::Error::Forbidden { kind: outbound::Kind::Unlisted, .. }
        | outbound::Error::InsecureLoopback { .. } => (Machine, Denied),
        outbound::Error::Roots { .. } => (Workload, Config),
        _ => (other, Refused),
    };
    let code = if class == Temporary { "temporarily_unavailable" } else { "invalid_metadata" };
    Facts::of(stage, party, class, code).maybe(error.hint())
}

pub(super) fn revocation(error: &revocation::Error) -> Facts<'_> {
    let class = if error.is_temporary() { Temporary } else { Refused };
    Facts::of(Stage::Revocation, AuthorizationServer, class, "revocation_failed")
        .hint("the token is forgotten here and lapses by itself")
}

pub(super) fn audit(error: &audit::Error) -> Facts<'_> {
    Facts::before(Machine, Temporary, "audit_failed").hint(error.hint())
}

pub(super) fn flight(lost: Lost) -> Facts<'static> {
    match lost {
        Lost::Panic => bug(),
        Lost::TooLong => Facts::before(AuthorizationServer, Temporary, "temporarily_unavailable"),
        Lost::StaleToken => Facts::of(Stage::Exchange, AuthorizationServer, Temporary, "temporarily_unavailable")
            .hint(super::judged::BAD_LIFETIME),
        Lost::SameToken => Facts::of(Stage::Exchange, AuthorizationServer, Temporary, "temporarily_unavailable")
            .hint("it does so until that token is nearly over; without `--fresh` you get it"),
        Lost::Crowded => Facts::before(Workload, Temporary, "temporarily_unavailable")
            .hint("ask for fewer sets of scopes at a time, and keep each token for its life"),
    }
}

pub(super) fn bug() -> Facts<'static> {
    Facts::before(Workload, Internal, "server_error").hint(BUG)
}
