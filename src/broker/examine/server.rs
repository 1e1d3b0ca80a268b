//! The MCP endpoint without a token, its challenge, and the metadata of the resource (RFC 9728).

use futures_util::future::join_all;
use serde_json::Value;

use super::super::Error;
use super::super::flight::listed;
use super::{Check, Party, Walk, rules};
use crate::discovery::{self, Challenge, Knocked, Protection, Seen, ping, resource_metadata};
use crate::exchange::IssuerIs;
use crate::oauth::{Issuer, Resource, ServerUrl, quoted_words};
use crate::outbound;

const PLACE: &str = "the MCP server";

impl Walk<'_> {
    /// Asks without a token. `None` when nobody answered sensibly.
    pub(super) async fn knock(&mut self) -> Option<Knocked> {
        self.report.waits_for(PLACE);
        let url = self.server.url.as_str();
        let https = if self.server.url.url().scheme() == "https" {
            rules::MCP_HTTPS.pass("https, TLS 1.2 or newer, its certificate is trusted")
        } else {
            rules::MCP_HTTPS.pass("plain http on loopback, for development")
        };
        let knocked = match self.maker.discovery.knock(ping(url)).await {
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
        );
        let error = Error::from(discovery::Error::Outbound { place: PLACE, error });
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

    /// What the server says of its protection. `None` when what it says cannot be used.
    pub(super) async fn protection(&mut self, challenge: Option<Challenge>) -> Option<Protection> {
        self.report.waits_for("the resource metadata");
        let challenge = challenge.unwrap_or_default();
        let named = challenge.resource_metadata.as_deref();
        let mut urls: Vec<String> = named.map(str::to_owned).into_iter().collect();
        for place in Resource::metadata_urls(&self.server.url) {
            if !urls.contains(&place) {
                urls.push(place);
            }
        }
        let seen = join_all(urls.iter().map(|url| self.maker.discovery.see(url))).await;
        // A named place is the only one that counts, as for every client.
        let counts = if named.is_some() {
            seen.first().filter(|seen| seen.is_there())
        } else {
            seen.iter().find(|one| one.is_there())
        };
        let without = Protection { metadata: None, challenge_scopes: challenge.scopes.clone() };
        let Some(found) = counts else {
            self.nothing_published(named, &seen);
            // A pin needs no resource metadata.
            return self.server.issuer.is_some().then_some(without);
        };
        let also = seen.iter().filter(|other| other.is_there() && other.url != found.url).count();
        let more = if also > 0 { format!(" and at {also} further place(s)") } else { String::new() };
        self.report.push(rules::RESOURCE_METADATA.pass(format!("published at {}{more}", quoted_words(&found.url))));
        let Some(document) = self.document(found) else {
            return self.server.issuer.is_some().then_some(without);
        };
        self.places_agree(found, document, &seen);
        let metadata = match resource_metadata(document, &self.server.url) {
            Ok(metadata) => metadata,
            Err(error @ discovery::Error::ResourceMismatch { .. }) => {
                self.report.push(rules::RESOURCE_IDENTIFIER.fail_with(&error.into()));
                return None;
            }
            Err(error) => {
                self.report.push(rules::RESOURCE_DOCUMENT.fail_with(&error.into()));
                return self.server.issuer.is_some().then_some(without);
            }
        };
        self.report.push(identifier(&metadata.resource, &self.server.url));
        self.report.push(authorization_servers(&metadata.authorization_servers));
        self.report.push(scopes_published(&challenge, metadata.scopes_supported.is_some()));
        self.report.push(bearer_methods(document));
        self.dpop_required = document["dpop_bound_access_tokens_required"] == true;
        Some(Protection { metadata: Some(metadata), ..without })
    }

    fn nothing_published(&mut self, named: Option<&str>, seen: &[Seen]) {
        let all: Vec<String> = seen.iter().map(ToString::to_string).collect();
        let temporary = seen.iter().any(|one| match &one.answer {
            Ok(answered) => matches!(answered.status, 429 | 500..),
            Err(error) => error.is_temporary(),
        });
        let (what, cure) = match named {
            Some(_) => (
                format!("the challenge names a place where nothing is published: {}", all.join("; ")),
                "publish the document where `resource_metadata` says, or name the right place there",
            ),
            None => (
                format!("no protected resource metadata is published: {}", all.join("; ")),
                "publish RFC 9728 metadata at the path-inserted place and name it in the challenge as `resource_metadata`; \
                 until then pin the authorization server with `issuer`, or `--issuer URL`",
            ),
        };
        let check = rules::RESOURCE_METADATA.fail(what, cure);
        let check = if temporary { check.of(super::super::Class::Temporary) } else { check };
        let ours = seen.iter().any(|one| matches!(&one.answer, Err(outbound::Error::NotAllowed { .. })));
        self.report.push(if ours { check.by(Party::Machine).of(super::super::Class::Denied) } else { check });
    }

    fn document<'a>(&mut self, found: &'a Seen) -> Option<&'a Value> {
        let document = found.document().filter(|document| document.is_object());
        let check = match (&found.answer, document) {
            (_, Some(document)) if document["resource"].is_string() => {
                rules::RESOURCE_DOCUMENT.pass("200, application/json, an object with `resource`")
            }
            (_, Some(_)) => rules::RESOURCE_DOCUMENT
                .fail("the document has no `resource`", "add `resource`: the URL of the MCP server, exactly"),
            (Ok(answered), None) => {
                let what = answered.document.as_ref().err().copied().unwrap_or("the answer is not a JSON object");
                rules::RESOURCE_DOCUMENT.fail(what, "answer 200 with a JSON object as application/json")
            }
            (Err(error), None) => rules::RESOURCE_DOCUMENT.fail(error.to_string(), "answer 200 with a JSON object"),
        };
        let good = check.state == super::State::Pass;
        self.report.push(check);
        document.filter(|_| good)
    }

    fn places_agree(&mut self, found: &Seen, document: &Value, seen: &[Seen]) {
        let differs = |other: &&Seen| {
            other.url != found.url
                && other.document().is_some_and(|other| {
                    ["resource", "authorization_servers"].iter().any(|key| other[*key] != document[*key])
                })
        };
        // Another place may speak for another server of the same origin: only one for this very resource must agree.
        let same = |other: &&Seen| other.document().is_some_and(|other| other["resource"] == document["resource"]);
        if let Some(other) = seen.iter().filter(differs).find(same) {
            let what = format!("{} names other authorization servers", quoted_words(&other.url));
            self.report.push(
                rules::RESOURCE_PLACES
                    .warn(what, "publish the same document at every place: clients differ in where they look"),
            );
        }
    }

    /// Which authorization server the path would take.
    pub(super) fn issuer(&mut self, protection: &Protection) -> Option<(Issuer, IssuerIs)> {
        let chosen = match &self.server.issuer {
            Some(pinned) => listed(pinned, protection).map(|()| (pinned.clone(), IssuerIs::Pinned)),
            // What is missing was reported.
            None if protection.metadata.as_ref().is_none_or(|one| one.authorization_servers.is_empty()) => return None,
            None => self.maker.pick(self.server, protection),
        };
        match chosen {
            Ok((issuer, issuer_is)) => {
                let how = match issuer_is {
                    IssuerIs::Pinned => "pinned by the configuration",
                    IssuerIs::Listed => "on the operator's list",
                    IssuerIs::Discovered => "the only one that the server names",
                };
                self.report.push(rules::ISSUER_CHOSEN.pass(format!("{issuer}, {how}")));
                Some((issuer, issuer_is))
            }
            Err(error) => {
                let check = rules::ISSUER_CHOSEN.fail_with(&error);
                let ours = error.class() != super::super::Class::Refused;
                self.report.push(if ours { check.by(Party::Workload) } else { check });
                None
            }
        }
    }
}

fn busy(url: &str, status: u16) -> Error {
    let host = url::Url::parse(url).map(|url| crate::oauth::host_of(&url)).unwrap_or_default();
    discovery::Error::Busy { place: PLACE, host, status, retry_after: None }.into()
}

fn challenge_checks(knocked: &Knocked, server: &ServerUrl) -> Vec<Check> {
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

fn identifier(resource: &Resource, server: &ServerUrl) -> Check {
    if resource.as_str() == server.as_str() {
        return rules::RESOURCE_IDENTIFIER.pass("`resource` is the server's URL, byte for byte");
    }
    rules::RESOURCE_IDENTIFIER.warn(
        format!("`resource` is {}, not byte for byte {server}; it is sent as it stands", quoted_words(resource.as_str())),
        "use one spelling: strict clients refuse a `resource` that is not the URL they asked; configure the URL as the server names itself, or mend `resource`",
    )
}

fn authorization_servers(named: &[String]) -> Check {
    let rule = &rules::AUTHORIZATION_SERVERS;
    if named.is_empty() {
        return rule.fail(
            "`authorization_servers` is missing or empty",
            "list the issuer of every authorization server whose tokens are accepted",
        );
    }
    for one in named {
        let words = quoted_words(one);
        match Issuer::parse(one) {
            Err(why) => {
                return rule.fail(
                    format!("{words} cannot be an issuer: {why}"),
                    "list issuer identifiers: https, without query and fragment",
                );
            }
            Ok(_) if !is_secure(one) => {
                return rule.fail(format!("{words} is not https"), "authorization servers are https only");
            }
            Ok(_) => {}
        }
    }
    rule.pass(quoted_words(&named.join(", ")))
}

fn scopes_published(challenge: &Challenge, supported: bool) -> Check {
    match (&challenge.scopes, supported) {
        (Some(scopes), _) => rules::SCOPES_PUBLISHED.pass(format!("the challenge asks for {:?}", scopes.to_string())),
        (None, true) => rules::SCOPES_PUBLISHED.pass("`scopes_supported` lists them; the challenge has no `scope`"),
        (None, false) => rules::SCOPES_PUBLISHED.warn(
            "neither the challenge (`scope`) nor the metadata (`scopes_supported`) says which scopes are needed",
            "put `scope` into the challenge; until then name them with `scopes`, or `--scope`",
        ),
    }
}

fn bearer_methods(document: &Value) -> Check {
    let rule = &rules::BEARER_METHODS;
    let Some(listed) = document["bearer_methods_supported"].as_array() else {
        return rule.pass("`bearer_methods_supported` is not given; the header is usual");
    };
    let has = |method: &str| listed.iter().any(|one| one == method);
    match (has("header"), has("query")) {
        (false, _) => rule.fail(
            "`bearer_methods_supported` lacks \"header\"",
            "accept tokens in the Authorization header, and say so",
        ),
        (true, true) => {
            rule.warn("`bearer_methods_supported` lists \"query\"", "tokens in URLs end up in logs: take it out")
        }
        (true, false) => rule.pass("tokens go into the Authorization header"),
    }
}

/// https, or plain http on loopback, which egress rules then allow or not.
pub(super) fn is_secure(url: &str) -> bool {
    url::Url::parse(url).is_ok_and(|url| {
        let host = crate::oauth::host_of(&url);
        url.scheme() == "https" || ["localhost", "127.0.0.1", "[::1]"].contains(&host.as_str())
    })
}
