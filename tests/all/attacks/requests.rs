//! Requests that are broken, endless, or come from a page in a browser.

use super::*;

/// Header lines that are sent only by pages in a browser, by proxies and by clients of rebound names.
fn of_strangers() -> Vec<String> {
    let good = "host: localhost\r\n";
    vec![
        format!("{good}origin: https://evil.example\r\n"),
        format!("{good}origin: null\r\n"),
        format!("{good}Origin: http://localhost\r\n"),
        format!("{good}referer: http://localhost/\r\n"),
        format!("{good}sec-fetch-site: same-origin\r\n"),
        format!("{good}x-forwarded-for: 127.0.0.1\r\n"),
        format!("{good}x-forwarded-host: localhost\r\n"),
        format!("{good}forwarded: for=127.0.0.1\r\n"),
        format!("{good}via: 1.1 proxy\r\n"),
        format!("{good}{good}"),
        String::new(),
        "host: evil.example\r\n".to_owned(),
        "host: evil.example:80\r\n".to_owned(),
        "host: localhost.evil.example\r\n".to_owned(),
        "host: localhost:80.evil.example\r\n".to_owned(),
        "host: localhost:80@evil.example\r\n".to_owned(),
        "host: 127.0.0.1.evil.example\r\n".to_owned(),
        "host: [::1].evil.example\r\n".to_owned(),
        "host: [::1\r\n".to_owned(),
        "host: 0.0.0.0\r\n".to_owned(),
        "host: 169.254.169.254\r\n".to_owned(),
        "host:\r\n".to_owned(),
    ]
}

#[tokio::test]
async fn browsers_and_rebound_names_are_refused_on_every_route() {
    let world = World::new().await;
    let daemon = world.job(&world.pin()).daemon(&[]).await;
    let good = "host: localhost\r\n";
    let headers = of_strangers();
    for route in
        ["/v1/token?server=demo", "/v1/headers?server=demo", "/v1/status", "/healthz", "/readyz", "/metrics", "/none"]
    {
        for header in &headers {
            let reply = daemon.exchange(&format!("GET {route} HTTP/1.1\r\n{header}connection: close\r\n\r\n")).await;
            assert!(
                reply.status == 403 || (reply.status == 400 && !header.contains("localhost\r\norigin")),
                "{route} {header:?}: {}",
                reply.status
            );
            assert!(!reply.headers.iter().any(|(name, _)| name.starts_with("access-control-")), "{header:?}");
        }
        let options = format!(
            "OPTIONS {route} HTTP/1.1\r\n{good}origin: https://evil.example\r\naccess-control-request-method: GET\r\nconnection: close\r\n\r\n"
        );
        assert_eq!(daemon.exchange(&options).await.status, 403);
        // Only a proxy may be sent the absolute form (RFC 9112 section 3.2.2).
        let absolute = format!("GET http://evil.example{route} HTTP/1.1\r\n{good}connection: close\r\n\r\n");
        assert_eq!(daemon.exchange(&absolute).await.status, 400, "absolute form, {route}");
    }
    assert_eq!(world.platform.requests(), 0);
    for host in ["localhost", "localhost:7878", "LOCALHOST", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:7878"] {
        let reply =
            daemon.exchange(&format!("GET /healthz HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")).await;
        assert_eq!(reply.status, 200, "{host}");
    }
}

/// A page in a browser that knows the port: with a rebound name or with plain requests, with or without a stolen secret.
#[tokio::test]
async fn browsers_and_rebound_names_are_refused_on_loopback_tcp_too() {
    let world = World::new().await;
    let daemon = world.job(&format!("{}\n{LOOPBACK}", world.pin())).daemon(&[]).await;
    let loopback = Loopback::of(&daemon).await;
    let shown = format!("authorization: Bearer {}\r\n", loopback.secret);
    for route in ["/v1/token?server=demo", "/v1/headers?server=demo", "/v1/status", "/healthz", "/readyz", "/metrics"] {
        for (header, secret) in of_strangers().iter().flat_map(|header| [(header, ""), (header, shown.as_str())]) {
            let request = format!("GET {route} HTTP/1.1\r\n{header}{secret}connection: close\r\n\r\n");
            let reply = loopback.exchange(&request).await;
            assert!(matches!(reply.status, 400 | 403), "{route} {header:?}: {}", reply.status);
            let forbidden = |(name, _): &(String, String)| name.starts_with("access-control-") || name == "location";
            assert!(!reply.headers.iter().any(forbidden), "{header:?}");
        }
        let absolute =
            format!("GET http://evil.example{route} HTTP/1.1\r\nhost: localhost\r\n{shown}connection: close\r\n\r\n");
        assert_eq!(loopback.exchange(&absolute).await.status, 400, "absolute form, {route}");
        let preflight = format!(
            "OPTIONS {route} HTTP/1.1\r\nhost: localhost\r\norigin: https://evil.example\r\naccess-control-request-headers: authorization\r\nconnection: close\r\n\r\n"
        );
        assert_eq!(loopback.exchange(&preflight).await.status, 403);
    }
    assert_eq!(world.platform.requests(), 0);
}

#[tokio::test]
async fn broken_requests_on_loopback_tcp_leave_the_daemon_serving() {
    let world = World::new().await;
    let daemon = world.job(&format!("{}\n{LOOPBACK}", world.pin())).daemon(&[]).await;
    let loopback = Loopback::of(&daemon).await;
    for request in broken_requests() {
        let stream = TcpStream::connect(loopback.address).await.expect("it listens");
        let answer = converse(stream, request.as_bytes(), true).await;
        let line = answer.lines().next().unwrap_or_default();
        let shown: String = request.chars().take(60).collect();
        assert!(line.is_empty() || line.starts_with("HTTP/1.1 4"), "{shown:?}: {line}");
    }
    // A request that follows a refused one on the same connection is refused too.
    let smuggled = "GET /v1/status HTTP/1.1\r\nhost: localhost\r\ncontent-length: 60\r\n\r\nGET /v1/token?server=demo HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let stream = TcpStream::connect(loopback.address).await.expect("it listens");
    let answer = converse(stream, smuggled.as_bytes(), true).await;
    assert!(answer.starts_with("HTTP/1.1 403") && !answer.contains("access_token"), "{answer}");
    assert_eq!(loopback.get("/v1/token?server=demo").await.status, 200);
}

/// Every user of the machine can connect to loopback, but cannot read the file with the secret.
#[tokio::test]
async fn another_user_cannot_read_the_loopback_secret() {
    let world = World::new().await;
    let job = world.job(&format!("{}\n{LOOPBACK}", world.pin()));
    let daemon = job.daemon(&[]).await;
    let loopback = Loopback::of(&daemon).await;
    let secret = job.socket().with_file_name("http.secret");
    assert_eq!(loopback.get_with("/v1/token?server=demo", "").await.status, 403);
    assert_eq!(std::fs::metadata(&secret).expect("there").permissions().mode() & 0o077, 0);
    if as_root_only().is_none() {
        return;
    }
    open_to_all(job.path());
    let mut cat = tokio::process::Command::new("/bin/cat");
    let output = cat.arg(&secret).uid(STRANGER).gid(STRANGER).output().await.expect("it starts");
    assert!(!output.status.success() && output.stdout.is_empty());
    leak::check("stderr of another user's cat", &String::from_utf8_lossy(&output.stderr));
}

/// Bytes that are not an HTTP request.
fn broken_requests() -> Vec<String> {
    let long = "a".repeat(100_000);
    vec![
        format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: {long}\r\n\r\n"),
        format!("GET /{long} HTTP/1.1\r\nhost: localhost\r\n\r\n"),
        format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\n{}\r\n", "x: y\r\n".repeat(5_000)),
        "GET /healthz HTTP/1.1\r\nhost: localhost\r\n folded: yes\r\n\r\n".to_owned(),
        "GET /healthz HTTP/1.1\r\nhost : localhost\r\n\r\n".to_owned(),
        "GET /healthz HTTP/1.1\nhost\0: localhost\n\n".to_owned(),
        "GET /healthz HTTP/9.9\r\nhost: localhost\r\n\r\n".to_owned(),
        "GET /healthz\r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        "CONNECT mcp.example.com:443 HTTP/1.1\r\nhost: localhost\r\n\r\n".to_owned(),
        "POST /v1/reject HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n{}{}{}"
            .to_owned(),
        "POST /v1/reject HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n{}".to_owned(),
        "POST /v1/reject HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n"
            .to_owned(),
        "POST /v1/reject HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: gzip, identity\r\n\r\n{}".to_owned(),
        "POST /v1/reject HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff1\r\n{}"
            .to_owned(),
        "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}".to_owned(),
    ]
}

#[tokio::test]
async fn broken_and_endless_requests_leave_the_daemon_serving() {
    let world = World::new().await;
    let daemon = world.job(&world.pin()).daemon(&[]).await;
    let long = "a".repeat(100_000);
    for request in &broken_requests() {
        let answer = speak(daemon.socket(), request.as_bytes(), true).await;
        let line = answer.lines().next().unwrap_or_default();
        let shown: String = request.chars().take(60).collect();
        assert!(line.is_empty() || line.starts_with("HTTP/1.1 4"), "{shown:?}: {line}");
    }
    let big = format!("POST /v1/reject HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\n{long}");
    assert!(speak(daemon.socket(), big.as_bytes(), false).await.starts_with("HTTP/1.1 400"));
    let chunks = format!(
        "POST /v1/reject HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n{}",
        format!("2710\r\n{}\r\n", "a".repeat(10_000)).repeat(10)
    );
    assert!(speak(daemon.socket(), chunks.as_bytes(), false).await.starts_with("HTTP/1.1 400"));
    // The daemon does not wait for an unexpected body, and does not read it as the next request.
    let smuggled = "GET /healthz HTTP/1.1\r\nhost: localhost\r\ncontent-length: 69\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /v1/token?server=demo HTTP/1.1\r\nhost: localhost\r\norigin: x\r\n\r\n";
    let answer = speak(daemon.socket(), smuggled.as_bytes(), true).await;
    assert!(!answer.contains("access_token"), "{}", answer.lines().next().unwrap_or_default());
    assert!(answer.matches("HTTP/1.1 200").count() <= 1);

    // Endless requests keep their connections; other callers are served.
    let mut endless = Vec::new();
    for begin in [
        "",
        "GET /healthz HTTP/1.1\r\nx: ",
        "POST /v1/reject HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n{",
        "GET /v1/token?server=demo HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n",
    ] {
        for _ in 0..25 {
            let mut stream = UnixStream::connect(daemon.socket()).await.expect("it listens");
            stream.write_all(begin.as_bytes()).await.expect("it reads");
            endless.push(stream);
        }
    }
    assert_eq!(daemon.get("/healthz").await.status, 200);
    daemon.token("demo").await;
    drop(endless);
    daemon.token("demo").await;
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn routes_and_methods_that_are_not_there_say_so() {
    let world = World::new().await;
    let daemon = world.job(&world.pin()).daemon(&[]).await;
    for path in [
        "/",
        "/v1",
        "/v1/",
        "/v1/token/",
        "/v2/token",
        "//v1/token",
        "/v1/./token",
        "/V1/TOKEN",
        "/%761/token",
        "/.well-known/oauth-protected-resource",
        "/register",
        "/authorize",
        "/mcp",
    ] {
        failed(&daemon.get(path).await, 404, "bad_request", "not_found");
    }
    // Its errors have the members of RFC 6749 alone.
    let reply = daemon.get("/oauth/token").await;
    assert_eq!((reply.status, &reply.json()["error"]), (404, &serde_json::json!("not_found")));
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"] {
        let reply = daemon
            .exchange(&format!(
                "{method} /v1/token?server=demo HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
            ))
            .await;
        failed(&reply, 405, "bad_request", "method_not_allowed");
    }
    failed(&daemon.get("/v1/reject").await, 405, "bad_request", "method_not_allowed");
    assert_eq!(world.platform.requests(), 0);
}

#[tokio::test]
async fn headers_are_not_signed_for_another_url() {
    let world = World::new().await;
    let daemon = world.job(&world.pin()).daemon(&[]).await;
    let url = world.mcp.url();
    for elsewhere in ["https://evil.example/mcp", &format!("{url}x"), &format!("{}/other", world.mcp.base())] {
        let reply = daemon.get(&format!("/v1/headers?server=demo&method=POST&url={elsewhere}")).await;
        failed(&reply, 403, "denied", "access_denied");
    }
    failed(
        &daemon.get(&format!("/v1/headers?server=demo&method=POST&url={url}/../x")).await,
        400,
        "bad_request",
        "invalid_request",
    );
    assert_eq!(world.platform.requests(), 0);
    assert_eq!(daemon.get(&format!("/v1/headers?server=demo&method=POST&url={url}/below")).await.status, 200);
}
