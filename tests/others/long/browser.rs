//! A hostile page in Chromium: it reads nothing from the loopback listener, and causes nothing at the MCP server or the issuer. It
//! even knows the listener's secret.
//!
//! The page comes from another origin of this machine, once as a public address (so that the browser's own guard of private
//! networks acts) and once as a local one (so that it does not), and, for DNS rebinding, from a name that is the attacker's address at
//! first and the listener's afterwards.

use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::fakes::scene::Scene;
use crate::fakes::tcp_http::Loopback;
use crate::process::{LIMIT, Running, SAFECONDUCT};

const PAGE: &str = include_str!("hostile.html");

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_origin_reads_and_causes_nothing() {
    for space in ["public", "local"] {
        attacked("127.0.0.1:0", space).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_whose_name_is_rebound_to_the_listener_reads_and_causes_nothing() {
    // The same port, on another address: the page and the listener are one origin.
    attacked("127.0.0.2", "local").await;
}

async fn attacked(from: &str, space: &str) {
    let scene = Scene::new(SAFECONDUCT).await;
    let daemon = scene.daemon("[listen]\nhttp = \"127.0.0.1:0\"").await;
    let Loopback { address, secret } = Loopback::of(&daemon).await;
    let rebinds = !from.contains(':');
    let bound = if rebinds { format!("{from}:{}", address.port()) } else { from.to_owned() };
    let listener = TcpListener::bind(bound).await.expect("the attacker has an address");
    let page = listener.local_addr().expect("it is bound");
    let configuration =
        json!({ "proxy": address.to_string(), "port": address.port(), "secret": secret, "own": rebinds });
    let text = PAGE.replace("CONFIGURATION", &configuration.to_string());
    let (send, reports) = channel();
    tokio::spawn(attacker(listener, text, rebinds.then_some(address.to_string()), send));
    let url = format!("http://hostile.example:{}/page", page.port());
    let space = format!("{page}={space}");
    let rules = format!("MAP hostile.example {}, MAP rebound.example 127.0.0.1", page.ip());
    let report = tokio::task::spawn_blocking(move || {
        let home = TempDir::new().expect("a temporary folder can be made");
        let _browser = browser(&home, &url, &rules, &space);
        wait(&reports)
    });
    let report = report.await.expect("the browser ran");
    harmless(&report, rebinds, &secret);
    assert_eq!(scene.mcp.seen().len(), 0, "nothing reached the MCP server");
    assert_eq!(scene.authorization_server.token_requests(), 0, "nobody asked for a token");
    // The daemon still serves its own clients.
    assert!(!daemon.token("demo").await.is_empty());
    daemon.stop().await.expect_code(0);
}

/// What the page could do.
fn harmless(report: &Value, rebinds: bool, secret: &str) {
    let read = report["read"].as_array().expect("a list");
    assert!(report["tried"].as_u64().is_some_and(|tried| tried > 80), "the page did not do its work: {report}");
    // A page of another origin reads nothing at all; a rebound one can only read that it is refused.
    assert!(rebinds || read.is_empty(), "it read {read:?}");
    assert!(!rebinds || read.len() > 20, "a rebound page reads refusals: {read:?}");
    for answer in read {
        assert_eq!(answer["status"], 403, "{answer}");
        assert!(!answer.to_string().contains(&secret[..16]), "{answer}");
    }
    let opened = report["opened"].as_array().expect("a list");
    assert!(opened.is_empty(), "it opened {opened:?}");
}

fn wait(reports: &Receiver<Value>) -> Value {
    reports.recv_timeout(LIMIT).expect("the page reports in time")
}

fn browser(home: &TempDir, url: &str, rules: &str, space: &str) -> Running {
    let mut command = Command::new("chromium-headless-shell");
    // As root there is no sandbox; the page is ours.
    command.args(["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-port=0"]);
    command.arg(format!("--user-data-dir={}", home.path().display()));
    command.arg(format!("--host-resolver-rules={rules}")).arg(format!("--ip-address-space-overrides={space}"));
    command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Running(command.spawn().expect("chromium-headless-shell is missing: run tests/others/install-long"))
}

/// Serves the page and takes its report. `then` is where its name points to afterwards: every other connection goes there.
async fn attacker(listener: TcpListener, page: String, then: Option<String>, reports: Sender<Value>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(connection(stream, page.clone(), then.clone(), reports.clone()));
    }
}

async fn connection(mut stream: TcpStream, page: String, then: Option<String>, reports: Sender<Value>) {
    let mut request = Vec::new();
    let end = loop {
        if let Some(at) = request.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if read(&mut stream, &mut request).await == 0 {
            return;
        }
    };
    let head = String::from_utf8_lossy(&request[..end]).into_owned();
    if head.starts_with("POST /report ") {
        let length =
            head.to_ascii_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        while request.len() < end + length.unwrap_or(0) && read(&mut stream, &mut request).await > 0 {}
        // The test has ended if nobody takes it.
        let _ = reports.send(serde_json::from_slice(&request[end..]).expect("the page reports JSON"));
    } else if let (Some(then), false) = (then, head.starts_with("GET /page ")) {
        let mut there = TcpStream::connect(then).await.expect("the daemon listens");
        there.write_all(&request).await.expect("it reads");
        // A connection that breaks off is closed at the other side too.
        let _ = tokio::io::copy_bidirectional(&mut stream, &mut there).await;
        return;
    }
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{page}",
        page.len()
    );
    // The browser may have gone.
    let _ = stream.write_all(answer.as_bytes()).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
}

async fn read(stream: &mut TcpStream, to: &mut Vec<u8>) -> usize {
    let mut piece = [0; 16 * 1024];
    let read = stream.read(&mut piece).await.unwrap_or(0);
    to.extend_from_slice(&piece[..read]);
    read
}
