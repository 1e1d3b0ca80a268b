//! Servers that are one resource: a token for one of them is good for the others, so they must allow the same callers.
//!
//! Two servers are one resource if they have the same URL or the same `resource`, or if the `resource` of one covers the URL of
//! the other. A file may name thousands of servers, so they are looked up by what they have in common and not compared in pairs.

use std::collections::{BTreeSet, HashMap};

use super::reader::Reader;
use crate::broker::{ResourceParameter, Server};
use crate::oauth::{Resource, ServerUrl};

/// Reports each server that allows other callers than a server before it that is the same resource.
pub(super) fn check(reader: &mut Reader<'_>, servers: &[Server]) {
    let mut found: BTreeSet<(usize, usize)> = BTreeSet::new();
    let (mut same, mut covering) = (Groups::new(servers), Groups::new(servers));
    for (at, server) in servers.iter().enumerate() {
        found.extend(same.others(&format!("url {}", server.url.normal()), at));
        same.add(format!("url {}", server.url.normal()), at);
        if let Some(resource) = fixed(server) {
            found.extend(same.others(&format!("resource {resource}"), at));
            same.add(format!("resource {resource}"), at);
            covered_by(resource).into_iter().for_each(|key| covering.add(key, at));
        }
    }
    for (at, server) in servers.iter().enumerate() {
        covers_of(&server.url).iter().for_each(|key| found.extend(covering.others(key, at)));
    }
    for (one, other) in found {
        let what = format!(
            "is one resource with servers.{}, but allows other callers: a token for one would be good for the other",
            servers[one].name
        );
        reader.problem(None, &format!("servers.{}", servers[other].name), what);
    }
}

fn fixed(server: &Server) -> Option<&Resource> {
    match &server.order.resource {
        ResourceParameter::Fixed(resource) => Some(resource),
        ResourceParameter::FromMetadata | ResourceParameter::Omitted => None,
    }
}

/// The keys under which a URL finds the resources that stand for it: itself, and its origin with every path above it.
fn covers_of(url: &ServerUrl) -> Vec<String> {
    let (origin, path) = (url.url().origin().ascii_serialization(), url.url().path().trim_end_matches('/'));
    let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
    let above = ends.map(|end| format!("below {origin}{}", &path[..end]));
    above.chain([format!("is {}", url.normal())]).collect()
}

/// The keys of a resource: those of the URLs that it stands for.
fn covered_by(resource: &Resource) -> Vec<String> {
    let Ok(url) = ServerUrl::parse(resource.as_str()) else { return Vec::new() };
    let origin = url.url().origin().ascii_serialization();
    let below = format!("below {origin}{}", url.url().path().trim_end_matches('/'));
    let exact = format!("is {}", url.normal());
    // With a query it stands for that one URL (`ServerUrl::covers`).
    if url.url().query().is_some() { vec![exact] } else { vec![exact, below] }
}

/// Servers by a key, of each key one for every list of allowed callers.
struct Groups<'a> {
    servers: &'a [Server],
    groups: HashMap<String, Vec<usize>>,
}

impl<'a> Groups<'a> {
    fn new(servers: &'a [Server]) -> Self {
        Self { servers, groups: HashMap::new() }
    }

    fn add(&mut self, key: String, at: usize) {
        let group = self.groups.entry(key).or_default();
        if !group.iter().any(|one| self.servers[*one].policy.allow == self.servers[at].policy.allow) {
            group.push(at);
        }
    }

    /// The first server of this key that allows other callers, with this one, in the order of the file.
    fn others(&self, key: &str, at: usize) -> Option<(usize, usize)> {
        let group = self.groups.get(key)?;
        let other = group.iter().find(|one| self.servers[**one].policy.allow != self.servers[at].policy.allow)?;
        Some((at.min(*other), at.max(*other)))
    }
}
