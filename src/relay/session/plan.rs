//! What is sent to open a session that equals a lost one.

use serde_json::json;

/// The messages to send, in order, each after the answer to the one before.
#[derive(Debug, PartialEq)]
pub(crate) struct Plan(pub(crate) Vec<Step>);

/// One message, as a body to POST.
#[derive(Debug, PartialEq)]
pub(crate) enum Step {
    /// Without a session id. Its answer has the new id and the [`super::Offer`], or the plan has failed. If the offer differs
    /// from the old one, nothing else is sent.
    Initialize(String),
    /// With the new id and the offered version, as all that follow. A notification: any 2xx is fine.
    Initialized(String),
    /// If it is refused, the resource has gone, and the plan goes on.
    Subscribe(String),
    /// The same.
    SetLevel(String),
}

impl Step {
    /// The body.
    pub(crate) fn body(&self) -> &str {
        match self {
            Self::Initialize(body) | Self::Initialized(body) | Self::Subscribe(body) | Self::SetLevel(body) => body,
        }
    }
}

/// With what a session is opened again.
#[derive(Clone, Copy)]
pub(super) enum Initialize<'a> {
    /// The client's own parameters, byte for byte.
    Own(&'a str),
    /// What the client sent is not known: its version, and no capability.
    Empty { version: &'a str },
}

impl Plan {
    pub(super) fn new<'a>(
        initialize: Initialize<'_>,
        subscriptions: impl Iterator<Item = &'a str>,
        level: Option<&str>,
    ) -> Self {
        let params = match initialize {
            Initialize::Own(params) => params.to_owned(),
            Initialize::Empty { version } => {
                let client = json!({ "name": "safeconduct", "version": env!("CARGO_PKG_VERSION") });
                json!({ "protocolVersion": version, "capabilities": {}, "clientInfo": client }).to_string()
            }
        };
        let mut ids = 0_u32;
        let mut request = |method: &str, params: &str| {
            ids += 1;
            format!(r#"{{"jsonrpc":"2.0","id":"safeconduct-{ids}","method":"{method}","params":{params}}}"#)
        };
        let mut steps = vec![Step::Initialize(request("initialize", &params))];
        steps.push(Step::Initialized(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#.to_owned()));
        for uri in subscriptions {
            steps.push(Step::Subscribe(request("resources/subscribe", &json!({ "uri": uri }).to_string())));
        }
        if let Some(level) = level {
            steps.push(Step::SetLevel(request("logging/setLevel", &json!({ "level": level }).to_string())));
        }
        Self(steps)
    }
}
