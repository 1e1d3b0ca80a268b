//! Checks of the resource metadata (RFC 9728), and the choice of the authorization server.

use futures_util::future::join_all;
use serde_json::Value;

use super::super::flight::{confirmed, listed};
use super::super::{Class, ResourceParameter};
use super::{Check, ExaminationRun, Party, State, rules};
use crate::discovery::{self, FetchedDocument, Protection, ResourceMetadata, resource_metadata};
use crate::exchange::IssuerOrigin;
use crate::oauth::{Challenge, Issuer, Resource, ServerUrl, quoted_words};
use crate::outbound;

impl ExaminationRun<'_> {
    /// Fetches and checks the resource metadata. `None` if it cannot be used and no issuer is pinned, or if it is for
    /// another resource.
    pub(super) async fn protection(&mut self, challenge: Option<Challenge>) -> Option<Protection> {
        self.report.waits_for("the resource metadata");
        let challenge = challenge.unwrap_or_default();
        let (place, refused_place) = match challenge.metadata_place() {
            Some(Err(why)) => (None, Some(why)),
            place => (place.and_then(Result::ok), None),
        };
        let named = place.as_ref().map(ServerUrl::as_str);
        let mut places: Vec<ServerUrl> = place.iter().cloned().collect();
        for place in Resource::metadata_urls(&self.server.url) {
            if places.iter().all(|known| known.as_str() != place.as_str()) {
                places.push(place);
            }
        }
        let seen = join_all(places.iter().map(|place| self.see(place))).await;
        // If the challenge names a place, only that place counts, as for every client.
        let mut answered = places.iter().zip(&seen);
        let is_there = |(_, seen): &(&ServerUrl, &FetchedDocument)| seen.is_there();
        let counts = if named.is_some() { answered.next().filter(is_there) } else { answered.find(is_there) };
        let without = Protection { metadata: None, challenge_scopes: challenge.scopes.clone(), refused_place };
        let Some((place, found)) = counts else {
            self.nothing_published(named, &seen);
            // With a pinned issuer the resource metadata may be missing.
            return self.server.order.issuer().is_some().then_some(without);
        };
        let also = seen.iter().filter(|other| other.is_there() && other.url != found.url).count();
        let more = if also > 0 { format!(" and at {also} further place(s)") } else { String::new() };
        self.report.push(rules::RESOURCE_METADATA.pass(format!("published at {}{more}", quoted_words(&found.url))));
        let Some(document) = self.document(found) else {
            return self.server.order.issuer().is_some().then_some(without);
        };
        self.places_agree(found, document, &seen);
        let metadata = match resource_metadata(document, place, &self.server.url) {
            Ok(metadata) => metadata,
            Err(error @ discovery::Error::ResourceMismatch { .. }) => {
                self.report.push(rules::RESOURCE_IDENTIFIER.fail_with(&error.into()));
                return None;
            }
            Err(error) => {
                self.report.push(rules::RESOURCE_DOCUMENT.fail_with(&error.into()));
                return self.server.order.issuer().is_some().then_some(without);
            }
        };
        let metadata = self.confirmed(metadata).await;
        if self.server.order.resource == ResourceParameter::FromMetadata
            && let Err(error) = confirmed(&metadata)
        {
            self.report.push(rules::RESOURCE_IDENTIFIER.fail_with(&error));
            return None;
        }
        self.report.push(identifier(&metadata.resource, &self.server.url));
        self.report.push(authorization_servers(&metadata.authorization_servers));
        self.report.push(scopes_published(&challenge, metadata.scopes_supported.is_some()));
        self.report.push(bearer_methods(document));
        self.dpop_required = document["dpop_bound_access_tokens_required"] == true;
        Some(Protection { metadata: Some(metadata), ..without })
    }

    /// Asks the well-known place of a resource above the server's URL whether it says the same, as discovery does.
    async fn confirmed(&self, metadata: ResourceMetadata) -> ResourceMetadata {
        let Some(place) = &metadata.confirm_at else { return metadata };
        let own = self.see(place).await;
        let own = own.document().filter(|own| own["resource"] == metadata.resource.as_str());
        own.and_then(|own| resource_metadata(own, place, &self.server.url).ok()).unwrap_or(metadata)
    }

    async fn see(&self, place: &ServerUrl) -> FetchedDocument {
        let (discovery, origins) = (&self.maker.discovery, self.server.origins());
        discovery.see(place.as_str(), &origins, self.pass_for(place.as_str())).await
    }

    /// Adds the failed check for metadata that was found nowhere, with every place that was tried.
    fn nothing_published(&mut self, named: Option<&str>, seen: &[FetchedDocument]) {
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
        let check = if temporary { check.of(Class::Temporary) } else { check };
        let ours = seen.iter().any(|one| matches!(&one.answer, Err(outbound::Error::NotAllowed { .. })));
        self.report.push(if ours { check.by(Party::Machine).of(Class::Denied) } else { check });
    }

    /// The document as JSON, if it has a `resource`. Adds the check for its form.
    fn document<'a>(&mut self, found: &'a FetchedDocument) -> Option<&'a Value> {
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
        let good = check.state == State::Pass;
        self.report.push(check);
        document.filter(|_| good)
    }

    /// Warns if another place names other authorization servers for the same resource.
    fn places_agree(&mut self, found: &FetchedDocument, document: &Value, seen: &[FetchedDocument]) {
        let differs = |other: &&FetchedDocument| {
            other.url != found.url
                && other.document().is_some_and(|other| {
                    ["resource", "authorization_servers"].iter().any(|key| other[*key] != document[*key])
                })
        };
        // Another place may describe another server on the same origin. Only documents with the same `resource` must
        // agree.
        let same =
            |other: &&FetchedDocument| other.document().is_some_and(|other| other["resource"] == document["resource"]);
        if let Some(other) = seen.iter().filter(differs).find(same) {
            let what = format!("{} names other authorization servers", quoted_words(&other.url));
            self.report.push(
                rules::RESOURCE_PLACES
                    .warn(what, "publish the same document at every place: clients differ in where they look"),
            );
        }
    }

    /// The authorization server that a flight would choose. `None` after a failure.
    pub(super) fn issuer(&mut self, protection: &Protection) -> Option<(Issuer, IssuerOrigin)> {
        let chosen = match self.server.order.issuer() {
            Some(pinned) => listed(pinned, protection).map(|()| (pinned.clone(), IssuerOrigin::Pinned)),
            // The missing metadata has been reported already.
            None if protection.metadata.as_ref().is_none_or(|one| one.authorization_servers.is_empty()) => return None,
            None => self.maker.pick(self.server, protection),
        };
        match chosen {
            Ok((issuer, issuer_is)) => {
                let how = match issuer_is {
                    IssuerOrigin::Pinned => "pinned by the configuration",
                    IssuerOrigin::Listed => "on the operator's list",
                    IssuerOrigin::Discovered => "the only one that the server names",
                };
                self.report.push(rules::ISSUER_CHOSEN.pass(format!("{issuer}, {how}")));
                Some((issuer, issuer_is))
            }
            Err(error) => {
                let check = rules::ISSUER_CHOSEN.fail_with(&error);
                let ours = error.class() != Class::Refused;
                self.report.push(if ours { check.by(Party::Workload) } else { check });
                None
            }
        }
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

/// True for https, and for http on loopback, which still needs the permission of the egress rules.
pub(super) fn is_secure(url: &str) -> bool {
    url::Url::parse(url).is_ok_and(|url| {
        let host = crate::oauth::host_of(&url);
        url.scheme() == "https" || ["localhost", "127.0.0.1", "[::1]"].contains(&host)
    })
}
