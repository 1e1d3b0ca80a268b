//! A refusal of the data path, with everything that its answer and its record need.

use std::sync::Arc;

use super::head::BadHead;
use super::verdict::{Form, Told};
use crate::broker::{self, Class};
use crate::jitter::request_id;
use crate::mcp::rpc::Id;
use crate::mcp::rpc::refusal::{AnswerTo, Refusal, Remediation};

/// Why a request is not relayed, or its answer is not passed on.
pub(crate) struct Refused {
    pub(crate) class: Class,
    /// The status of the answer.
    pub(crate) status: u16,
    /// A stable code.
    pub(crate) code: String,
    /// What happened and who must act. A model reads it.
    pub(crate) message: String,
    /// The configured name of the server, if this caller may know it.
    pub(crate) server: Option<Arc<str>>,
    pub(crate) retry_after: Option<u64>,
    pub(crate) remediation: Remediation,
    /// What another party said, cut and cleaned.
    pub(crate) said: Option<String>,
    /// Whose answer it is.
    pub(crate) to: To,
    /// What the log and the audit call the request.
    pub(crate) request_id: String,
    /// The broker has recorded it.
    pub(crate) is_recorded: bool,
    /// Nothing more can be read from this connection.
    pub(crate) ends_connection: bool,
    /// The methods that are left, where one is refused.
    pub(crate) allow: Option<&'static str>,
}

/// Whose answer an error is.
#[derive(Clone, Debug)]
pub(crate) enum To {
    /// The request with this id.
    Request(Id),
    /// A request whose id cannot be told.
    Unknown,
    /// No request.
    Nobody,
}

impl To {
    fn wire(&self) -> AnswerTo<'_> {
        match self {
            Self::Request(id) => AnswerTo::Request(id),
            Self::Unknown => AnswerTo::Unknown,
            Self::Nobody => AnswerTo::Nobody,
        }
    }
}

impl Refused {
    fn new(class: Class, status: u16, code: &str, message: String) -> Self {
        Self {
            class,
            status,
            code: code.to_owned(),
            message,
            server: None,
            retry_after: None,
            remediation: Remediation::Unavailable,
            said: None,
            to: To::Nobody,
            request_id: request_id(),
            is_recorded: false,
            ends_connection: false,
            allow: None,
        }
    }

    /// The request is refused before the data path sees it.
    pub(crate) fn at_the_door(class: Class, code: &str, words: &str) -> Self {
        Self::new(class, class.status(), code, words.to_owned())
    }

    /// There is no such server, or none for this caller: both look alike.
    pub(super) fn not_found() -> Self {
        Self::new(Class::BadRequest, 404, "not_found", "there is nothing at this path".to_owned())
    }

    /// The session is another user's, and looks as if it were lost.
    pub(super) fn no_session() -> Self {
        Self::new(Class::BadRequest, 404, "session_not_found", "there is no such session: initialize again".to_owned())
    }

    /// The request is refused for its head.
    pub(super) fn head(why: BadHead) -> Self {
        let status = why.status();
        let (class, code) = match status {
            403 => (Class::Denied, "access_denied"),
            405 => (Class::BadRequest, "method_not_allowed"),
            _ => (Class::BadRequest, "invalid_request"),
        };
        let allow = (status == 405).then_some("GET, POST, DELETE");
        Self { allow, ..Self::new(class, status, code, why.to_string()) }
    }

    /// The body of the request cannot be read.
    pub(super) fn body(words: &str) -> Self {
        let refused = Self::new(Class::BadRequest, 400, "invalid_request", words.to_owned());
        Self { ends_connection: true, ..refused }
    }

    /// The server or the issuer says no, or cannot be reached.
    pub(super) fn told(told: &Told, form: Form, server: &Arc<str>, cause: Option<&broker::Error>) -> Self {
        let foreign = cause.map(broker::Error::code);
        let message = told.message(server, foreign);
        let refused = Self::new(told.class, form.status(), told.error(), message);
        Self {
            server: Some(Arc::clone(server)),
            retry_after: told.retry_after,
            remediation: told.remediation,
            is_recorded: cause.is_some_and(broker::Error::is_noted),
            allow: (form == Form::NotAllowed).then_some("POST"),
            ..refused
        }
    }

    /// The JSON-RPC error.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        let refusal = Refusal {
            message: &self.message,
            class: self.class.as_str(),
            error: &self.code,
            retry_after: self.retry_after,
            server: self.server.as_deref().unwrap_or_default(),
            request_id: &self.request_id,
            remediation: self.remediation,
            said: self.said.as_deref(),
        };
        refusal.to_json(self.to.wire())
    }
}
