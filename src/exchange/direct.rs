//! `direct`: the workload's own JWT is the access token.
//!
//! For MCP servers that trust the platform's issuer themselves, or the token service at the end of a chain of identities
//! (`from` in `[identities]`). Nothing is discovered and no authorization server is called. `subject_audience` is the audience of
//! the token. It must be the MCP server and never an authorization server, where the token could be presented as an identity.

use std::sync::Arc;

use async_trait::async_trait;

use super::{
    Asks, Descriptor, Error, Exchange, ExchangeTable, Form, Gives, Grant, Issued, Request, TokenEndpoint, Traits,
};
use crate::setting::Problem;
use crate::token::{AccessToken, SubjectToken};

pub(super) const EXCHANGE: Descriptor = Descriptor {
    name: "direct",
    sets: &[],
    of_server: Some(Form { settings: &[], check, from_config: |_| Ok(Arc::new(Direct)) }),
    of_link: None,
};

#[derive(Debug)]
struct Direct;

/// Checks the keys around it: those for an authorization server have no effect.
fn check(written: &ExchangeTable<'_>) -> Vec<Problem> {
    let what =
        "has no effect with `exchange = \"direct\"`: no authorization server is asked, and nothing limits scopes";
    let keys =
        ["issuer", "scopes", "client_id", "client_auth", "audience", "extra", "token_endpoint", "dpop", "register"];
    let mut problems = written.unused(&keys, what);
    if !(written.has)("subject_audience") {
        let what = "\"direct\" needs `subject_audience`: the name under which the server takes the platform's tokens";
        problems.push(Problem::new("exchange", what));
    }
    problems
}

/// The traits of an exchange that passes on the platform's own token: no issuer, so no pin.
pub(super) fn traits() -> Traits {
    Traits { asks: Asks::Nobody, gives: Gives::OwnToken, limits_scopes: false, ..Traits::of_grant("") }
}

/// Returns the subject token as access token.
pub(super) fn pass_through(subject: Option<&SubjectToken>) -> Result<Issued, Error> {
    let text = subject.map_or("", SubjectToken::expose);
    // The text is the platform's, and no token endpoint is to blame for it.
    let access_token = AccessToken::parse(text.to_owned()).map_err(|_| Error::Misconfigured {
        what: "the identity token cannot be an access token: it is longer than 32 KiB".to_owned(),
        hint: "have the platform issue a shorter token, or choose another `exchange`".to_owned(),
    })?;
    Ok(Issued { grant: Grant::Token(access_token), expires_in: None, scopes: None })
}

#[async_trait]
impl Exchange for Direct {
    fn name(&self) -> &'static str {
        EXCHANGE.name
    }

    fn traits(&self) -> Traits {
        traits()
    }

    async fn exchange(
        &self,
        _endpoint: &TokenEndpoint<'_>,
        subject: Option<&SubjectToken>,
        _request: &Request,
    ) -> Result<Issued, Error> {
        pass_through(subject)
    }
}
