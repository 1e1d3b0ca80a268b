//! Checks of the resource metadata (RFC 9728), and the choice of the authorization server.

use futures_util::future::join_all;
use serde_json::Value;

use super::super::flight::{confirmed, listed};
use super::super::{Class, Error, ResourceParameter};
use super::check::Rule;
use super::{Check, ExaminationRun, Party, rules};
use crate::discovery::{self, Document, FetchedDocument, Oddity, Protection, ResourceMetadata, Search, confirms};
use crate::exchange::IssuerOrigin;
use crate::oauth::{Challenge, Issuer, Resource, ServerUrl, quoted_words};

impl ExaminationRun<'_> {
    /// Fetches and checks the resource metadata. `None` if it cannot be used and no issuer is pinned, or if it is for
    /// another resource.
    pub(super) async fn protection(&mut self, challenge: Option<Challenge>) -> Option<Protection> {
        self.report.waits_for("the resource metadata");
        let challenge = challenge.unwrap_or_default();
        let mut search = Search::of(Document::Resource);
        let places = search.places(&challenge, &self.server.url);
        let seen = join_all(places.iter().map(|place| self.see(place))).await;
        let without = Protection { challenge_scopes: challenge.scopes.clone(), ..Protection::default() };
        let mut weighed = places.iter().zip(&seen).map(|(place, seen)| {
            search
                .resource(seen, place, &self.server.url)
                .map(|found| Some((seen, found?)))
                .map_err(|error| (seen, error))
        });
        let (found, metadata) = match weighed.find_map(Result::transpose) {
            Some(Ok(found)) => found,
            Some(Err((_, error @ discovery::Error::ResourceMismatch { .. }))) if self.says_what_is_sent() => {
                self.report.push(rules::RESOURCE_IDENTIFIER.warn(
                    format!("{error}; `resource` is configured, so that is sent"),
                    "its operator should fix `resource`: other clients refuse the document",
                ));
                return Some(without);
            }
            Some(Err((_, error @ discovery::Error::ResourceMismatch { .. }))) => {
                self.report.push(rules::RESOURCE_IDENTIFIER.fail_with(&error.into()));
                return None;
            }
            Some(Err((_, error))) => {
                self.report.push(by_its_party(&rules::RESOURCE_METADATA, &error.into()));
                // With a pinned issuer the resource metadata may be missing.
                return self.server.order.issuer().is_some().then_some(without);
            }
            None => {
                drop(weighed);
                self.nothing_published(search.nowhere(&self.server.url.to_string()), &seen);
                return self.server.order.issuer().is_some().then_some(without);
            }
        };
        self.report.push(published(found, &seen, challenge.resource_metadata.as_deref()));
        self.report.push(rules::RESOURCE_DOCUMENT.pass("200, application/json, an object with `resource`"));
        let document = found.json().unwrap_or_default();
        self.places_agree(found, &document, &seen);
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
        self.report.push(bearer_methods(&document));
        self.dpop_required = document["dpop_bound_access_tokens_required"] == true;
        Some(Protection { metadata: Some(metadata), ..without })
    }

    /// Does the configuration say who is asked and for what, so that the document's own `resource` does not count?
    fn says_what_is_sent(&self) -> bool {
        self.server.order.issuer().is_some() && self.server.order.resource != ResourceParameter::FromMetadata
    }

    /// Asks the well-known place of a resource above the server's URL whether it says the same, as discovery does.
    async fn confirmed(&self, metadata: ResourceMetadata) -> ResourceMetadata {
        let Some(place) = &metadata.confirm_at else { return metadata };
        let own = confirms(&self.see(place).await, place, &metadata.resource, &self.server.url);
        own.ok().flatten().unwrap_or(metadata)
    }

    async fn see(&self, place: &ServerUrl) -> FetchedDocument {
        let (discovery, origins) = (&self.maker.discovery, self.server.origins());
        discovery.see_with(place.as_str(), &origins, self.pass_for(place.as_str())).await
    }

    /// Adds the failed check for metadata that was found nowhere, with every place that was tried.
    fn nothing_published(&mut self, error: discovery::Error, seen: &[FetchedDocument]) {
        let all: Vec<String> = seen.iter().map(ToString::to_string).collect();
        let rule = match &error {
            discovery::Error::Unusable { why: Oddity::Content(_), place, .. } => {
                self.report.push(rules::RESOURCE_METADATA.pass(format!("published at {place}")));
                &rules::RESOURCE_DOCUMENT
            }
            _ => &rules::RESOURCE_METADATA,
        };
        let check = by_its_party(rule, &error.into());
        let what = format!("{}; asked were: {}", check.what, all.join("; "));
        self.report.push(Check { what, ..check });
    }

    /// Warns if another place names other authorization servers for the same resource.
    fn places_agree(&mut self, found: &FetchedDocument, document: &Value, seen: &[FetchedDocument]) {
        let differs = |other: &&FetchedDocument| {
            other.url != found.url
                && other.json().is_some_and(|other| {
                    ["resource", "authorization_servers"].iter().any(|key| other[*key] != document[*key])
                })
        };
        // Another place may describe another server on the same origin. Only documents with the same `resource` must
        // agree.
        let same =
            |other: &&FetchedDocument| other.json().is_some_and(|other| other["resource"] == document["resource"]);
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

/// The check of the place where the document was found.
fn published(found: &FetchedDocument, seen: &[FetchedDocument], named: Option<&str>) -> Check {
    let also = seen.iter().filter(|other| other.is_there() && other.url != found.url).count();
    let more = if also > 0 { format!(" and at {also} further place(s)") } else { String::new() };
    let published = format!("published at {}{more}", quoted_words(&found.url));
    match named {
        Some(named) if named != found.url => rules::RESOURCE_METADATA.warn(
            format!("{published}, and not where the challenge says: {}", quoted_words(named)),
            "name the right place in the challenge as `resource_metadata`: many clients look nowhere else",
        ),
        _ => rules::RESOURCE_METADATA.pass(published),
    }
}

/// The failed check of an error that names its party itself.
fn by_its_party(rule: &Rule, error: &Error) -> Check {
    rule.fail_with(error).by(error.party())
}

fn identifier(resource: &Resource, server: &ServerUrl) -> Check {
    if resource.as_str() == server.as_str() {
        return rules::RESOURCE_IDENTIFIER.pass("`resource` is the server's URL, byte for byte");
    }
    rules::RESOURCE_IDENTIFIER.warn(
        format!("`resource` is {}, not byte for byte {server}; it is sent as it stands", quoted_words(resource.as_str())),
        "use one spelling: strict clients refuse a `resource` that is not the URL they asked; configure the URL as the server names itself, or fix `resource`",
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
