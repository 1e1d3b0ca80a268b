//! `POST /oauth/token` on loopback: a token endpoint for clients that speak OAuth only (RFC 6749 sections 4.4, 5.1 and 5.2).

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::unistd::geteuid;
use serde_json::{Value, json};
use support::fault::Fault;
use support::leak;
use support::safeconduct::Daemon;
use support::scene::Scene;
use support::tcp_http::Loopback;
use support::unix_http::Reply;

use crate::{LIMIT, binary};

const ENDPOINT: &str = "[listen]\nhttp = \"127.0.0.1:0\"\noauth_token = true";

/// A daemon with the endpoint, and the client of its server.
struct World {
    scene: Scene,
    daemon: Daemon,
    loopback: Loopback,
    secret: String,
}

impl World {
    async fn new(more: &str) -> Self {
        let scene = Scene::new(binary()).await;
        let daemon = scene.daemon(&format!("{more}\n{ENDPOINT}")).await;
        let loopback = Loopback::of(&daemon).await;
        let secret = secret(&file(&daemon, "demo"));
        Self { scene, daemon, loopback, secret }
    }

    /// Posts a form.
    async fn post(&self, fields: &str, form: &str) -> Reply {
        self.send("/oauth/token", &format!("content-type: application/x-www-form-urlencoded\r\n{fields}"), form).await
    }

    async fn send(&self, target: &str, fields: &str, body: &str) -> Reply {
        let request = format!(
            "POST {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{fields}content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let reply = self.loopback.exchange(&request).await;
        assert_eq!(reply.header("cache-control"), Some("no-store"), "{}", reply.body);
        reply
    }

    fn basic(&self, name: &str) -> String {
        basic(name, &self.secret)
    }

    fn form(&self, more: &str) -> String {
        format!("grant_type=client_credentials&client_id=demo&client_secret={}{more}", self.secret)
    }
}

fn basic(name: &str, secret: &str) -> String {
    format!("authorization: Basic {}\r\n", STANDARD.encode(format!("{name}:{secret}")))
}

fn file(daemon: &Daemon, name: &str) -> PathBuf {
    daemon.socket().with_file_name("oauth").join(format!("{name}.json"))
}

fn secret(file: &std::path::Path) -> String {
    let text = std::fs::read_to_string(file).expect("it is ours to read");
    let json: Value = serde_json::from_str(&text).expect("JSON");
    let secret = json["client_secret"].as_str().expect("a text").to_owned();
    // From now on no log and no answer may contain it.
    leak::minted(&secret);
    secret
}

/// An error of RFC 6749 section 5.2, and nothing beside its members.
#[track_caller]
fn refused(reply: &Reply, status: u16, error: &str) {
    let json = reply.json();
    assert_eq!((reply.status, json["error"].as_str()), (status, Some(error)), "{}", reply.body);
    let members: Vec<&str> = json.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(members, ["error", "error_description"]);
    let words = json["error_description"].as_str().expect("a text");
    assert!(words.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\'), "{words}");
    let asks = reply.header("www-authenticate");
    assert_eq!(asks.is_some_and(|asks| asks.starts_with("Basic ")), status == 401, "{asks:?}");
    assert_eq!(reply.header("retry-after").is_some(), status == 503);
}

#[tokio::test]
async fn an_oauth_client_gets_the_token_of_its_server() {
    let own = geteuid().as_raw();
    let world = World::new(&format!("allow = [{{ uid = {own} }}]")).await;
    let by_form = world.post("", &world.form("")).await;
    assert_eq!(by_form.status, 200, "{}", by_form.body);
    let token = world.daemon.token("demo").await;
    let answer = by_form.json();
    assert_eq!((&answer["access_token"], &answer["token_type"]), (&json!(token), &json!("Bearer")));
    assert!(answer["expires_in"].is_u64() && answer["scope"].is_string(), "{answer}");
    let by_basic = world.post(&world.basic("demo"), "grant_type=client_credentials&client_id=demo").await;
    assert_eq!(by_basic.json()["access_token"], json!(token));
    let resource = format!("&scope=demo%3Aread&resource={}&unknown=x", world.scene.mcp.url());
    let narrow = world.post("", &world.form(&resource)).await;
    assert_eq!((narrow.status, &narrow.json()["scope"]), (200, &json!("demo:read")), "{}", narrow.body);
    let callers = world.daemon.get("/v1/status").await.json()["servers"][0]["callers"].clone();
    assert_eq!(callers, json!([{"uid": own, "served": 4}]), "the owner of the socket is the caller");
    world.daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn what_is_wrong_is_said_in_the_words_of_rfc_6749() {
    let world = World::new("scopes = [\"demo:read\"]").await;
    let (secret, basic) = (&world.secret, world.basic("demo"));
    let good = "grant_type=client_credentials";
    let other = "x".repeat(secret.len());
    for (fields, form, status, error) in [
        ("", "client_id=demo".to_owned(), 401, "invalid_client"),
        ("", good.to_owned(), 401, "invalid_client"),
        ("", format!("{good}&client_id=demo&client_secret={other}"), 401, "invalid_client"),
        ("", format!("{good}&client_id=other&client_secret={secret}"), 401, "invalid_client"),
        ("", format!("{good}&client_id=demo&client_secret={}", world.loopback.secret), 401, "invalid_client"),
        (&*self::basic("demo", &other), good.to_owned(), 401, "invalid_client"),
        ("authorization: Basic !\r\n", good.to_owned(), 401, "invalid_client"),
        (&*format!("authorization: Bearer {}\r\n", world.loopback.secret), good.to_owned(), 401, "invalid_client"),
        (&*basic, format!("{good}&client_secret={secret}"), 400, "invalid_request"),
        (&*basic, format!("{good}&client_id=other"), 400, "invalid_request"),
        (&*format!("{basic}{basic}"), good.to_owned(), 400, "invalid_request"),
        (&*basic, format!("{good}&{good}"), 400, "invalid_request"),
        (&*basic, "scope=demo%3Aread".to_owned(), 400, "invalid_request"),
        (&*basic, format!("{good}&x={}", "x".repeat(20_000)), 400, "invalid_request"),
        (&*basic, "grant_type=refresh_token".to_owned(), 400, "unsupported_grant_type"),
        (&*basic, format!("{good}&scope=%22"), 400, "invalid_scope"),
        (&*basic, format!("{good}&scope=demo%3Awrite"), 400, "invalid_scope"),
        (&*basic, format!("{good}&resource=https%3A%2F%2Fmcp.example.com"), 400, "invalid_target"),
        (&*basic, format!("{good}&resource=demo"), 400, "invalid_target"),
    ] {
        let reply = world.post(fields, &form).await;
        refused(&reply, status, error);
    }
    let with_query = world.send(&format!("/oauth/token?{good}"), &basic, "").await;
    refused(&with_query, 400, "invalid_request");
    for media in ["application/json", "text/plain", "multipart/form-data; boundary=x"] {
        let reply = world.send("/oauth/token", &format!("{basic}content-type: {media}\r\n"), good).await;
        refused(&reply, 400, "invalid_request");
    }
    assert_eq!(world.loopback.get("/oauth/token").await.status, 405);
    assert_eq!(world.scene.authorization_server.token_requests(), 0);
    world.daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn a_page_in_a_browser_reaches_no_token_endpoint() {
    let world = World::new("").await;
    for field in
        ["origin: https://evil.example\r\n", "referer: https://evil.example/\r\n", "sec-fetch-site: none-such\r\n"]
    {
        let reply = world.post(field, &world.form("")).await;
        assert_eq!((reply.status, reply.header("www-authenticate")), (403, None), "{field}");
    }
    world.daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn a_client_whose_user_no_rule_names_is_unauthorized_and_so_is_a_bound_token() {
    let world = World::new(&format!("allow = [{{ uid = {} }}]", geteuid().as_raw() + 1)).await;
    refused(&world.post("", &world.form("")).await, 400, "unauthorized_client");
    assert_eq!(world.scene.authorization_server.token_requests(), 0);
    world.daemon.stop().await.expect_code(0);
    let world = World::new("dpop = true").await;
    refused(&world.post("", &world.form("")).await, 400, "unauthorized_client");
    world.daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn an_issuer_that_is_away_is_temporarily_unavailable() {
    let world = World::new("").await;
    world.scene.authorization_server.always_token(Fault::Status(503));
    refused(&world.post("", &world.form("")).await, 503, "temporarily_unavailable");
    world.daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn each_server_has_a_secret_of_its_own_that_comes_and_goes_with_it() {
    let scene = Scene::new(binary()).await;
    let more = |name: &str| {
        let (url, issuer) = (scene.mcp.url(), scene.authorization_server.issuer());
        format!("{ENDPOINT}\n[servers.{name}]\nurl = \"{url}/{name}\"\nissuer = \"{issuer}\"\n")
    };
    let world = scene.configured(&more("second"));
    let daemon = world.daemon(&[]).await;
    let (first, second) = (file(&daemon, "demo"), file(&daemon, "second"));
    assert_eq!(std::fs::metadata(&first).expect("there").mode() & 0o7777, 0o600);
    let (of_first, of_second) = (secret(&first), secret(&second));
    assert_ne!(of_first, of_second);
    let third = file(&daemon, "third");
    world.rewrite_config(&scene.config(&more("third")));
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    support::wait::until(LIMIT, "the reload", async || third.exists() && !second.exists()).await;
    assert_eq!(secret(&first), of_first, "a reload keeps it");
    daemon.stop().await.expect_code(0);
    assert!(!first.exists() && !third.exists());
    let daemon = world.daemon(&[]).await;
    assert_ne!(secret(&first), of_first, "a start makes a new one");
    daemon.stop().await.expect_code(0);
}
