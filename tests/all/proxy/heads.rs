//! Who may not speak here, paths, and every field that is dropped.

use support::safeconduct::Daemon;
use support::unix_http::Reply;
use tokio::io::AsyncWriteExt;

use super::{WHILE, World, answers, call, closing, ours, post};

async fn refused(daemon: &Daemon, request: &str, status: u16) -> Reply {
    let reply = daemon.exchange(&closing(request)).await;
    assert_eq!(reply.status, status, "{request}\n{}", reply.body);
    for (name, _) in &reply.headers {
        assert!(!name.starts_with("access-control") && name != "www-authenticate" && name != "location", "{name}");
    }
    reply
}

#[tokio::test]
async fn browsers_proxies_and_other_protocols_are_refused_before_the_body_is_read() {
    let world = World::new().await;
    for field in [
        "origin: http://localhost",
        "referer: http://localhost/",
        "sec-fetch-site: same-origin",
        "forwarded: for=1",
        "x-forwarded-for: 1",
        "via: 1.1 x",
        "upgrade: websocket\r\nconnection: upgrade",
    ] {
        // The body never comes.
        let head = post("/mcp/raw", &format!("{field}\r\n"), "").replace("length: 0", "length: 5");
        ours(&refused(&world.daemon, &head, 403).await);
    }
    let foreign = post("/mcp/raw", "", "").replace("host: localhost", "host: evil.example");
    ours(&refused(&world.daemon, &foreign, 403).await);
    let preflight = "OPTIONS /mcp/raw HTTP/1.1\r\nhost: localhost\r\n\r\n";
    ours(&refused(&world.daemon, preflight, 403).await);
    let form = post("/mcp/raw", "", "a=b").replace("application/json\r\n", "text/plain\r\n");
    ours(&refused(&world.daemon, &form, 415).await);
    refused(&world.daemon, "TRACE /mcp/raw HTTP/1.1\r\nhost: localhost\r\n\r\n", 405).await;
    assert!(world.server.is_left_alone(WHILE).await);
}

#[tokio::test]
async fn a_path_that_servers_read_differently_never_leaves() {
    let world = World::new().await;
    for below in [
        "/..",
        "/./",
        "/%2e%2e/y",
        "/.%2E/y",
        "/..%2fy",
        "/%2fy",
        "/%5cy",
        "/\\y",
        "/..;/y",
        "//y",
        "/%00",
        "/%252e%252e/y",
    ] {
        refused(&world.daemon, &post(&format!("/mcp/raw{below}"), "", "{}"), 400).await;
    }
    assert!(world.server.is_left_alone(WHILE).await);
}

#[tokio::test]
async fn unknown_names_places_to_log_in_and_servers_of_others_look_alike() {
    let others = "[[servers.raw.allow]]\nuid = 4294967294";
    let world = World::with(others).await;
    let mut seen = Vec::new();
    for path in [
        "/mcp/rawx",
        "/mcp/RAW",
        "/mcp/",
        "/mcp/raw%20",
        "/mcp/raw/.well-known/oauth-protected-resource",
        "/mcp/raw/register",
        "/mcp/raw/authorize",
        "/mcp/raw/token",
    ] {
        let reply = refused(&world.daemon, &post(path, "", "{}"), 404).await;
        let mut error = ours(&reply);
        error["error"]["data"]["request_id"].take();
        assert!(error.get("id").is_none(), "nothing was read: {error}");
        seen.push(error);
    }
    assert!(seen.windows(2).all(|two| two[0] == two[1]), "{seen:?}");
    for path in ["/.well-known/oauth-protected-resource/mcp/raw", "/register", "/authorize", "/token"] {
        refused(&world.daemon, &post(path, "", "{}"), 404).await;
    }
    assert!(world.server.is_left_alone(WHILE).await);
    // The operator is told what was looked for.
    let log = world.daemon.stop().await.expect_code(0).stderr;
    for name in ["rawx", "RAW", "raw%20"] {
        assert!(log.contains(&format!("not served target_server={name} ")), "{name}: {log}");
    }
}

#[tokio::test]
async fn only_the_fields_of_the_client_itself_reach_the_server_with_our_token() {
    let world = World::new().await;
    let fields = "Connection: keep-alive, Authorization, Mcp-Session-Id, X-A\r\nMcp-Session-Id: s\r\nX-A: 1\r\n\
        Authorization: Bearer one\r\nAUTHORIZATION: Bearer two\r\nProxy-Authorization: Basic x\r\nCookie: a=b\r\n\
        DPoP: x\r\nX-Amz-Date: x\r\nX-Serverless-Authorization: Bearer x\r\nTE: trailers\r\nKeep-Alive: 1\r\n\
        Proxy-Connection: x\r\nX-Forwarded-Port: 1\r\n\
        MCP-Protocol-Version: 2025-11-25\r\nLast-Event-ID: 7\r\nAccept-Encoding: gzip, deflate\r\nUser-Agent: t\r\n\
        Mcp-Method: tools/list\r\nX-B: 1\r\nX-B: 2\r\n";
    let body = call("1.0", "tools/list");
    let (head, sent, reply) = world.exchange(&post("/mcp/raw?a=b%20c", fields, &body), &answers("{}")).await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "{}"));
    assert_eq!(head.line, "POST /base/mcp?a=b%20c HTTP/1.1");
    assert_eq!(sent, body.as_bytes());
    let [authorization] = head.all("authorization")[..] else { panic!("{head:?}") };
    assert!(world.is_its_token(authorization));
    let mut rest: Vec<(&str, &str)> = head.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    rest.retain(|(name, _)| *name != "authorization");
    rest.sort_unstable();
    let (authority, length) = (world.server.base().trim_start_matches("http://"), body.len().to_string());
    assert_eq!(
        rest,
        [
            ("accept", "application/json, text/event-stream"),
            ("accept-encoding", "gzip, deflate"),
            ("content-length", &length),
            ("content-type", "application/json"),
            ("host", authority),
            ("last-event-id", "7"),
            ("mcp-method", "tools/list"),
            ("mcp-protocol-version", "2025-11-25"),
            ("user-agent", "t"),
            ("x-b", "1"),
            ("x-b", "2"),
        ]
    );
}

#[tokio::test]
async fn a_connection_field_that_names_what_frames_a_request_is_refused() {
    let world = World::new().await;
    for named in ["Host", "Content-Length", "Transfer-Encoding"] {
        let request = post("/mcp/raw", &format!("connection: {named}\r\n"), "{}");
        let mut client = world.send(&request).await;
        assert_eq!(client.reply().await.status, 400, "{named}");
    }
    assert!(world.server.is_left_alone(WHILE).await);
}

#[tokio::test]
async fn wire_20_34_37_fields_of_the_answer_pass_unless_they_lead_the_client_elsewhere() {
    let world = World::new().await;
    let answer = "HTTP/1.1 418 I'm a teapot\r\nConnection: keep-alive, X-A\r\nX-A: 1\r\nSet-Cookie: a=b\r\n\
        WWW-Authenticate: Bearer\r\nProxy-Authenticate: Basic\r\nAuthentication-Info: x\r\nDPoP-Nonce: n\r\n\
        Location: https://evil.example/\r\nRefresh: 0\r\nAlt-Svc: h3\r\nAccess-Control-Allow-Origin: *\r\n\
        Clear-Site-Data: *\r\nAuthorization: Bearer x\r\nMcp-Session-Id: s\r\nX-Accel-Buffering: no\r\n\
        Content-Encoding: gzip\r\nContent-Type: application/json\r\nX-B: 1\r\nX-B: 2\r\ncontent-length: 3\r\n\r\nxyz";
    let (_, _, reply) = world.exchange(&post("/mcp/raw/below", "", &call("1", "ping")), answer).await;
    assert_eq!((reply.status, reply.body.as_str()), (418, "xyz"));
    let mut names: Vec<&str> =
        reply.headers.iter().map(|(name, _)| name.as_str()).filter(|name| *name != "date").collect();
    names.sort_unstable();
    let passed =
        ["content-encoding", "content-length", "content-type", "mcp-session-id", "x-accel-buffering", "x-b", "x-b"];
    assert_eq!(names, passed);
}

#[tokio::test]
async fn trailers_are_dropped_in_both_directions_and_a_bad_chunk_never_becomes_a_request() {
    let world = World::new().await;
    let chunked =
        post("/mcp/raw", "", "").replace("content-length: 0", "transfer-encoding: chunked\r\ntrailer: authorization");
    let request = format!("{chunked}2\r\n{{}}\r\n0\r\nAuthorization: Bearer x\r\nMcp-Session-Id: s\r\n\r\n");
    let mut client = world.send(&request).await;
    let mut server = world.server.accept().await;
    let head = server.head().await;
    assert_eq!((head.all("content-length"), head.all("trailer").len()), (vec!["2"], 0), "{head:?}");
    assert_eq!(server.until(b"{}").await, b"{}");
    server.say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x\r\n\r\n2\r\n{}\r\n0\r\nauthorization: x\r\n\r\n").await;
    let reply = client.reply().await;
    assert_eq!((reply.body.as_str(), reply.header("trailer"), reply.header("authorization")), ("{}", None, None));
    let bad = format!("{chunked}2\r\n{{}}\r\nzz\r\n");
    let mut client = world.send(&bad).await;
    client.stream.shutdown().await.expect("open");
    let mut text = Vec::new();
    while client.more().await > 0 {}
    text.append(&mut client.read);
    assert!(text.is_empty() || text.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&text));
    assert!(world.server.is_left_alone(WHILE).await);
}
