//! Who asks on loopback without the secret: the user that owns the connecting socket, at `/mcp/NAME` alone.
//!
//! Root can give a socket to another user (fchown(2)), so the tests need no process of that user. Without root they try less.

use std::net::SocketAddr;
use std::os::fd::AsFd;

use nix::unistd::{Uid, fchown, geteuid};
use serde_json::json;
use support::scene::Scene;
use support::tcp_http::Loopback;
use support::unix_http::{self, Reply};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{LIMIT, binary};

const ON_LOOPBACK: &str = "[listen]\nhttp = \"localhost:0\"";
const SOMEBODY: u32 = 54_321;
const NOBODY: u32 = 54_322;
/// What users of another namespace have.
const OVERFLOW: u32 = 65_534;

/// A connection whose socket belongs to this user. Only root can make one for another.
async fn connected_as(uid: u32, address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).await.expect("it listens");
    if uid != geteuid().as_raw() {
        fchown(stream.as_fd(), Some(Uid::from_raw(uid)), None).expect("we are root");
    }
    stream
}

async fn exchange(mut stream: TcpStream, request: &str) -> Reply {
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = Vec::new();
    tokio::time::timeout(LIMIT, stream.read_to_end(&mut answer)).await.expect("in time").expect("it answers");
    unix_http::parse(&answer).expect("HTTP")
}

fn post(path: &str, fields: &str) -> String {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}});
    let (body, head) =
        (body.to_string(), "content-type: application/json\r\naccept: application/json, text/event-stream");
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{head}\r\n{fields}content-length: {length}\r\n\r\n{body}"
    )
}

async fn asked_as(uid: u32, address: SocketAddr, path: &str) -> u16 {
    exchange(connected_as(uid, address).await, &post(path, "")).await.status
}

#[tokio::test]
async fn a_client_that_has_only_a_url_is_known_by_the_owner_of_its_socket() {
    let (scene, own) = (Scene::new(binary()).await, geteuid().as_raw());
    let allow = format!("allow = [{{ uid = {own} }}, {{ uid = {SOMEBODY} }}, {{ uid = {OVERFLOW} }}]");
    let daemon = scene.daemon(&format!("{allow}\n{ON_LOOPBACK}")).await;
    let listen = support::tcp_http::listening(&daemon).await;
    let addresses = listen["http"].as_array().expect("a list").iter();
    let mut served = 0;
    for address in addresses.filter_map(|text| text.as_str()?.parse::<SocketAddr>().ok()) {
        assert_eq!(asked_as(own, address, "/mcp/demo").await, 200, "{address}");
        served += 1;
        if geteuid().is_root() {
            for uid in [SOMEBODY, OVERFLOW] {
                assert_eq!(asked_as(uid, address, "/mcp/demo").await, 200, "{uid} at {address}");
                served += 1;
            }
            assert_eq!(asked_as(NOBODY, address, "/mcp/demo").await, 404, "no rule names it");
        }
        assert_eq!(asked_as(own, address, "/mcp/other").await, 404);
    }
    let counted: u64 = daemon.get("/v1/status").await.json()["servers"][0]["callers"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|caller| caller["served"].as_u64())
        .sum();
    assert_eq!(counted, served);
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn the_owner_of_a_socket_gets_no_token_and_nothing_else_of_the_api() {
    let (scene, own) = (Scene::new(binary()).await, geteuid().as_raw());
    let daemon = scene.daemon(&format!("allow = [{{ uid = {own} }}]\n{ON_LOOPBACK}")).await;
    let loopback = Loopback::of(&daemon).await;
    for path in ["/v1/token?server=demo", "/v1/headers?server=demo", "/v1/status", "/readyz", "/metrics", "/mcp"] {
        let reply = loopback.get_with(path, "").await;
        assert!(matches!(reply.status, 403 | 404), "{path}: {}", reply.body);
    }
    // A credential that is shown and wrong is wrong, whoever owns the socket.
    let other = "x".repeat(loopback.secret.len());
    for fields in [format!("authorization: Bearer {other}\r\n"), "authorization: Basic eDp5\r\n".to_owned()] {
        let reply = loopback.exchange(&post("/mcp/demo", &fields)).await;
        assert_eq!(reply.status, 403, "{}", reply.body);
    }
    let right = format!("authorization: Bearer {}\r\n", loopback.secret);
    assert_eq!(loopback.exchange(&post("/mcp/demo", &right)).await.status, 200);
    for field in ["origin: https://evil.example", "sec-fetch-site: same-origin", "x-forwarded-for: 10.0.0.1"] {
        let reply = loopback.exchange(&post("/mcp/demo", &format!("{field}\r\n"))).await;
        assert_eq!(reply.status, 403, "{field}");
    }
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn root_and_the_overflow_user_count_only_where_a_rule_names_them() {
    if !geteuid().is_root() {
        return;
    }
    let scene = Scene::new(binary()).await;
    // The rule that stands for an omitted `allow` names nobody.
    let daemon = scene.daemon(ON_LOOPBACK).await;
    let address = Loopback::of(&daemon).await.address;
    assert_eq!(asked_as(0, address, "/mcp/demo").await, 404, "a forwarder runs as root too");
    assert_eq!(asked_as(OVERFLOW, address, "/mcp/demo").await, 404);
    daemon.stop().await.expect_code(0);
    let daemon = scene.daemon(&format!("allow = [{{ uid = {SOMEBODY} }}]\n{ON_LOOPBACK}")).await;
    let address = Loopback::of(&daemon).await.address;
    let asked = [SOMEBODY, 0, OVERFLOW].map(|uid| asked_as(uid, address, "/mcp/demo"));
    let [somebody, root, overflow] = asked;
    assert_eq!((somebody.await, root.await, overflow.await), (200, 404, 404));
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn a_user_that_a_reload_takes_out_is_refused_on_the_connection_that_it_has() {
    let (scene, own) = (Scene::new(binary()).await, geteuid().as_raw());
    let named = |uid| scene.config(&format!("allow = [{{ uid = {uid} }}]\n{ON_LOOPBACK}"));
    let world = scene.configured("").config(&named(own));
    let daemon = world.daemon(&[]).await;
    let address = Loopback::of(&daemon).await.address;
    let mut stream = connected_as(own, address).await;
    let kept = post("/mcp/demo", "").replace("connection: close\r\n", "");
    stream.write_all(kept.as_bytes()).await.expect("it reads");
    let mut first = [0; 12];
    stream.read_exact(&mut first).await.expect("it answers");
    assert_eq!(&first, b"HTTP/1.1 200");
    world.rewrite_config(&named(own + 1));
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    support::wait::until(LIMIT, "the new rules hold", async || asked_as(own, address, "/mcp/demo").await == 404).await;
    stream.write_all(post("/mcp/demo", "").as_bytes()).await.expect("it reads");
    let mut rest = String::new();
    tokio::time::timeout(LIMIT, stream.read_to_string(&mut rest)).await.expect("in time").expect("it answers");
    assert!(rest.contains("HTTP/1.1 404"), "{rest}");
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn where_owners_are_turned_off_the_secret_alone_opens_the_listener() {
    let (scene, own) = (Scene::new(binary()).await, geteuid().as_raw());
    let daemon = scene.daemon(&format!("allow = [{{ uid = {own} }}]\n{ON_LOOPBACK}\nhttp_owner = false")).await;
    let loopback = Loopback::of(&daemon).await;
    assert_eq!(asked_as(own, loopback.address, "/mcp/demo").await, 403);
    let right = format!("authorization: Bearer {}\r\n", loopback.secret);
    assert_eq!(loopback.exchange(&post("/mcp/demo", &right)).await.status, 200);
    daemon.stop().await.expect_code(0);
}
