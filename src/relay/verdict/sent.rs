//! What a client sent, and in which form it gets an error of ours.

use std::time::Duration;

use crate::broker::Class;
use crate::mcp::rpc::{Kind, Message, is_repeatable};

/// What a client sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    Request(Effect),
    Notification,
    /// An answer of the client to a request of the server.
    Response,
    /// A batch, or a body that cannot be read.
    Unclear,
    /// GET: the stream for what the server sends by itself (until 2025-11-25).
    Stream,
    /// DELETE: the end of a session (until 2025-11-25).
    End,
}

/// What a request does when the server carries it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// `server/discover` or `initialize`: decides which wire the client speaks from now on.
    Probe,
    /// It may be carried out twice.
    Harmless,
    /// A tool runs.
    ToolCall,
    /// Anything else, and what cannot be told.
    Unknown,
}

/// What a client waits for at most before it gets an error.
const PATIENCE: Duration = Duration::from_secs(10);
/// Less for what clients wait only five seconds for.
const SHORT_PATIENCE: Duration = Duration::from_secs(4);

impl Effect {
    fn of(method: Option<&str>) -> Self {
        match method {
            Some("server/discover" | "initialize") => Self::Probe,
            Some("tools/call") => Self::ToolCall,
            Some(method) if is_repeatable(method) => Self::Harmless,
            _ => Self::Unknown,
        }
    }
}

/// How a client gets an error of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// HTTP 200 with the error as the answer to the request: every client shows it.
    Answer,
    /// HTTP 503 with the error, without an id.
    Unavailable,
    /// HTTP 202: there is nobody to tell.
    Accepted,
    /// HTTP 405: the client goes on without a stream.
    NotAllowed,
    /// HTTP 200 with an event stream that is held by comments until the server's stream can be joined. Clients never
    /// ask again after an error.
    Hold,
}

impl Form {
    /// The status of the answer.
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::Answer | Self::Hold => 200,
            Self::Accepted => 202,
            Self::NotAllowed => 405,
            Self::Unavailable => 503,
        }
    }
}

impl Sent {
    /// What the body of a POST is.
    pub(crate) fn posted(message: &Message<'_>) -> Self {
        match message.kind {
            // The server may see another method than we do.
            Kind::Request if message.is_ambiguous => Self::Request(Effect::Unknown),
            Kind::Request => Self::Request(Effect::of(message.method.as_deref())),
            Kind::Notification => Self::Notification,
            Kind::Response => Self::Response,
            Kind::Batch | Kind::Unreadable => Self::Unclear,
        }
    }

    /// May it be sent again after its answer was lost?
    pub(crate) fn may_run_twice(self) -> bool {
        matches!(self, Self::Request(Effect::Probe | Effect::Harmless) | Self::Stream)
    }

    /// How long to wait for a token, or for a temporary failure to pass, before the client is answered.
    pub(crate) fn patience(self) -> Duration {
        match self {
            Self::Request(Effect::Probe) | Self::Stream => SHORT_PATIENCE,
            _ => PATIENCE,
        }
    }

    /// How the client gets an error of this class.
    pub(crate) fn form(self, class: Class) -> Form {
        match (self, class) {
            (Self::Request(_) | Self::Unclear, _) => Form::Answer,
            (Self::Stream, Class::Temporary) => Form::Hold,
            (Self::Stream, _) => Form::NotAllowed,
            (Self::Response, Class::Denied | Class::Refused) => Form::Accepted,
            (Self::End, Class::Denied | Class::Refused) => Form::NotAllowed,
            (Self::Notification | Self::Response | Self::End, _) => Form::Unavailable,
        }
    }
}
