//! Checks of the MCP endpoint without a token, and of its challenge (RFC 6750, RFC 9728 section 5.1).

use super::super::Error;
use super::{Check, ExaminationRun, Party, rules};
use crate::discovery::{self, Document, EndpointHead};
use crate::oauth::{Challenge, ServerUrl, quoted_words};
use crate::outbound;

impl ExaminationRun<'_> {
    /// Sends a request without a token and checks the answer. `None` if there is no answer, or if the server is busy.
    pub(super) async fn request_head(&mut self) -> Option<EndpointHead> {
        self.report.waits_for("the MCP server");
        let url = self.server.url.as_str();
        let https = if self.server.url.url().scheme() == "https" {
            rules::MCP_HTTPS.pass("https, TLS 1.2 or newer, its certificate is trusted")
        } else {
            rules::MCP_HTTPS.pass("plain http on loopback, for development")
        };
        let knocked = match self.maker.discovery.request_head(self.ping(url)).await {
            Ok(knocked) => knocked,
            Err(error) => {
                self.not_reached(https, error);
                return None;
            }
        };
        self.report.push(https);
        self.saw_date(Party::McpServer, knocked.date);
        if matches!(knocked.status, 429 | 500..) {
            let error = busy(url, knocked.status);
            self.report.push(rules::MCP_REACHABLE.fail_with(&error));
            return None;
        }
        self.report.push(rules::MCP_REACHABLE.pass(format!("answers a POST with status {}", knocked.status)));
        self.report.push(rules::MCP_NO_REDIRECT.pass("no redirect"));
        let metadata_checks = challenge_checks(&knocked, &self.server.url);
        metadata_checks.into_iter().for_each(|check| self.report.push(check));
        Some(knocked)
    }

    /// Adds the failed check for a request without an answer: redirect, https, or reachability.
    fn not_reached(&mut self, https: Check, error: outbound::Error) {
        let redirected = matches!(error, outbound::Error::Redirect { .. });
        let insecure = matches!(
            error,
            outbound::Error::Insecure { .. }
                | outbound::Error::InsecureLoopback { .. }
                | outbound::Error::Certificate { .. }
        );
        let ours = matches!(
            error,
            outbound::Error::Forbidden { .. }
                | outbound::Error::NotAllowed { .. }
                | outbound::Error::InsecureLoopback { .. }
                | outbound::Error::Roots { .. }
                | outbound::Error::ThroughProxy { .. }
        );
        let error = Error::from(discovery::Error::Outbound { document: Document::Challenge, error });
        let rule = match (redirected, insecure) {
            (true, _) => &rules::MCP_NO_REDIRECT,
            (_, true) => &rules::MCP_HTTPS,
            _ => &rules::MCP_REACHABLE,
        };
        if redirected {
            self.report.push(https);
        }
        let check = rule.fail_with(&error);
        self.report.push(if ours { check.by(Party::Machine) } else { check });
    }
}

fn busy(url: &str, status: u16) -> Error {
    let host = crate::oauth::host_in(url);
    discovery::Error::Busy { document: Document::Challenge, host, status, retry_after: None }.into()
}

/// The checks of status and challenge. Only a 401 has a challenge to check.
fn challenge_checks(knocked: &EndpointHead, server: &ServerUrl) -> Vec<Check> {
    let status = match knocked.status {
        401 => rules::CHALLENGE_STATUS.pass("401 without a token"),
        status @ 200..=299 => rules::CHALLENGE_STATUS.fail(
            format!("a request without a token is let in (status {status})"),
            "answer 401 to every request without a valid token, `ping` and `initialize` included; if the server means to be open, it needs no token",
        ),
        403 => rules::CHALLENGE_STATUS.fail(
            "403 without a token, which tells a client that no token would help",
            "answer 401 with a challenge when the token is missing; 403 is for a token of too little scope",
        ),
        404 | 405 => rules::CHALLENGE_STATUS.fail(
            format!("{} without a token: no MCP endpoint answers POST at this URL", knocked.status),
            "check the URL: it is the MCP endpoint itself, often ending in /mcp",
        ),
        status => rules::CHALLENGE_STATUS.fail(
            format!("{status} without a token, where 401 is due"),
            "look for the token before anything else in the request",
        ),
    };
    let mut checks = vec![status];
    if knocked.status != 401 {
        return checks;
    }
    let Challenge { schemes, resource_metadata, .. } = &knocked.challenge;
    if schemes.is_empty() {
        checks.push(rules::CHALLENGE_HEADER.fail(
            "the 401 has no WWW-Authenticate that can be read",
            "send `WWW-Authenticate: Bearer resource_metadata=\"…\"` with every 401",
        ));
    } else {
        checks.push(rules::CHALLENGE_HEADER.pass("WWW-Authenticate is there and can be read"));
        checks.push(scheme(schemes));
    }
    checks.push(named_place(resource_metadata.as_deref(), server));
    checks
}

fn scheme(schemes: &[String]) -> Check {
    let is_ours = |scheme: &&String| ["bearer", "dpop"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    match schemes.iter().find(is_ours) {
        Some(scheme) => rules::CHALLENGE_SCHEME.pass(format!("scheme {}", quoted_words(scheme))),
        None => rules::CHALLENGE_SCHEME.fail(
            format!("only {} is offered", quoted_words(&schemes.join(", "))),
            "offer the scheme Bearer (or DPoP)",
        ),
    }
}

fn named_place(named: Option<&str>, server: &ServerUrl) -> Check {
    let rule = &rules::CHALLENGE_METADATA;
    let Some(named) = named else {
        return rule.warn(
            "the challenge has no `resource_metadata`; clients must guess the well-known place (both revisions allow it, if it is published there)",
            "name the document in the challenge: `WWW-Authenticate: Bearer resource_metadata=\"https://…/.well-known/oauth-protected-resource/…\"`",
        );
    };
    match ServerUrl::parse(named) {
        Err(why) => rule.fail(format!("`resource_metadata` cannot be used: {why}"), "give an absolute https URL"),
        Ok(url) if url.url().scheme() != server.url().scheme() && url.url().scheme() != "https" => {
            rule.fail("`resource_metadata` is not https", "serve the document over https")
        }
        Ok(url) if !url.same_origin(server) => rule.warn(
            format!("`resource_metadata` lies on another origin: {}", quoted_words(named)),
            "serve it on the MCP server's own origin; clients may refuse others",
        ),
        Ok(_) => rule.pass(format!("`resource_metadata` is {}", quoted_words(named))),
    }
}
