use super::*;

fn outbound(config: Config) -> Outbound {
    Outbound::new(config)
}

async fn refused(config: Config, url: &str, named_by: NamedBy) -> Error {
    match outbound(config).send(Ask::get(url, named_by)).await {
        Err(error) => error,
        Ok(answer) => panic!("{url} was dialled: {}", answer.status),
    }
}

#[tokio::test]
async fn plain_http_is_refused_before_anything_is_dialled() {
    let error = refused(Config::default(), "http://mcp.example.com/", NamedBy::Us).await;
    assert_eq!(error, Error::Insecure { host: "mcp.example.com".to_owned() });
    let error = refused(Config::default(), "http://127.0.0.1:1/", NamedBy::Us).await;
    assert!(matches!(error, Error::InsecureLoopback { .. }));
}

#[tokio::test]
async fn a_literal_private_address_in_a_strangers_document_is_refused() {
    for url in [
        "https://10.0.0.1/",
        "https://[::ffff:192.168.0.1]/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://0x7f.1/",
    ] {
        assert!(matches!(refused(Config::default(), url, NamedBy::Them).await, Error::Forbidden { .. }), "{url}");
    }
}

#[tokio::test]
async fn metadata_addresses_are_refused_even_when_named() {
    let named = Config { named: BTreeSet::from(["169.254.169.254".to_owned()]), ..Config::default() };
    let error = refused(named, "https://169.254.169.254/", NamedBy::Us).await;
    assert!(matches!(error, Error::Forbidden { kind: Kind::LinkLocal, .. }));
}

#[tokio::test]
async fn a_name_that_resolves_to_loopback_is_refused_at_the_dialled_address() {
    // The hosts file of every machine makes this a name with a private address, without any DNS.
    let error = refused(Config::default(), "https://localhost:1/", NamedBy::Them).await;
    assert!(matches!(error, Error::Forbidden { kind: Kind::Loopback, .. }), "{error:?}");
    let named = Config { named: BTreeSet::from(["localhost".to_owned()]), ..Config::default() };
    let error = refused(named, "https://localhost:1/", NamedBy::Them).await;
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn with_an_allow_list_everything_else_is_refused() {
    let config = Config { allow: Some(vec![Network::parse("10.1.0.0/16").expect("a network")]), ..Config::default() };
    let error = refused(config.clone(), "https://10.2.0.1/", NamedBy::Them).await;
    assert!(matches!(error, Error::Forbidden { kind: Kind::Unlisted, .. }));
    let none = Config { allow: Some(Vec::new()), ..Config::default() };
    assert!(matches!(refused(none, "https://mcp.example.com/", NamedBy::Them).await, Error::NotAllowed { .. }));
}

#[test]
fn retry_after_is_read_in_both_forms_and_never_beyond_an_hour() {
    let waits = |retry_after: &str, date: Option<&str>| {
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", retry_after.parse().expect("a value"));
        if let Some(date) = date {
            headers.insert("date", date.parse().expect("a value"));
        }
        let wait = Answer { status: 503, headers, body: Zeroizing::default() }.retry_after();
        wait.map(|wait| wait.as_secs())
    };
    const NOW: Option<&str> = Some("Sun, 06 Nov 1994 08:49:37 GMT");
    assert_eq!(waits("7", None), Some(7));
    assert_eq!(waits("999999", None), Some(3_600));
    assert_eq!(waits("Sun, 06 Nov 1994 08:51:37 GMT", NOW), Some(120));
    assert_eq!(waits("Sun, 06 Nov 1994 08:40:00 GMT", NOW), Some(0), "it is over already");
    assert_eq!(waits("Mon, 07 Nov 1994 08:49:37 GMT", NOW), Some(3_600));
    assert_eq!(waits("Sun, 06 Nov 1994 08:51:37 GMT", None), None, "measured against nothing");
    assert_eq!(waits("soon", NOW), None);
}

/// What a try came to.
#[derive(Debug, PartialEq)]
enum Came {
    Refusal,
    CutShort,
}

/// Tries until `total` is over. The first try is refused after `first`; every further one gets no answer.
async fn tried(first: Duration, delay: Duration, total: Duration) -> (Came, u32) {
    let tries = std::cell::Cell::new(0);
    let work = |left: Duration| {
        tries.set(tries.get() + 1);
        let is_first = tries.get() == 1;
        async move {
            tokio::time::sleep(if is_first { first } else { left }).await;
            if is_first { Came::Refusal } else { Came::CutShort }
        }
    };
    let patience = Patience { tries: 9, delay, total };
    let came = outbound(Config::default()).patiently(patience, work, |_| Again::In(delay)).await;
    (came, tries.get())
}

#[tokio::test(start_paused = true)]
async fn a_try_that_the_patience_cuts_short_does_not_hide_the_failure_before_it() {
    const SECOND: Duration = Duration::from_secs(1);
    assert_eq!(tried(SECOND, SECOND, SECOND * 9).await, (Came::Refusal, 2));
}

#[tokio::test(start_paused = true)]
async fn no_try_is_begun_that_would_have_no_time() {
    const SECOND: Duration = Duration::from_secs(1);
    assert_eq!(tried(SECOND, SECOND, Duration::from_millis(2_040)).await, (Came::Refusal, 1));
}

#[tokio::test]
async fn nobody_is_blamed_for_a_request_that_was_not_begun() {
    let over = Outbound::until(Config::default(), Some(tokio::time::Instant::now()));
    let outcome = over.send(Ask::get("https://mcp.example.com/", NamedBy::Us)).await;
    assert_eq!(outcome.err(), Some(Error::NoTimeLeft { host: "mcp.example.com".to_owned() }));
}
