use proptest::prelude::*;

use super::scope::BadScope;
use super::*;

fn server(text: &str) -> ServerUrl {
    ServerUrl::parse(text).expect("a good URL")
}

#[test]
fn urls_that_can_be_read_in_two_ways_are_refused() {
    let cases = [
        ("mcp.example.com", BadUrl::NotAbsolute),
        ("ftp://mcp.example.com", BadUrl::Scheme("ftp".to_owned())),
        ("https://user@mcp.example.com/", BadUrl::Userinfo),
        ("https://user:pw@mcp.example.com/", BadUrl::Userinfo),
        ("https://@mcp.example.com/", BadUrl::Userinfo),
        ("https://mcp.example.com/#x", BadUrl::Fragment),
        ("https://mcp.example.com\\@evil.example/", BadUrl::Characters),
        ("https://mcp.example.com/a b", BadUrl::Characters),
        ("https://mcp.example.com/a/../b", BadUrl::DotSegments),
        ("https://mcp.example.com/a/%2e%2E/b", BadUrl::DotSegments),
        ("https://mcp.example.com/a/.%2e", BadUrl::DotSegments),
        ("https://mcp.example.com/a/..;/b", BadUrl::DotSegments),
        ("https://mcp.example.com/a/%2e.;x=1/b", BadUrl::DotSegments),
        ("https://mcp.example.com/mcp/%252e%252e/admin", BadUrl::DotSegments),
        ("https://mcp.example.com/mcp/..%20/admin", BadUrl::DotSegments),
        ("https://mcp.example.com/mcp/%c0%ae%c0%ae/", BadUrl::DotSegments),
        ("https://mcp.example.com/a/..%2fadmin", BadUrl::EncodedSlash),
        ("https://mcp.example.com/a%2Fb", BadUrl::EncodedSlash),
        ("https://mcp.example.com/a/..%5c", BadUrl::EncodedSlash),
        ("https://mcp.example.com/a%00", BadUrl::EncodedSlash),
        ("https://mcp.example.com./mcp", BadUrl::FinalDot),
        ("https://mcp.example.com.:8443/mcp", BadUrl::FinalDot),
        ("https://mcp.example.com/\u{202e}pcm", BadUrl::NotAscii),
        ("https://mcp.example.com/a\u{ad}b", BadUrl::NotAscii),
        ("https://mcp.example.com/\u{9b}31m", BadUrl::NotAscii),
        ("https://mcp.exämple.com/", BadUrl::Host),
        ("https://mcp%2eexample.com/", BadUrl::Host),
        ("https:///mcp", BadUrl::NotAbsolute),
    ];
    for (text, wanted) in cases {
        assert_eq!(ServerUrl::parse(text).map(|_| ()), Err(wanted), "{text}");
    }
    assert!(ServerUrl::parse("https://mcp.example.com/mcp?next=%2Fa").is_ok(), "a query may hold a path");
    let of_length = |length: usize| format!("https://mcp.example.com/{}", "a".repeat(length - 24));
    assert!(ServerUrl::parse(&of_length(2_048)).is_ok());
    assert_eq!(ServerUrl::parse(&of_length(2_049)).map(|_| ()), Err(BadUrl::TooLong));
    assert_eq!(Issuer::parse("https://as.example.com/?x=1").map(|_| ()), Err(BadUrl::Query));
}

#[test]
fn other_spellings_of_a_server_are_the_same_server() {
    let one = server("https://mcp.example.com/mcp");
    for other in ["HTTPS://MCP.Example.COM/mcp", "https://mcp.example.com:443/mcp", "https://mcp.example.com/mcp/"] {
        assert_eq!(one, server(other), "{other}");
    }
    for other in ["https://mcp.example.com/mcp2", "https://mcp.example.com:8443/mcp", "http://mcp.example.com/mcp"] {
        assert_ne!(one, server(other), "{other}");
    }
}

#[test]
fn a_server_covers_paths_below_it_at_a_segment_boundary() {
    let one = server("https://mcp.example.com/a");
    assert!(one.covers(&server("https://mcp.example.com/a/b")));
    assert!(!one.covers(&server("https://mcp.example.com/ab")));
    assert!(!one.covers(&server("https://mcp.example.com/")));
    assert!(!one.covers(&server("https://other.example.com/a/b")));
}

#[test]
fn a_resource_stands_for_its_own_origin_only() {
    let mcp = server("https://mcp.example.com/a/mcp");
    for good in [
        "https://mcp.example.com/a/mcp",
        "https://mcp.example.com/a",
        "https://mcp.example.com",
        "https://mcp.example.com/",
    ] {
        assert!(Resource::verbatim(good).stands_for(&mcp), "{good}");
    }
    for bad in ["https://mcp.example.com/a/m", "https://evil.example.com/a/mcp", "http://mcp.example.com/a", "nonsense"]
    {
        assert!(!Resource::verbatim(bad).stands_for(&mcp), "{bad}");
    }
}

#[test]
fn metadata_urls_follow_the_order_of_the_specification() {
    let issuer = Issuer::parse("https://as.example.com/tenant1").expect("good");
    assert_eq!(
        issuer.metadata_urls(),
        [
            "https://as.example.com/.well-known/oauth-authorization-server/tenant1",
            "https://as.example.com/.well-known/openid-configuration/tenant1",
            "https://as.example.com/tenant1/.well-known/openid-configuration",
        ]
    );
    assert_eq!(Issuer::parse("https://as.example.com/").expect("good").metadata_urls().len(), 2);
    assert_eq!(
        Resource::metadata_urls(&server("https://h.example:8443/mcp?x=1"))
            .iter()
            .map(ServerUrl::as_str)
            .collect::<Vec<_>>(),
        [
            "https://h.example:8443/.well-known/oauth-protected-resource/mcp?x=1",
            "https://h.example:8443/.well-known/oauth-protected-resource",
        ]
    );
    assert_eq!(Resource::metadata_urls(&server("https://h.example/")).len(), 1);
}

#[test]
fn an_issuer_keeps_its_bytes() {
    for text in ["https://AS.example.com:443/", "https://as.example.com"] {
        assert_eq!(Issuer::parse(text).expect("good").as_str(), text);
    }
}

#[test]
fn scopes_are_sets_of_allowed_characters() {
    assert_eq!(Scopes::parse("b a  b").expect("good").to_string(), "a b");
    assert_eq!(Scopes::parse("a\"b"), Err(BadScope));
    assert_eq!(Scopes::from_list(["a b"]), Err(BadScope));
    let ceiling = Scopes::parse("a b").expect("good");
    assert_eq!(Scopes::parse("b c").expect("good").within(&ceiling).to_string(), "b");
}

#[test]
fn foreign_words_are_cut_and_cleaned() {
    let error = OauthError::new("invalid_grant", Some(&format!("a\u{1b}[31m\r\nb{}", "x".repeat(300))), None);
    let shown = error.to_string();
    assert!(shown.starts_with("invalid_grant, in its words: \"a [31m  bxxx"), "{shown}");
    assert!(shown.ends_with("x…\""), "{shown}");
    assert!(!shown.chars().any(char::is_control));
}

proptest! {
    #[test]
    fn parsing_any_text_never_panics(text in ".{0,80}") {
        let _ = ServerUrl::parse(&text).map(|url| Resource::metadata_urls(&url));
        let _ = Issuer::parse(&text).map(|issuer| issuer.metadata_urls());
        let _ = Scopes::parse(&text);
        let _ = quoted_words(&text);
    }

    #[test]
    fn a_server_is_equal_to_itself_and_covers_what_is_below(path in "[a-z]{1,8}(/[a-z]{1,8}){0,3}", more in "[a-z]{1,8}") {
        let one = server(&format!("https://mcp.example.com/{path}"));
        let below = server(&format!("https://mcp.example.com/{path}/{more}"));
        prop_assert!(one.covers(&below));
        prop_assert!(!below.covers(&one));
    }
}

#[test]
fn a_query_goes_to_the_server_and_is_shown_to_nobody() {
    let url = server("https://mcp.example.com/mcp?key=SECRET");
    assert_eq!(url.as_str(), "https://mcp.example.com/mcp?key=SECRET");
    assert_eq!(format!("{url} {url:?}"), "https://mcp.example.com/mcp \"https://mcp.example.com/mcp\"");
}
