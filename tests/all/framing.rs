//! Requests that two programs could read differently: each row of `framing.toml` against every listener. A whole second
//! request follows each, with all that it needs to be served, and must not be answered.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use support::safeconduct::Daemon;
use support::scene::Scene;
use support::tcp_http::{self, Loopback};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::binary;

/// Longer than any answer takes, on any machine.
const LIMIT: Duration = Duration::from_secs(30);

const HOST: &str = "host: localhost\r\n";

#[derive(Deserialize)]
struct Table {
    refused: Vec<Refused>,
}

#[derive(Deserialize)]
struct Refused {
    name: String,
    bytes: String,
    /// Its head is good, so that it was begun before its body turned out to be malformed.
    #[serde(default)]
    begun: bool,
}

fn table() -> Vec<Refused> {
    toml::from_str::<Table>(include_str!("framing.toml")).expect("a table of requests").refused
}

/// All that is answered until the connection is closed, which it must be.
async fn answers(mut stream: impl AsyncRead + AsyncWrite + Unpin, name: &str, bytes: &[u8]) -> String {
    let mut text = Vec::new();
    let conversation = async {
        // It may have closed the connection before the end of what it does not read.
        let _ = stream.write_all(bytes).await;
        let mut piece = [0; 4_096];
        // What it did not read makes the end of the connection a reset.
        while let Ok(many @ 1..) = stream.read(&mut piece).await {
            text.extend_from_slice(&piece[..many]);
        }
    };
    tokio::time::timeout(LIMIT, conversation).await.unwrap_or_else(|_| panic!("{name}: the connection stays open"));
    String::from_utf8(text).expect("UTF-8")
}

/// The status of each answer. A body need not end its line.
fn statuses(answer: &str) -> Vec<&str> {
    let statuses = answer.split("HTTP/1.1 ").filter_map(|rest| rest.get(..3));
    statuses.filter(|status| status.bytes().all(|byte| byte.is_ascii_digit())).collect()
}

/// Refused with 400, or, where the request was begun, perhaps only closed; and nothing else is answered.
#[track_caller]
fn refused(row: &Refused, answer: &str) {
    let statuses = statuses(answer);
    assert!(statuses == ["400"] || (row.begun && statuses.is_empty()), "{}: {answer}", row.name);
    assert!(!answer.contains("access_token"), "{}: the second request was answered", row.name);
    assert!(row.begun || answer.contains("\"error\":\"invalid_request\""), "{}: {answer}", row.name);
    assert!(row.begun || answer.contains("connection: close"), "{}: {answer}", row.name);
}

/// The bytes of a row, with these lines after its host, and a second request behind them.
fn with_a_second(row: &Refused, lines: &str) -> Vec<u8> {
    let first = row.bytes.replacen(HOST, &format!("{HOST}{lines}"), 1);
    let second = format!("GET /v1/token?server=demo HTTP/1.1\r\n{HOST}{lines}connection: close\r\n\r\n");
    [first, second].concat().into_bytes()
}

async fn daemon(scene: &Scene) -> Daemon {
    let audit = scene.safeconduct.path().join("audit.jsonl");
    let more = format!(
        "[listen]\nhttp = \"127.0.0.1:0\"\nhealth = \"127.0.0.1:0\"\n[audit]\nfile = \"{}\"\n",
        audit.display()
    );
    scene.configured(&more).daemon(&[]).await
}

/// What the audit says of each refusal so far.
fn refusals(scene: &Scene) -> Vec<String> {
    let text = fs::read_to_string(scene.safeconduct.path().join("audit.jsonl")).expect("it is there");
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let refused = lines.filter(|line| line["outcome"] == "refused");
    refused.map(|line| format!("{} {} {}", line["action"], line["class"], line["error"]).replace('"', "")).collect()
}

#[tokio::test]
async fn malformed_requests_on_the_socket_are_refused_recorded_and_hide_no_second_one() {
    // Of more refusals in a second some would only be counted.
    for rows in table().chunks(20) {
        let scene = Scene::new(binary()).await;
        let daemon = daemon(&scene).await;
        for row in rows {
            let before = refusals(&scene).len();
            let stream = UnixStream::connect(daemon.socket()).await.expect("it listens");
            refused(row, &answers(stream, &row.name, &with_a_second(row, "")).await);
            let line =
                if row.begun { "reject bad_request invalid_request" } else { "gate bad_request malformed_request" };
            assert_eq!(refusals(&scene)[before..], [line], "{}", row.name);
        }
        assert_eq!(scene.authorization_server.token_requests(), 0);
        daemon.stop().await.expect_code(0);
    }
}

#[tokio::test]
async fn malformed_requests_on_loopback_are_refused_with_the_secret_and_without() {
    let scene = Scene::new(binary()).await;
    let daemon = daemon(&scene).await;
    let loopback = Loopback::of(&daemon).await;
    let secret = format!("authorization: Bearer {}\r\n", loopback.secret);
    for row in table() {
        let stream = TcpStream::connect(loopback.address).await.expect("it listens");
        refused(&row, &answers(stream, &row.name, &with_a_second(&row, &secret)).await);
        if !row.begun {
            let stream = TcpStream::connect(loopback.address).await.expect("it listens");
            refused(&row, &answers(stream, &row.name, &with_a_second(&row, "")).await);
        }
    }
    assert_eq!(scene.authorization_server.token_requests(), 0);
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn malformed_requests_on_the_health_listener_are_refused() {
    let scene = Scene::new(binary()).await;
    let daemon = daemon(&scene).await;
    let listen = tcp_http::listening(&daemon).await;
    let health: SocketAddr = listen["health"].as_str().and_then(|text| text.parse().ok()).expect("an address");
    for row in table().iter().filter(|row| !row.begun) {
        let bytes = [row.bytes.as_bytes(), b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"].concat();
        let stream = TcpStream::connect(health).await.expect("it listens");
        refused(row, &answers(stream, &row.name, &bytes).await);
    }
    assert!(refusals(&scene).is_empty(), "whoever reaches it cannot fill the audit");
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn what_comes_before_a_malformed_request_is_answered_first() {
    let scene = Scene::new(binary()).await;
    let daemon = daemon(&scene).await;
    let good = "GET /v1/token?server=demo HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let bytes = format!("{good}{good}GET /v1/token?server=demo HTTP/1.1\nhost: localhost\n\n{good}");
    let stream = UnixStream::connect(daemon.socket()).await.expect("it listens");
    let answer = answers(stream, "pipelined", bytes.as_bytes()).await;
    assert_eq!(statuses(&answer), ["200", "200", "400"]);
    assert_eq!(answer.matches("\"access_token\"").count(), 2);
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn a_head_that_is_too_large_is_told_so_and_recorded() {
    let scene = Scene::new(binary()).await;
    let daemon = daemon(&scene).await;
    for lines in [format!("x: {}\r\n", "y".repeat(100_000)), "x: y\r\n".repeat(20_000)] {
        let bytes = format!("GET /healthz HTTP/1.1\r\n{HOST}{lines}\r\n");
        let stream = UnixStream::connect(daemon.socket()).await.expect("it listens");
        let answer = answers(stream, "too large", bytes.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 431 ") && answer.contains("too large"), "{answer}");
    }
    assert_eq!(refusals(&scene), ["gate bad_request malformed_request"; 2]);
    daemon.stop().await.expect_code(0);
}
