//! The front door before the MCP server, which wants a credential of its own with every request (`outer`).

use reqwest::header::{HeaderName, HeaderValue};

use super::super::Error;
use super::{Walk, rules};
use crate::discovery::ping;
use crate::oauth::ServerUrl;
use crate::outbound::Ask;

impl Walk<'_> {
    /// Asks for what opens it, once, as the path does. Without it the walk goes on, and shows how the door answers.
    pub(super) async fn front_door(&mut self) {
        let Some(outer) = &self.server.outer else { return };
        self.report.waits_for("the credential for the front door");
        let made = match self.server.door(&self.maker.servers) {
            Some(door) => self.maker.mint(door, &door.policy.permit_for_all()).await,
            None => Err(Error::internal("a front door is no server")),
        };
        let pass = made.and_then(|token| {
            let value = HeaderValue::from_str(&format!("Bearer {}", token.access_token.expose())).ok();
            let field = HeaderName::from_bytes(outer.header.as_bytes()).ok().zip(value);
            let (name, mut value) =
                field.ok_or_else(|| Error::internal("a token that was checked is no header value"))?;
            value.set_sensitive(true);
            Ok((name, value, token.expires_at))
        });
        match pass {
            Ok((name, value, until)) => {
                self.report
                    .push(rules::FRONT_DOOR.pass(format!("a credential for `{}`, good until {until}", outer.header)));
                self.pass = Some((name, value));
            }
            Err(error) => self.report.push(rules::FRONT_DOOR.fail_with(&error)),
        }
    }

    /// A request to a URL of the MCP server, without a token for it.
    pub(super) fn ping(&self, url: &str) -> Ask {
        let mut ask = ping(url);
        ask.headers.extend(self.pass.clone());
        ask
    }

    /// What opens the door is for the server's own origin alone.
    pub(super) fn pass_for(&self, url: &str) -> Option<(HeaderName, HeaderValue)> {
        let url = ServerUrl::parse(url).ok()?;
        self.pass.clone().filter(|_| self.server.url.same_origin(&url))
    }
}
