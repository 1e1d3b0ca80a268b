//! MCP servers and authorization servers as they are: what real ones were seen to publish and to answer, as data in
//! `tests/servers.toml`. Each case runs as `token` and as `doctor`, which must agree.
//!
//! Placeholders: `<<mcp>>` and `<<as>>` (the origins of the scripted servers), `<<issuer>>` (an authorization server that verifies),
//! `<<metadata>>` (good resource metadata as JSON).

use std::collections::BTreeMap;

use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::json;
use support::listener::Bound;
use support::scene::{SCOPES, Scene};
use support::scripted::{Page, Scripted};

use crate::binary;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    /// The path of the MCP server.
    #[serde(default = "mcp")]
    path: String,
    /// The answers of the MCP server. Its endpoint answers 401 where nothing else is said.
    #[serde(default)]
    pages: BTreeMap<String, Page>,
    /// The answers of an authorization server. Without them one that verifies is there.
    #[serde(default)]
    server: BTreeMap<String, Page>,
    /// Keys of the server in the configuration; without them there is none.
    keys: Option<String>,
    /// The exit code of `token`; 0 means a token.
    #[serde(default)]
    exit: i32,
    /// Parts of what `token` says.
    #[serde(default)]
    says: Vec<String>,
    /// What it must not say.
    #[serde(default)]
    never: Vec<String>,
    /// A check of `doctor` that must be there, as `CODE STATE PARTY`.
    check: Option<String>,
}

fn mcp() -> String {
    "/mcp".to_owned()
}

fn cases() -> Vec<Case> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Cases {
        case: Vec<Case>,
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers.toml");
    let text = std::fs::read_to_string(path).expect("the cases are there");
    toml::from_str::<Cases>(&text).unwrap_or_else(|error| panic!("{error}")).case
}

/// Runs one case. Fails with what differs.
async fn run(case: Case) -> Result<(), String> {
    let scene = Scene::new(binary()).await;
    let (mcp, server) = (Bound::new(None).await, Bound::new(None).await);
    let url = format!("{}{}", mcp.base(), case.path);
    let issuer = scene.authorization_server.issuer();
    scene.authorization_server.register(&url, &SCOPES);
    let metadata = json!({"resource": url, "authorization_servers": [issuer], "scopes_supported": SCOPES}).to_string();
    let (mcp_base, as_base) = (mcp.base().to_owned(), server.base().to_owned());
    let fill = |text: &str| {
        let text = text.replace("<<metadata>>", &metadata).replace("<<mcp>>", &mcp_base).replace("<<as>>", &as_base);
        text.replace("<<issuer>>", &issuer)
    };
    let filled = |pages: &BTreeMap<String, Page>| -> BTreeMap<String, Page> {
        let page = |page: &Page| {
            let headers = page.headers.iter().map(|(name, value)| (name.clone(), fill(value))).collect();
            Page { status: page.status, headers, body: fill(&page.body) }
        };
        pages.iter().map(|(path, one)| (path.clone(), page(one))).collect()
    };
    let mut pages = filled(&case.pages);
    pages.entry(case.path.clone()).or_insert_with(|| Page {
        status: 401,
        headers: BTreeMap::from([("www-authenticate".to_owned(), "Bearer".to_owned())]),
        body: String::new(),
    });
    let _servers = (Scripted::serve(mcp, pages), Scripted::serve(server, filled(&case.server)));
    let keys = case.keys.as_deref().map(fill).unwrap_or_default();
    let config = format!("[egress]\ninsecure_loopback = true\n\n[servers.demo]\nurl = \"{url}\"\n{keys}\n");
    let safeconduct = scene.safeconduct.clone().config(&config);

    let token = safeconduct.run(&["token", "demo", "--timeout", "8s"]).await;
    let said = format!("exit {:?}: {}", token.code, token.stderr);
    let wrong = case.says.iter().find(|part| !token.stderr.contains(&fill(part)));
    let untrue = case.never.iter().find(|part| token.stderr.contains(&fill(part)));
    if token.code != Some(case.exit)
        || token.stdout.is_empty() != (case.exit != 0)
        || wrong.is_some()
        || untrue.is_some()
    {
        return Err(format!("{said} (missing: {wrong:?}, untrue: {untrue:?})"));
    }
    let doctor = safeconduct.run(&["doctor", "demo", "--json"]).await;
    let report: serde_json::Value =
        serde_json::from_str(&doctor.stdout).map_err(|error| format!("{error}: {}", doctor.stdout))?;
    let checks = report["checks"].as_array().cloned().unwrap_or_default();
    let issued = checks.iter().any(|check| check["code"] == "token-issued" && check["state"] == "pass");
    if issued != (case.exit == 0) {
        return Err(format!("doctor and token do not agree: {said} {report:#}"));
    }
    let is_there = |wanted: &String| {
        let line = |check: &serde_json::Value| {
            ["code", "state", "party"].map(|key| check[key].as_str().unwrap_or_default().to_owned()).join(" ")
        };
        checks.iter().any(|check| line(check) == *wanted)
    };
    match &case.check {
        Some(wanted) if !is_there(wanted) => Err(format!("doctor has no {wanted:?}: {report:#}")),
        _ => Ok(()),
    }
}

#[tokio::test]
async fn real_servers_are_taken_as_they_are() {
    let cases = cases();
    assert!(cases.len() > 30, "the cases are not where they were");
    let outcomes = futures_util::stream::iter(cases).map(|case| async move {
        let name = case.name.clone();
        run(case).await.map_err(|why| format!("* {name}: {why}"))
    });
    let wrong: Vec<String> = outcomes.buffer_unordered(8).filter_map(async |outcome| outcome.err()).collect().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
