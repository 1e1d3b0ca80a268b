//! The listeners besides the Unix socket, and how callers prove themselves there; unlisted servers; rate limits; the end of the
//! daemon.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getegid, geteuid};
use serde_json::json;
use support::authorization_server::FakeAs;
use support::fault::Fault;
use support::leak;
use support::mcp_server::FakeMcp;
use support::safeconduct::Daemon;
use support::scene::{SCOPES, Scene};
use support::tcp_http::{self, Loopback};
use support::unix_http;
use support::wait::until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::activated::{activated, ends};
use crate::exit::CONFIG;
use crate::{LIMIT, binary};

const ON_LOOPBACK: &str = "[listen]\nhttp = \"127.0.0.1:0\"";
const WITH_HEALTH: &str = "[listen]\nhealth = \"127.0.0.1:0\"";

async fn health_of(daemon: &Daemon) -> SocketAddr {
    let listen = tcp_http::listening(daemon).await;
    listen["health"].as_str().and_then(|text| text.parse().ok()).expect("it has a health listener")
}

// The API on loopback.

#[tokio::test]
async fn with_the_secret_loopback_serves_what_the_socket_serves() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon(ON_LOOPBACK).await;
    let loopback = Loopback::of(&daemon).await;
    let reply = loopback.get("/v1/token?server=demo").await;
    assert_eq!((reply.status, reply.header("cache-control")), (200, Some("no-store")));
    assert_eq!(reply.json()["access_token"], daemon.token("demo").await.as_str());
    for path in ["/v1/headers?server=demo", "/v1/status", "/readyz", "/metrics", "/healthz"] {
        assert_eq!(loopback.get(path).await.status, 200, "{path}");
    }
    let body = json!({"server": "demo"}).to_string();
    let revoke = format!(
        "POST /v1/revoke HTTP/1.1\r\nhost: localhost\r\nauthorization: bearer {}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        loopback.secret,
        body.len()
    );
    assert_eq!(loopback.exchange(&revoke).await.json()["revoked"], 1);
    let callers = daemon.get("/v1/status").await.json()["servers"][0]["callers"].clone();
    assert_eq!(callers, json!([{"uid": geteuid().as_raw(), "served": 3}]), "the secret says which user asks");
    let wrong = "authorization: Bearer x\r\n";
    assert_eq!(loopback.get_with("/mcp/demo", wrong).await.status, 403, "a wrong secret is none");
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn without_the_secret_loopback_serves_nothing_that_names_a_server() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon(&format!("required = true\n{ON_LOOPBACK}")).await;
    let loopback = Loopback::of(&daemon).await;
    daemon.run(&["ready", "--wait", "10s"]).await.expect_code(0);
    let secret = &loopback.secret;
    let other = "x".repeat(secret.len());
    let wrong = [
        String::new(),
        "authorization: Bearer \r\n".to_owned(),
        format!("authorization: Bearer {other}\r\n"),
        format!("authorization: Bearer {}\r\n", &secret[..secret.len() - 1]),
        format!("authorization: Bearer {secret}x\r\n"),
        format!("authorization: {secret}\r\n"),
        format!("authorization: Basic {secret}\r\n"),
        format!("authorization: Bearer {secret}\r\nauthorization: Bearer {other}\r\n"),
        format!("proxy-authorization: Bearer {secret}\r\n"),
        format!("cookie: secret={secret}\r\n"),
    ];
    for path in ["/v1/token?server=demo", "/v1/headers?server=demo", "/v1/status", "/readyz", "/metrics"] {
        for lines in &wrong {
            let reply = loopback.get_with(path, lines).await;
            let answer = reply.json();
            assert_eq!((reply.status, answer["class"].as_str()), (403, Some("denied")), "{path}: {}", reply.body);
            assert!(answer["hint"].as_str().is_some_and(|hint| hint.contains("http.secret")), "{}", reply.body);
            assert_eq!(reply.header("www-authenticate"), None, "a client would register and open a browser");
            assert!(!reply.body.contains("demo"), "{}", reply.body);
        }
    }
    // A caller cannot send the secret in a place that is logged.
    assert_eq!(loopback.get_with(&format!("/v1/status?secret={other}"), "").await.status, 403);
    assert_eq!(loopback.get_with("/healthz", "").await.status, 200, "that we live is no secret");
    for path in ["/.well-known/oauth-protected-resource", "/register", "/mcp", "/oauth/token"] {
        assert_eq!(loopback.get_with(path, "").await.status, 404, "{path}");
    }
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn the_secret_is_private_new_at_each_start_and_gone_at_the_end() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured(ON_LOOPBACK);
    let path = world.socket().with_file_name("http.secret");
    let daemon = world.daemon(&[]).await;
    let first = Loopback::of(&daemon).await;
    assert_eq!(fs::metadata(&path).expect("there").mode() & 0o7777, 0o600);
    daemon.stop().await.expect_code(0);
    assert!(!path.exists());
    let elsewhere = world.path().join("elsewhere");
    fs::write(&elsewhere, "precious").expect("ours");
    std::os::unix::fs::symlink(&elsewhere, &path).expect("ours");
    let daemon = world.daemon(&[]).await;
    let second = Loopback::of(&daemon).await;
    assert_ne!(first.secret, second.secret);
    assert_eq!(fs::read_to_string(&elsewhere).expect("ours"), "precious", "no link is followed");
    let old = format!("authorization: Bearer {}\r\n", first.secret);
    assert_eq!(second.get_with("/v1/status", &old).await.status, 403);
    daemon.stop().await.expect_code(0);
    assert!(!path.exists() && elsewhere.exists());
}

#[tokio::test]
async fn a_secret_that_cannot_be_written_takes_no_place() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured(ON_LOOPBACK);
    fs::create_dir(world.socket().with_file_name("http.secret")).expect("ours");
    let output = world.run(&["run"]).await.expect_code(CONFIG);
    assert!(
        output.stderr.contains("http.secret") && output.stderr.contains("safeconduct: hint: "),
        "{}",
        output.stderr
    );
    assert!(!world.socket().exists());
}

#[tokio::test]
async fn two_daemons_in_one_directory_do_not_write_over_each_others_secret() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured(ON_LOOPBACK);
    let daemon = world.daemon(&[]).await;
    let loopback = Loopback::of(&daemon).await;
    let beside = world.socket().with_file_name("other.sock").display().to_string();
    let output = world.run(&["run", "--socket", &beside]).await.expect_code(CONFIG);
    assert!(output.stderr.contains("another daemon") && output.stderr.contains("http.secret"), "{}", output.stderr);
    assert_eq!(loopback.get("/v1/status").await.status, 200);
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn a_taken_port_is_said_before_anything_is_served() {
    let scene = Scene::new(binary()).await;
    let held = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = held.local_addr().expect("bound");
    for key in ["http", "health"] {
        let world = scene.configured(&format!("[listen]\n{key} = \"{address}\""));
        let output = world.run(&["run"]).await.expect_code(CONFIG);
        let said = [&address.to_string(), "safeconduct: hint: ", "another port"];
        assert!(said.iter().all(|words| output.stderr.contains(words)), "{key}: {}", output.stderr);
        assert!(!world.socket().exists() && !world.socket().with_file_name("http.secret").exists());
    }
}

#[tokio::test]
async fn the_api_is_for_loopback_alone() {
    let scene = Scene::new(binary()).await;
    for (address, words) in [
        ("0.0.0.0:7878", "is not loopback"),
        ("[::]:7878", "is not loopback"),
        ("10.0.0.1:7878", "is not loopback"),
        ("[::ffff:127.0.0.1]:7878", "is not loopback"),
        ("127.0.0.2:7878", "is another loopback address"),
        ("127.0.0.1", "is not an address with a port"),
        ("localhost", "is not an address with a port"),
        ("localhost:http", "is not an address with a port"),
        ("mcp.example.com:7878", "is not an address with a port"),
        (":7878", "is not an address with a port"),
    ] {
        let world = scene.configured(&format!("[listen]\nhttp = \"{address}\""));
        let output = world.run(&["run"]).await.expect_code(CONFIG);
        assert!(output.stderr.contains("listen.http: ") && output.stderr.contains("line "), "{}", output.stderr);
        assert!(output.stderr.contains(words), "{address}: {}", output.stderr);
    }
    let same = "[listen]\nhttp = \"127.0.0.1:7878\"\nhealth = \"127.0.0.1:7878\"";
    let output = scene.configured(same).run(&["run"]).await.expect_code(CONFIG);
    assert!(output.stderr.contains("listen.health: "), "{}", output.stderr);
}

#[tokio::test]
async fn localhost_is_every_loopback_address_that_the_machine_has() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("[listen]\nhttp = \"localhost:0\"").await;
    let loopback = Loopback::of(&daemon).await;
    let listen = tcp_http::listening(&daemon).await;
    let addresses: Vec<SocketAddr> = listen["http"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|address| address.as_str()?.parse().ok())
        .collect();
    assert!(addresses.iter().all(|address| address.port() == loopback.address.port()), "{addresses:?}");
    let has_six = TcpListener::bind("[::1]:0").is_ok();
    assert_eq!(addresses.len(), if has_six { 2 } else { 1 });
    for address in addresses {
        let reply = tcp_http::get(address, "/healthz").await.expect("an answer");
        assert_eq!(reply.status, 200, "{address}");
    }
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn on_tcp_only_rules_by_user_match() {
    let scene = Scene::new(binary()).await;
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    for (rule, on_tcp) in [
        (format!("{{ uid = {uid} }}"), 200),
        (format!("{{ gid = {gid} }}"), 403),
        (format!("{{ uid = {uid}, gid = {gid} }}"), 403),
    ] {
        let daemon = scene.daemon(&format!("allow = [{rule}]\n{ON_LOOPBACK}")).await;
        assert_eq!(daemon.get("/v1/token?server=demo").await.status, 200, "{rule} on the socket");
        let loopback = Loopback::of(&daemon).await;
        assert_eq!(loopback.get("/v1/token?server=demo").await.status, on_tcp, "{rule} on TCP");
        daemon.stop().await.expect_code(0);
    }
}

#[tokio::test]
async fn callers_that_never_come_to_an_end_do_not_keep_others_out() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("[listen]\nhttp = \"127.0.0.1:0\"\nhealth = \"127.0.0.1:0\"").await;
    let loopback = Loopback::of(&daemon).await;
    let health = health_of(&daemon).await;
    let mut endless = Vec::new();
    let mut silent = TcpStream::connect(health).await.expect("it listens");
    for begin in [
        "",
        "GET /healthz HTTP/1.1\r\nx: ",
        "POST /v1/reject HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{",
    ] {
        for (address, count) in [(loopback.address, 200), (health, 40)] {
            for _ in 0..count {
                let mut stream = TcpStream::connect(address).await.expect("it listens");
                stream.write_all(begin.as_bytes()).await.expect("it reads");
                endless.push(stream);
            }
        }
    }
    assert_eq!(loopback.get("/v1/token?server=demo").await.status, 200);
    daemon.token("demo").await;
    // The health listener serves few connections. Others wait; silent ones are closed.
    assert_eq!(tcp_http::get(health, "/healthz").await.expect("an answer").status, 200);
    let closed = tokio::time::timeout(LIMIT, silent.read_to_end(&mut Vec::new())).await;
    assert_eq!(closed.expect("closed in time").expect("closed, not broken off"), 0, "it is told nothing");
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn a_detached_start_says_where_it_listens() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("[listen]\nhttp = \"127.0.0.1:0\"\nhealth = \"127.0.0.1:0\"");
    let output = world.run(&["run", "--detach"]).await.expect_code(0);
    let field = |name: &str| {
        let line = output.stdout.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name} is not in {}", output.stdout)).trim().to_owned()
    };
    let pid = Pid::from_raw(field("pid").parse().expect("a process id"));
    let healthz = tcp_http::get(field("http").parse().expect("an address"), "/healthz").await;
    let readyz = tcp_http::get(field("health").parse().expect("an address"), "/readyz").await;
    let private = fs::metadata(field("secret")).map(|found| found.mode() & 0o7777);
    let socket = field("socket");
    kill(pid, Signal::SIGTERM).expect("it lives");
    until(LIMIT, "it has ended", async || !Path::new(&socket).exists()).await;
    assert_eq!((healthz.expect("an answer").status, readyz.expect("an answer").status), (200, 200));
    assert_eq!(private.expect("it was there"), 0o600);
    assert!(fs::read_to_string(field("log")).expect("ours").contains("http="), "the log says so as well");
}

// Health.

#[tokio::test]
async fn the_health_listener_names_no_server_and_serves_nothing_else() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.always_token(Fault::Status(503));
    let second = FakeMcp::start(&scene.authorization_server, &SCOPES).await;
    let more = format!(
        "required = true\n[servers.search]\nurl = \"{}\"\nissuer = \"{}\"\nrequired = true\nscopes = [\"nowhere\"]\n{WITH_HEALTH}",
        second.url(),
        scene.authorization_server.issuer()
    );
    let daemon = scene.daemon(&more).await;
    let health = health_of(&daemon).await;
    let ask = async |path: &str| tcp_http::get(health, path).await.expect("an answer");
    assert_eq!(ask("/healthz").await.status, 200);
    until(LIMIT, "both have failed", async || {
        ask("/readyz").await.body.contains("2 of 2 required servers have no token: temporary")
    })
    .await;
    let unready = ask("/readyz").await;
    assert_eq!((unready.status, &unready.json()["ready"]), (503, &json!(false)));
    scene.authorization_server.heal();
    until(LIMIT, "demo is ready", async || {
        let reasons = ask("/readyz").await.json()["reasons"].clone();
        let left = reasons.as_array().is_some_and(|reasons| reasons.len() == 1);
        left && reasons[0].as_str().is_some_and(|reason| reason.starts_with("1 of 2 required servers has no token: "))
    })
    .await;
    daemon.token("demo").await;
    let metrics = ask("/metrics").await;
    assert_eq!(metrics.status, 200);
    assert!(metrics.body.contains("safeconduct_tokens_served_total 1"), "{}", metrics.body);
    let on_socket = daemon.get("/metrics").await.body;
    assert!(on_socket.contains("server=\"demo\""), "the socket's callers may know: {on_socket}");
    for reply in [unready, ask("/readyz").await, metrics] {
        for name in ["demo", "search", "127.0.0.1", "server=", "http://", "safeconduct.sock"] {
            assert!(!reply.body.contains(name), "{name}: {}", reply.body);
        }
    }
    for path in ["/", "/v1/token?server=demo", "/v1/headers?server=demo", "/v1/status", "/v1/revoke", "/mcp/demo"] {
        let reply = ask(path).await;
        assert_eq!(reply.status, 404, "{path}");
        assert!(!reply.body.contains("demo"), "{}", reply.body);
    }
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn the_health_listener_is_for_any_host_and_for_no_page() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("[listen]\nhealth = \"0.0.0.0:0\"").await;
    let port = health_of(&daemon).await.port();
    let health = SocketAddr::from(([127, 0, 0, 1], port));
    let ask = async |request: String| tcp_http::exchange(health, &request).await.expect("an answer").status;
    let get = |lines: &str| format!("GET /metrics HTTP/1.1\r\n{lines}connection: close\r\n\r\n");
    assert_eq!(ask(get("host: 10.1.2.3:9464\r\n")).await, 200);
    assert_eq!(ask(get("host: safeconduct.agents.svc\r\n")).await, 200);
    for line in ["origin: https://evil.example", "referer: http://x/", "sec-fetch-site: none", "via: 1.1 proxy"] {
        assert_eq!(ask(get(&format!("host: localhost\r\n{line}\r\n"))).await, 403, "{line}");
    }
    assert_eq!(ask("POST /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_owned()).await, 405);
    assert_eq!(ask("GET http://x/metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_owned()).await, 400);
    let long = format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "a".repeat(20_000));
    assert_eq!(ask(long).await, 431);
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn head_is_answered_as_get_without_its_body_on_every_route_and_listener() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("[listen]\nhttp = \"127.0.0.1:0\"\nhealth = \"127.0.0.1:0\"").await;
    let loopback = Loopback::of(&daemon).await;
    let health = health_of(&daemon).await;
    let token = daemon.token("demo").await;
    let ask = |method: &str, path: &str| {
        let secret = format!("authorization: Bearer {}\r\n", loopback.secret);
        format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n{secret}connection: close\r\n\r\n")
    };
    for path in
        ["/v1/token?server=demo", "/v1/headers?server=demo", "/v1/status", "/healthz", "/readyz", "/metrics", "/no"]
    {
        let (got, asked) = (daemon.exchange(&ask("GET", path)).await, daemon.exchange(&ask("HEAD", path)).await);
        assert_eq!((got.status, got.header("content-type")), (asked.status, asked.header("content-type")), "{path}");
        assert!(!got.body.is_empty() && asked.body.is_empty(), "{path}");
        assert_eq!(
            (loopback.exchange(&ask("HEAD", path)).await.status, got.status),
            (got.status, asked.status),
            "{path}"
        );
    }
    for path in ["/healthz", "/readyz", "/metrics"] {
        let reply = tcp_http::exchange(health, &ask("HEAD", path)).await.expect("an answer");
        assert_eq!((reply.status, reply.body.as_str()), (200, ""), "{path}");
    }
    // The length is the one of the body that GET has, and the next request is not taken for a part of it.
    let pair = ask("HEAD", "/healthz").replace("connection: close\r\n", "") + &ask("GET", "/healthz");
    let reply = daemon.exchange(&pair).await;
    assert!(reply.header("content-length").is_some_and(|length| length != "0"));
    assert!(reply.body.starts_with("HTTP/1.1 200 OK\r\n"), "{}", reply.body);
    assert_eq!(daemon.token("demo").await, token);
    daemon.stop().await.expect_code(0);
}

// Who keeps a place.

/// Asks on a connection that is kept. Reads the head of the answer and what comes with it.
async fn asked_on(stream: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin), request: &str) -> String {
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = Vec::new();
    while !answer.windows(4).any(|window| window == b"\r\n\r\n") {
        let mut piece = [0; 4_096];
        let many = stream.read(&mut piece).await.expect("an answer");
        assert!(many > 0, "it is closed");
        answer.extend_from_slice(&piece[..many]);
    }
    String::from_utf8(answer).expect("UTF-8")
}

/// Nothing more comes.
async fn is_closed(stream: &mut (impl tokio::io::AsyncRead + Unpin)) {
    let closed = tokio::time::timeout(LIMIT, stream.read_to_end(&mut Vec::new())).await;
    closed.expect("closed in time").expect("closed, not broken off");
}

#[tokio::test]
async fn a_user_has_a_quarter_of_the_sockets_places_and_the_longest_idle_goes() {
    const QUARTER: usize = 512;
    const ASK: &str = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    let mut kept = Vec::new();
    for _ in 0..QUARTER {
        let mut stream = UnixStream::connect(daemon.socket()).await.expect("it listens");
        assert!(asked_on(&mut stream, ASK).await.starts_with("HTTP/1.1 200"));
        kept.push(stream);
    }
    // The first has asked again, so the second is idle for longest.
    asked_on(&mut kept[0], ASK).await;
    let mut newest = UnixStream::connect(daemon.socket()).await.expect("it listens");
    assert!(asked_on(&mut newest, ASK).await.starts_with("HTTP/1.1 200"));
    is_closed(&mut kept[1]).await;
    for place in [0, 2, QUARTER - 1] {
        assert!(asked_on(&mut kept[place], ASK).await.starts_with("HTTP/1.1 200"), "{place}");
    }
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn without_the_secret_a_connection_has_one_request_and_with_it_many() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("[listen]\nhttp = \"127.0.0.1:0\"\nhealth = \"127.0.0.1:0\"").await;
    let loopback = Loopback::of(&daemon).await;
    let ask = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n";
    for address in [loopback.address, health_of(&daemon).await] {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        let answer = asked_on(&mut stream, &format!("{ask}\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"), "{answer}");
        is_closed(&mut stream).await;
    }
    let mut stream = TcpStream::connect(loopback.address).await.expect("it listens");
    for _ in 0..3 {
        let answer = asked_on(&mut stream, &format!("{ask}authorization: Bearer {}\r\n\r\n", loopback.secret)).await;
        assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains("connection: close"), "{answer}");
    }
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn strangers_on_tcp_have_few_places_and_keep_nobody_out() {
    const PLACES: usize = 64;
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("[listen]\nhttp = \"127.0.0.1:0\"\nhealth = \"127.0.0.1:0\"").await;
    let loopback = Loopback::of(&daemon).await;
    let mut kept = TcpStream::connect(loopback.address).await.expect("it listens");
    let ask = format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\r\n", loopback.secret);
    asked_on(&mut kept, &ask).await;
    for address in [loopback.address, health_of(&daemon).await] {
        let mut silent = Vec::new();
        for _ in 0..=3 * PLACES {
            silent.push(TcpStream::connect(address).await.expect("it listens"));
        }
        assert_eq!(tcp_http::get(address, "/healthz").await.expect("an answer").status, 200);
        is_closed(&mut silent[0]).await;
    }
    assert_eq!(loopback.get("/v1/token?server=demo").await.status, 200);
    assert!(asked_on(&mut kept, &ask).await.starts_with("HTTP/1.1 200"), "who has shown the secret keeps a place");
    daemon.stop().await.expect_code(0);
}

// Servers that are not configured.

/// A daemon without configured servers that serves any server.
async fn unlisted(scene: &Scene, more: &str) -> Daemon {
    let toml = format!("[egress]\ninsecure_loopback = true\n[listen]\nunlisted = true\n{more}");
    scene.safeconduct.clone().config(&toml).daemon(&[]).await
}

#[tokio::test]
async fn any_url_is_served_to_our_own_user_where_that_is_switched_on() {
    let scene = Scene::new(binary()).await;
    let daemon = unlisted(&scene, "").await;
    let url = scene.mcp.url();
    let token = daemon.token(&url).await;
    for spelling in [format!("{url}/"), url.replace("http://", "HTTP://")] {
        assert_eq!(daemon.token(&spelling).await, token, "{spelling}");
    }
    daemon.run(&["headers", &url]).await.expect_code(0);
    assert_eq!(daemon.get(&format!("/v1/headers?server={url}&url={url}/below")).await.status, 200);
    assert_eq!(scene.authorization_server.token_requests(), 1);
    let status = daemon.get("/v1/status").await.json();
    let servers = status["servers"].as_array().expect("a list");
    let name = servers[0]["name"].as_str().expect("a name");
    assert!(servers.len() == 1 && name.starts_with("127.0.0.1~"), "{status}");
    assert_eq!(daemon.token(name).await, token, "the name that status shows will do as well");
    let metrics = daemon.get("/metrics").await.body;
    assert!(metrics.contains("server=\"unlisted\"") && !metrics.contains("127.0.0.1"), "{metrics}");
    let revoked = daemon.run(&["revoke"]).await.expect_code(0);
    assert!(revoked.stdout.contains("1 revoked"), "{}", revoked.stdout);
    assert!(scene.authorization_server.is_revoked(&token));
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn what_is_not_configured_gets_round_nothing() {
    let scene = Scene::new(binary()).await;
    let strangers = geteuid().as_raw() + 1;
    let more = format!("allow = [{{ uid = {strangers} }}]\n[listen]\nunlisted = true");
    let daemon = scene.configured(&more).daemon(&[]).await;
    let base = scene.mcp.base();
    for beside in
        [format!("{base}/"), format!("{base}/mcpx"), format!("{base}/%256dcp"), base.replace("127.0.0.1", "127.1")]
    {
        let reply = daemon.get(&format!("/v1/token?server={beside}")).await;
        assert_eq!((reply.status, reply.json()["class"].as_str()), (403, Some("denied")), "{beside}: {}", reply.body);
        assert!(reply.body.contains("on the origin of the configured server"), "{}", reply.body);
    }
    let other = FakeMcp::start(&scene.authorization_server, &SCOPES).await;
    let query = format!("{}?key=c2VjcmV0", other.url());
    let reply = daemon.get(&format!("/v1/token?server={}", query.replace('?', "%3F"))).await;
    assert_eq!((reply.status, reply.json()["class"].as_str()), (403, Some("denied")), "{}", reply.body);
    assert!(!reply.body.contains("c2VjcmV0") && !daemon.log().contains("c2VjcmV0"), "a query may be a secret");
    // The operator did not name these hosts, so private addresses are refused.
    for private in ["https://10.1.2.3/mcp", "https://169.254.169.254/mcp"] {
        let reply = daemon.get(&format!("/v1/token?server={private}")).await;
        assert!(reply.status >= 400 && reply.json()["class"] != "temporary", "{private}: {}", reply.body);
    }
    assert_eq!(scene.authorization_server.token_requests(), 0);
    daemon.token(&other.url()).await;
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn a_credential_helper_that_is_asked_about_every_url_leaves_others_alone() {
    let scene = Scene::new(binary()).await;
    let daemon = unlisted(&scene, "").await;
    let question = json!({"uri": scene.mcp.url()}).to_string();
    for _ in 0..2 {
        let output = daemon.helper().run_with_stdin(&["get"], &question).await.expect_code(0);
        assert_eq!(output.stdout, "{}\n");
        assert_eq!(scene.platform.requests(), scene.authorization_server.token_requests());
        // Also if another caller has asked for it meanwhile.
        daemon.token(&scene.mcp.url()).await;
    }
    assert_eq!(scene.authorization_server.token_requests(), 1);
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn a_token_of_an_unlisted_server_must_be_bound_to_it() {
    let scene = Scene::new(binary()).await;
    let daemon = unlisted(&scene, "").await;
    scene.authorization_server.always_token(support::authorization_server::TokenFault::IgnoreResource);
    let reply = daemon.get(&format!("/v1/token?server={}", scene.mcp.url())).await;
    assert_eq!((reply.status, reply.json()["error"].as_str()), (502, Some("resource_not_bound")), "{}", reply.body);
    daemon.stop().await.expect_code(0);
}

/// A hostile server could name a listed issuer that ignores `resource`.
#[tokio::test]
async fn a_token_of_a_listed_issuer_for_an_unlisted_server_must_be_bound_to_it() {
    use support::authorization_server::TokenFault;
    let scene = Scene::new(binary()).await;
    let issuer = scene.authorization_server.issuer();
    let toml = format!("[egress]\ninsecure_loopback = true\nissuers = [\"{issuer}\"]\n[listen]\nunlisted = true\n");
    let daemon = scene.safeconduct.clone().config(&toml).daemon(&[]).await;
    for fault in [TokenFault::IgnoreResource, TokenFault::OpaqueToken] {
        scene.authorization_server.script_token([fault]);
        let reply = daemon.get(&format!("/v1/token?server={}&fresh=1", scene.mcp.url())).await;
        let body = reply.json();
        assert_eq!((reply.status, body["error"].as_str()), (502, Some("resource_not_bound")), "{}", reply.body);
        assert!(body["hint"].as_str().is_some_and(|hint| hint.contains("add the server")), "{}", reply.body);
    }
    daemon.stop().await.expect_code(0);
}

// Rate limits.

#[tokio::test]
async fn over_its_rate_a_caller_is_told_when_to_come_again_and_the_issuer_is_not_asked() {
    let scene = Scene::new(binary()).await;
    let other = FakeMcp::start(&scene.authorization_server, &SCOPES).await;
    let more = format!(
        "rate = \"3/h\"\n[servers.other]\nurl = \"{}\"\nissuer = \"{}\"\n",
        other.url(),
        scene.authorization_server.issuer()
    );
    let daemon = scene.daemon(&more).await;
    for _ in 0..3 {
        daemon.token("demo").await;
    }
    let asked = scene.authorization_server.token_requests();
    for path in [
        "/v1/token?server=demo",
        "/v1/headers?server=demo",
        "/v1/token?server=demo&fresh=1",
        "/v1/token?server=demo&scope=demo:write",
    ] {
        let reply = daemon.get(path).await;
        let answer = reply.json();
        assert_eq!((reply.status, answer["class"].as_str()), (503, Some("temporary")), "{}", reply.body);
        assert!(answer["error_description"].as_str().is_some_and(|text| text.contains("3/h")), "{}", reply.body);
        assert!(answer["hint"].is_string());
        let wait: u64 = reply.header("retry-after").and_then(|text| text.parse().ok()).expect("seconds");
        assert!((1..=1_200).contains(&wait), "{wait}");
    }
    assert_eq!(scene.authorization_server.token_requests(), asked);
    daemon.token("other").await;
    daemon.run(&["token", "demo", "--timeout", "2s"]).await.expect_code(75);
    daemon.stop().await.expect_code(0);
}

// How the daemon ends.

#[tokio::test]
async fn while_the_agent_drains_it_is_served() {
    let scene = Scene::new(binary()).await;
    // Longer than a request takes on any machine. The next test checks that this time ends.
    let daemon = scene.daemon("[listen]\nlinger = \"1h\"\nhttp = \"127.0.0.1:0\"").await;
    let loopback = Loopback::of(&daemon).await;
    daemon.signal(Signal::SIGTERM);
    daemon.logged("serving on while the agent drains").await;
    daemon.token("demo").await;
    assert_eq!(loopback.get("/v1/token?server=demo").await.status, 200);
}

#[tokio::test]
async fn the_time_for_the_agent_to_drain_ends_by_itself() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("[listen]\nlinger = \"1s\"").await;
    daemon.signal(Signal::SIGTERM);
    let (socket, output) = (daemon.socket().to_owned(), daemon.wait().await.expect_code(0));
    assert!(output.stderr.contains("serving on while the agent drains"), "{}", output.stderr);
    assert!(!socket.exists());
}

#[tokio::test]
async fn told_twice_it_ends_at_once() {
    let scene = Scene::new(binary()).await;
    for second in [Signal::SIGTERM, Signal::SIGINT] {
        let daemon = scene.daemon("[listen]\nlinger = \"1h\"\nhttp = \"127.0.0.1:0\"").await;
        let socket = daemon.socket().to_owned();
        daemon.signal(Signal::SIGTERM);
        daemon.logged("serving on while the agent drains").await;
        daemon.signal(second);
        daemon.wait().await.expect_code(0);
        assert!(!socket.exists() && !socket.with_file_name("http.secret").exists(), "nothing is left behind");
    }
}

#[tokio::test]
async fn told_twice_it_does_not_wait_for_what_runs_either() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.always_token(Fault::Stall);
    let daemon = scene.daemon("").await;
    let socket = daemon.socket().to_owned();
    let asked = tokio::spawn(async move { unix_http::get(&socket, "/v1/token?server=demo").await });
    until(LIMIT, "it is under way", async || scene.authorization_server.token_requests() == 1).await;
    daemon.signal(Signal::SIGTERM);
    daemon.logged("stopping").await;
    daemon.signal(Signal::SIGTERM);
    let output = daemon.wait().await.expect_code(0);
    assert!(output.stderr.contains("ending at once"), "{}", output.stderr);
    assert!(!output.stderr.contains("not everything ended in time"), "it waited for the drain: {}", output.stderr);
    asked.abort();
}

#[tokio::test]
async fn what_is_held_is_revoked_at_the_end_where_that_is_configured() {
    let scene = Scene::new(binary()).await;
    let other = FakeMcp::start(&scene.authorization_server, &SCOPES).await;
    let more = format!(
        "revoke_on_exit = true\n[servers.other]\nurl = \"{}\"\nissuer = \"{}\"\n",
        other.url(),
        scene.authorization_server.issuer()
    );
    let daemon = scene.daemon(&more).await;
    let (demo, kept) = (daemon.token("demo").await, daemon.token("other").await);
    let narrow = daemon.get("/v1/token?server=demo&scope=demo:read").await.json();
    daemon.stop().await.expect_code(0);
    assert!(scene.authorization_server.is_revoked(&demo));
    assert!(scene.authorization_server.is_revoked(narrow["access_token"].as_str().expect("a token")));
    assert!(!scene.authorization_server.is_revoked(&kept));
}

#[tokio::test]
async fn a_revocation_that_fails_is_one_line_and_no_failure() {
    let scene = Scene::new(binary()).await;
    let nobody = TcpListener::bind("127.0.0.1:0").expect("bound").local_addr().expect("bound");
    // One revocation endpoint is down, and one never answers. They must not delay the end.
    let silent = FakeAs::start(scene.platform.trust()).await;
    silent.always_token(Fault::Stall);
    for endpoint in [format!("http://{nobody}/revoke"), silent.token_endpoint()] {
        scene.authorization_server.set_metadata(json!({"revocation_endpoint": endpoint}));
        let daemon = scene.daemon("revoke_on_exit = true").await;
        daemon.token("demo").await;
        let output = daemon.stop().await.expect_code(0);
        let lines = output.stderr.lines().filter(|line| line.contains("WARN") && line.contains("revoked")).count();
        assert_eq!(lines, 1, "{}", output.stderr);
    }
}

// Service managers.

fn private_socket(path: &Path) -> UnixListener {
    let listener = UnixListener::bind(path).expect("bound");
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("ours");
    listener
}

#[tokio::test]
async fn a_service_manager_may_pass_the_loopback_listener_beside_the_socket() {
    let scene = Scene::new(binary()).await;
    let tcp = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = tcp.local_addr().expect("bound");
    let world = scene.configured(&format!("[listen]\nhttp = \"{address}\""));
    let path = world.path().join("activated.sock");
    let socket = private_socket(&path);
    // Descriptors come in the order of the socket unit, which must not matter.
    for swapped in [false, true] {
        let (one, other) = (socket.try_clone().expect("cloned").into(), tcp.try_clone().expect("cloned").into());
        let (child, log) =
            if swapped { activated(&world, other, Some(one)) } else { activated(&world, one, Some(other)) };
        until(LIMIT, "it answers", async || {
            unix_http::get(&path, "/healthz").await.is_ok_and(|reply| reply.status == 200)
        })
        .await;
        let secret = fs::read_to_string(path.with_file_name("http.secret")).expect("beside the socket");
        leak::minted(&secret);
        let loopback = Loopback { address, secret };
        assert_eq!(loopback.get("/v1/token?server=demo").await.status, 200);
        assert_eq!(loopback.get_with("/v1/token?server=demo", "").await.status, 403);
        let pid = i32::try_from(child.id().expect("it runs")).expect("positive");
        kill(Pid::from_raw(pid), Signal::SIGTERM).expect("it lives");
        let (code, text) = ends(child, &log).await;
        assert_eq!(code, Some(0), "{text}");
        assert!(path.exists() && !path.with_file_name("http.secret").exists());
    }
}

#[tokio::test]
async fn an_inherited_listener_that_is_wider_or_not_configured_is_refused() {
    let scene = Scene::new(binary()).await;
    let wide = TcpListener::bind("0.0.0.0:0").expect("bound");
    let loopback = TcpListener::bind("127.0.0.1:0").expect("bound");
    let world = scene.configured(ON_LOOPBACK);
    let path = world.path().join("activated.sock");
    let socket = private_socket(&path);
    let second = private_socket(&world.path().join("second.sock"));
    let cases: [(OwnedFd, &str); 3] = [
        (wide.into(), "is not loopback"),
        (loopback.into(), "is not the one that `http` in [listen] names"),
        (second.into(), "is the second Unix socket"),
    ];
    for (descriptor, words) in cases {
        let (child, log) = activated(&world, socket.try_clone().expect("cloned").into(), Some(descriptor));
        let (code, text) = ends(child, &log).await;
        assert_eq!(code, Some(CONFIG), "{text}");
        assert!(text.contains(words) && text.contains("safeconduct: hint: "), "{text}");
    }
    assert!(path.exists());
}
