//! The front door before the MCP server, which needs a credential of its own with every request (`outer`).

use reqwest::header::{HeaderName, HeaderValue};

use super::super::Error;
use super::{ExaminationRun, TokenRequest, rules};
use crate::discovery::ping;
use crate::oauth::ServerUrl;
use crate::outbound::Ask;

impl ExaminationRun<'_> {
    /// Asks for the front door's credential, once, as in a normal request. Without it the examination goes on and shows
    /// how the front door answers.
    pub(super) async fn front_door(&mut self) {
        let Some(door) = &self.server.front_door else { return };
        self.report.waits_for("the credential for the front door");
        let want = TokenRequest::for_front_door(self.server, door);
        let made = self.maker.mint(&want).await;
        if let Ok(token) = &made {
            self.report.keep(&want, &token.issuer, token.credential.token());
        }
        let pass = made.and_then(|token| {
            let fields = token.credential.authorize(None).ok();
            let value = fields.and_then(|mut fields| fields.pop());
            let value = value.and_then(|(_, value)| HeaderValue::from_str(&value).ok());
            let field = HeaderName::from_bytes(door.header.as_bytes()).ok().zip(value);
            let (name, mut value) =
                field.ok_or_else(|| Error::internal("a token that was checked is no header value"))?;
            value.set_sensitive(true);
            Ok((name, value, token.expires_at))
        });
        match pass {
            Ok((name, value, until)) => {
                self.report
                    .push(rules::FRONT_DOOR.pass(format!("a credential for `{}`, good until {until}", door.header)));
                self.pass = Some((name, value));
            }
            Err(error) => self.report.push(rules::FRONT_DOOR.fail_with(&error)),
        }
    }

    /// A request to a URL of the MCP server, without a token for it but with the front door's credential.
    pub(super) fn ping(&self, url: &str) -> Ask {
        let mut ask = ping(url);
        ask.headers.extend(self.pass.clone());
        ask
    }

    /// The front door's credential, for URLs on the server's own origin only.
    pub(super) fn pass_for(&self, url: &str) -> Option<(HeaderName, HeaderValue)> {
        let url = ServerUrl::parse(url).ok()?;
        self.pass.clone().filter(|_| self.server.url.same_origin(&url))
    }
}
