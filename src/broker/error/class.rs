//! The classes of failures, each with its HTTP status and exit code.

/// What kind of failure it is. HTTP status, exit code and retry follow from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Class {
    /// The caller's request is wrong.
    BadRequest,
    /// Our policy refuses the request.
    Denied,
    /// Our configuration is wrong.
    Config,
    /// No usable workload identity here.
    NoIdentity,
    /// The other party refuses, or its answer is wrong.
    Refused,
    /// The same request may succeed later.
    Temporary,
    /// A bug of ours.
    Internal,
}

impl Class {
    /// The name in JSON and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::Denied => "denied",
            Self::Config => "config",
            Self::NoIdentity => "no_identity",
            Self::Refused => "refused",
            Self::Temporary => "temporary",
            Self::Internal => "internal",
        }
    }

    /// The class of this name, if there is one.
    pub fn parse(name: &str) -> Option<Self> {
        let all = [
            Self::BadRequest,
            Self::Denied,
            Self::Config,
            Self::NoIdentity,
            Self::Refused,
            Self::Temporary,
            Self::Internal,
        ];
        all.into_iter().find(|class| class.as_str() == name)
    }

    /// The exit code, after sysexits.h.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::BadRequest => 64,
            Self::NoIdentity => 69,
            Self::Internal => 70,
            Self::Temporary => 75,
            Self::Refused => 76,
            Self::Denied => 77,
            Self::Config => 78,
        }
    }

    /// The HTTP status of the local API.
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Denied => 403,
            Self::Config | Self::Internal => 500,
            Self::Refused => 502,
            Self::NoIdentity | Self::Temporary => 503,
        }
    }
}
