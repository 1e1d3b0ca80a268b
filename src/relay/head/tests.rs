use hyper::header::HeaderValue;

use super::*;

fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers
}

fn left(headers: &HeaderMap) -> Vec<(&str, &str)> {
    let mut left: Vec<_> =
        headers.iter().map(|(name, value)| (name.as_str(), value.to_str().expect("ASCII"))).collect();
    // The order of different fields means nothing (RFC 9110 section 5.3).
    left.sort_by_key(|(name, _)| *name);
    left
}

#[test]
fn a_path_names_a_server_and_what_is_below_it() {
    let place = |path| Place::of(path).expect("a plain path");
    assert_eq!(place("/mcp/x"), Some(Place { name: "x", below: "" }));
    assert_eq!(place("/mcp/x/"), Some(Place { name: "x", below: "/" }));
    assert_eq!(place("/mcp/x/a%20b/c;d/.e"), Some(Place { name: "x", below: "/a%20b/c;d/.e" }));
    assert_eq!(place("/mcp/x%20"), Some(Place { name: "x%20", below: "" }), "no server is called so");
    for nowhere in ["/mcp/", "/mcp", "/MCP/x", "/mcp//"] {
        assert!(!matches!(Place::of(nowhere), Ok(Some(_))), "{nowhere}");
    }
}

#[test]
fn a_path_that_servers_read_differently_is_refused() {
    for below in [
        "/..",
        "/./",
        "/a/../b",
        "/%2e%2e/y",
        "/.%2E/y",
        "/..%2fy",
        "/%2fy",
        "/%2Fy",
        "/%5cy",
        "/\\y",
        "/..;/y",
        "/.;a",
        "//y",
        "/a//b",
        "/%00",
        "/%252e%252e/y",
        "/%25252fy",
        "/%0a",
        "/%7f",
        "/;a",
    ] {
        assert_eq!(Place::of(&format!("/mcp/x{below}")), Err(BadHead::Path), "{below}");
    }
}

#[test]
fn a_path_in_more_layers_of_encoding_than_anybody_needs_is_refused() {
    let layers = |count: usize| format!("/mcp/x/%{}41", "25".repeat(count));
    assert!(Place::of(&layers(LAYERS - 2)).is_ok());
    for count in [LAYERS, 4_000] {
        assert_eq!(Place::of(&layers(count)), Err(BadHead::Path), "{count}");
    }
}

#[test]
fn nobody_finds_a_place_to_log_in() {
    for below in [
        "/.well-known/oauth-protected-resource",
        "/.well-known",
        "/a/.well-known/b",
        "/register",
        "/authorize",
        "/token",
        "/token/",
        "/register/x",
        "/%2ewell-known/x",
        "/a/.Well-Known/x",
        "/%54oken",
    ] {
        assert_eq!(Place::of(&format!("/mcp/x{below}")), Ok(None), "{below}");
    }
    assert!(matches!(Place::of("/mcp/x/tokens"), Ok(Some(_))));
}

#[test]
fn the_url_comes_from_the_configuration() {
    let server = |text: &str| ServerUrl::parse(text).expect("a URL");
    let made = |own: &str, below: &str, target: &str| {
        let target = target.parse().expect("a target");
        url(&server(own), below, &target).map(|url| url.as_str().to_owned())
    };
    let own = "https://MCP.example.com:8443/mcp";
    assert_eq!(made(own, "", "/mcp/x").as_deref(), Ok(own));
    assert_eq!(made("https://a.example/mcp/", "", "/mcp/x").as_deref(), Ok("https://a.example/mcp/"));
    assert_eq!(made("https://a.example/mcp/", "/b", "/mcp/x/b").as_deref(), Ok("https://a.example/mcp/b"));
    assert_eq!(made("https://a.example", "/b/", "/mcp/x/b/").as_deref(), Ok("https://a.example/b/"));
    assert_eq!(
        made(own, "", "/mcp/x?h=//evil.example/").as_deref(),
        Ok("https://MCP.example.com:8443/mcp?h=//evil.example/")
    );
    assert_eq!(made("https://a.example/mcp?k=1", "", "/mcp/x").as_deref(), Ok("https://a.example/mcp?k=1"));
    assert_eq!(made("https://a.example/mcp?k=1", "", "/mcp/x?l=2"), Err(BadHead::Below));
    assert_eq!(made("https://a.example/mcp?k=1", "/b", "/mcp/x/b"), Err(BadHead::Below));
}

#[test]
fn fields_of_a_connection_and_of_a_person_do_not_reach_the_server() {
    let sent = headers(&[
        ("connection", "keep-alive, X-A , mcp-session-id"),
        ("x-a", "1"),
        ("mcp-session-id", "s"),
        ("keep-alive", "1"),
        ("proxy-connection", "x"),
        ("te", "trailers"),
        ("trailer", "x"),
        ("transfer-encoding", "chunked"),
        ("host", "localhost"),
        ("content-length", "2"),
        ("expect", "100-continue"),
        ("authorization", "Bearer one"),
        ("authorization", "Bearer two"),
        ("proxy-authorization", "x"),
        ("cookie", "a=b"),
        ("dpop", "x"),
        ("x-amz-date", "x"),
        ("x-amz-security-token", "x"),
        ("x-serverless-authorization", "x"),
        ("forwarded", "for=x"),
        ("x-forwarded-port", "1"),
        ("via", "x"),
        ("x-door", "x"),
        ("accept-encoding", "gzip, deflate"),
        ("x-b", "1"),
        ("x-b", "2"),
    ]);
    let kept = to_server(sent, Some("X-Door")).expect("good");
    let of_writer = [("content-length", "2"), ("host", "localhost")];
    assert_eq!(
        left(&kept),
        [&[("accept-encoding", "gzip, deflate")], &of_writer[..], &[("x-b", "1"), ("x-b", "2")]].concat()
    );
}

#[test]
fn what_frames_a_request_cannot_be_taken_from_it() {
    for named in ["Host", "close, content-length", "Transfer-Encoding", "a b", "\u{7f}"] {
        let sent = headers(&[]);
        let mut sent = sent;
        sent.insert(CONNECTION, HeaderValue::from_bytes(named.replace('\u{7f}', "ä").as_bytes()).expect("a value"));
        assert_eq!(to_server(sent, None).map(drop), Err(BadHead::Connection), "{named}");
    }
}

#[test]
fn fields_that_lead_a_client_elsewhere_do_not_reach_it() {
    let answered = headers(&[
        ("connection", "x-a"),
        ("x-a", "1"),
        ("set-cookie", "a=b"),
        ("www-authenticate", "Bearer"),
        ("proxy-authenticate", "Basic"),
        ("authentication-info", "x"),
        ("proxy-authentication-info", "x"),
        ("dpop-nonce", "x"),
        ("location", "https://evil.example/"),
        ("refresh", "0"),
        ("alt-svc", "h3"),
        ("access-control-allow-origin", "*"),
        ("clear-site-data", "*"),
        ("authorization", "Bearer x"),
        ("transfer-encoding", "chunked"),
        ("mcp-session-id", "s"),
        ("x-accel-buffering", "no"),
        ("content-length", "2"),
    ]);
    let kept = to_client(answered);
    assert_eq!(left(&kept), [("content-length", "2"), ("mcp-session-id", "s"), ("x-accel-buffering", "no")]);
}

#[test]
fn wire_47_the_media_type_is_compared_with_parameters_and_case() {
    for good in ["application/json", "Application/JSON; charset=utf-8", "application/json;x"] {
        assert_eq!(check(&Method::POST, &headers(&[("content-type", good)]), true), Ok(()), "{good}");
    }
    for bad in ["text/plain", "application/jsonx", "application/x-www-form-urlencoded", ""] {
        assert_eq!(check(&Method::POST, &headers(&[("content-type", bad)]), true), Err(BadHead::Media), "{bad}");
    }
    let two = headers(&[("content-type", "application/json"), ("content-type", "text/plain")]);
    assert_eq!(check(&Method::POST, &two, true), Err(BadHead::Media));
    assert_eq!(check(&Method::POST, &headers(&[]), false), Err(BadHead::Media));
    assert_eq!(check(&Method::GET, &headers(&[]), false), Ok(()));
}

#[test]
fn what_a_browser_or_another_protocol_sends_is_refused() {
    let json = [("content-type", "application/json")];
    assert_eq!(check(&Method::OPTIONS, &headers(&json), false), Err(BadHead::Preflight));
    assert_eq!(check(&Method::TRACE, &headers(&json), false), Err(BadHead::Trace));
    assert_eq!(check(&Method::GET, &headers(&[("upgrade", "websocket")]), false), Err(BadHead::Upgrade));
}
