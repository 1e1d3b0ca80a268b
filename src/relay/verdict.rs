//! What an answer of an MCP server leads to, or a failure to get one. Pure.
//!
//! Everything that a server answers is passed on, except for what would make a local client start a login of its own or
//! follow the server elsewhere: 401, 403, and redirects. Those, and failures, lead to a repetition that the client does not
//! see, or to an error of ours ([`Told`]). How the client gets that error depends on what it sent ([`Sent::form`]).
//!
//! A request is repeated at most once with a new token, once with a new proof, and twice with more scopes. After a *lost*
//! answer only requests are repeated that do no harm when they are carried out twice. A `tools/call` is not one of them.

use std::time::Duration;

use crate::broker::Class;
use crate::mcp::rpc::refusal::Remediation;
use crate::oauth::{Challenge, Scopes};

mod probe;
mod sent;
#[cfg(test)]
mod tests;
mod told;

pub(crate) use probe::ProbeErrors;
pub(crate) use sent::{Effect, Form, Sent};
pub(crate) use told::{Told, Why};

/// For how long a connection is tried while nothing was sent.
pub(crate) const CONNECT_FOR: Duration = Duration::from_secs(3);
/// How often one request may be repeated with more scopes.
const STEPS: u8 = 2;
/// The first pause between two connections. It doubles up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_millis(500);

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// Pass the answer on.
    Pass,
    /// Do this, then send the same request again.
    Again(Repair),
    /// Nothing was sent: connect again after this pause.
    Reconnect(Duration),
    /// Give the client an error of ours.
    Tell(Told),
}

/// What is different the next time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Repair {
    /// Nothing: the answer was lost.
    Nothing,
    /// The same token with a new proof, which contains the server's new nonce.
    NewProof,
    /// The token is marked as rejected, and a new one is fetched.
    NewToken,
    /// A token with these scopes.
    Scopes(Scopes),
}

/// Can the request be sent once more?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// All of it is in hand: it has none, none of it was read, or it was kept whole.
    InHand,
    /// It was too large to be kept.
    Gone,
}

/// How old the token is that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenAge {
    /// It was made so recently that the server cannot refuse it for its age.
    Fresh,
    Settled,
}

impl TokenAge {
    /// A token is fresh for the smaller of five seconds and a tenth of its life.
    pub(crate) fn of(age: Duration, life: Duration) -> Self {
        if age < Duration::from_secs(5).min(life / 10) { Self::Fresh } else { Self::Settled }
    }
}

/// How often this request was repeated already, for each reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Repairs {
    pub(crate) proofs: u8,
    pub(crate) tokens: u8,
    pub(crate) steps: u8,
    /// After a lost answer.
    pub(crate) losses: u8,
}

/// One request as it was sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt<'a> {
    pub(crate) sent: Sent,
    pub(crate) body: Body,
    pub(crate) repairs: Repairs,
    pub(crate) token: TokenAge,
    /// Was a DPoP proof sent with the token?
    pub(crate) has_proof: bool,
    pub(crate) scopes: Steps<'a>,
}

/// What a step up to more scopes is decided from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Steps<'a> {
    /// What was last requested for this caller.
    pub(crate) requested: &'a Scopes,
    /// The most that this caller may have. Without a ceiling there is no step up.
    pub(crate) ceiling: Option<&'a Scopes>,
    /// The sets that the issuer has refused for this caller recently.
    pub(crate) refused: &'a [Scopes],
}

/// The head of an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    pub(crate) challenge: &'a Challenge,
    /// Whether the server says that more access can be had.
    pub(crate) remediation: Option<Remediation>,
}

/// How much of a request was written before it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    Nothing,
    Something,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure {
    /// Whether the same may succeed later.
    pub(crate) class: Class,
    pub(crate) written: Written,
    /// How long this request has been tried.
    pub(crate) since_first: Duration,
    /// How many connections were tried.
    pub(crate) tries: u32,
}

/// What an answer leads to. A session that the server has lost is not looked for here, but in [`super::session`].
pub(crate) fn answered(answer: Answer<'_>, attempt: &Attempt<'_>) -> Verdict {
    let complaint = Complaint::of(answer.challenge);
    match answer.status {
        401 | 403 if complaint == Complaint::Scope => step_up(answer, attempt),
        401 | 403 if complaint == Complaint::Authentication => tell(Why::PersonWanted),
        401 if complaint == Complaint::Nonce && attempt.has_proof => new_proof(attempt),
        401 => new_token(attempt),
        403 => Verdict::Tell(Told::new(Why::Forbidden).with_remediation(answer.remediation)),
        304 if attempt.sent == Sent::Stream => Verdict::Pass,
        300..=399 => tell(Why::Redirect),
        _ => Verdict::Pass,
    }
}

/// What a failure to get an answer leads to.
pub(crate) fn failed(failure: Failure, attempt: &Attempt<'_>) -> Verdict {
    let is_temporary = failure.class == Class::Temporary;
    let can_repeat = attempt.body == Body::InHand && is_temporary;
    match failure.written {
        Written::Nothing if !is_temporary => Verdict::Tell(Told::of_class(Why::NoConnection, failure.class)),
        Written::Nothing if can_repeat && failure.since_first < CONNECT_FOR => {
            let doubled = FIRST_PAUSE * (1 << failure.tries.min(8));
            Verdict::Reconnect(doubled.min(LAST_PAUSE))
        }
        Written::Nothing => tell(Why::Unreachable),
        Written::Something if can_repeat && attempt.sent.may_run_twice() && attempt.repairs.losses == 0 => {
            Verdict::Again(Repair::Nothing)
        }
        Written::Something if !is_temporary => tell(Why::Malformed),
        Written::Something if attempt.sent == Sent::Request(Effect::ToolCall) => tell(Why::ToolMayHaveRun),
        Written::Something => tell(Why::AnswerLost),
    }
}

/// What becomes of an event stream that breaks.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Broken {
    /// Ask the server for what follows the last event id, or for a new stream if there is none.
    Resume,
    /// Send this error as the last event, then end the stream cleanly.
    EndWith(Told),
    /// End the stream cleanly: all was said.
    End,
}

/// How far a stream had come when it broke.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    /// Did the answer to the request pass?
    pub(crate) is_answered: bool,
    /// Is there an event id to resume from, and does this wire know resuming? (2026-07-28 does not.)
    pub(crate) can_resume: bool,
    /// How long resuming was tried in vain.
    pub(crate) tried_for: Duration,
}

/// What becomes of an event stream that breaks. The stream of a GET answers no request, so it is opened again for as long as
/// the client stays.
pub(crate) fn broke(sent: Sent, progress: Progress) -> Broken {
    match sent {
        Sent::Stream => Broken::Resume,
        _ if progress.is_answered => Broken::End,
        _ if progress.can_resume && progress.tried_for < CONNECT_FOR => Broken::Resume,
        Sent::Request(Effect::ToolCall) => Broken::EndWith(Told::new(Why::ToolMayHaveRun)),
        _ => Broken::EndWith(Told::new(Why::AnswerLost)),
    }
}

fn tell(why: Why) -> Verdict {
    Verdict::Tell(Told::new(why))
}

/// Repeats the request, or says why not. The repair is done in any case, so that the next request succeeds.
fn repeat(repair: Repair, attempt: &Attempt<'_>) -> Verdict {
    match attempt.body {
        Body::InHand => Verdict::Again(repair),
        Body::Gone => Verdict::Tell(Told::new(Why::TooLargeToRepeat).and(repair)),
    }
}

fn new_proof(attempt: &Attempt<'_>) -> Verdict {
    if attempt.repairs.proofs > 0 { tell(Why::ProofRefused) } else { repeat(Repair::NewProof, attempt) }
}

/// A token that was just made, or that was made for this request, is not refused for its age. Another one would not help.
fn new_token(attempt: &Attempt<'_>) -> Verdict {
    if attempt.token == TokenAge::Fresh || attempt.repairs.tokens > 0 {
        return tell(Why::TokenRefused);
    }
    repeat(Repair::NewToken, attempt)
}

/// Asks for the union of what was requested and what the server wants, cut to the ceiling.
fn step_up(answer: Answer<'_>, attempt: &Attempt<'_>) -> Verdict {
    let Steps { requested, ceiling, refused } = attempt.scopes;
    if answer.remediation == Some(Remediation::Unavailable) {
        return Verdict::Tell(Told::new(Why::Forbidden).with_remediation(answer.remediation));
    }
    let Some(wanted) = answer.challenge.scopes.as_ref().filter(|scopes| !scopes.is_empty()) else {
        return tell(Why::ScopeNotNamed);
    };
    let Some(ceiling) = ceiling else { return tell(Why::NoCeiling) };
    let next = requested.union(wanted).within(ceiling);
    if next.minus(requested).is_empty() {
        let is_beyond = !wanted.minus(ceiling).is_empty();
        return tell(if is_beyond { Why::BeyondCeiling } else { Why::ScopeNotEnough });
    }
    if refused.contains(&next) {
        return tell(Why::ScopeRefused);
    }
    if attempt.repairs.steps >= STEPS {
        return tell(Why::ScopeNotEnough);
    }
    repeat(Repair::Scopes(next), attempt)
}

/// What a challenge complains about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Complaint {
    /// RFC 9449 section 9.
    Nonce,
    /// RFC 6750 section 3.1.
    Scope,
    /// RFC 9470 section 3.
    Authentication,
    /// The token, or nothing in particular.
    Token,
}

impl Complaint {
    fn of(challenge: &Challenge) -> Self {
        match challenge.error.as_deref() {
            Some("use_dpop_nonce") => Self::Nonce,
            Some("insufficient_scope") => Self::Scope,
            Some("insufficient_user_authentication") => Self::Authentication,
            _ => Self::Token,
        }
    }
}
