use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use reqwest::header::HeaderMap;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use super::error::CertificateFault;
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
async fn no_switch_is_offered_as_a_cure_for_what_another_party_names() {
    for url in [
        "http://127.0.0.1:1/",
        "http://localhost:1/",
        "https://127.0.0.1:1/",
        "https://localhost:1/",
        "https://[::1]:1/",
    ] {
        let error = refused(Config::default(), url, NamedBy::Them).await;
        assert!(matches!(error, Error::Forbidden { kind: Kind::Loopback, .. }), "{url}: {error:?}");
        assert!(error.hint().is_some_and(|hint| !hint.contains("insecure")), "{url}: {error}");
    }
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
    assert!(matches!(error, Error::NobodyListens { port: 1, .. }), "{error:?}");
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
    // The older forms of a date (RFC 9110 section 5.6.7).
    assert_eq!(waits("Sunday, 06-Nov-94 08:51:37 GMT", NOW), Some(120));
    assert_eq!(waits("Sun Nov  6 08:51:37 1994", NOW), Some(120));
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
    let over = Outbound::until(Config::default(), Clock::system(), Some(tokio::time::Instant::now()));
    let outcome = over.send(Ask::get("https://mcp.example.com/", NamedBy::Us)).await;
    assert_eq!(outcome.err(), Some(Error::NoTimeLeft { host: "mcp.example.com".to_owned() }));
    let limit = Duration::from_secs(3);
    assert_eq!(over.left(limit), Duration::ZERO);
    over.leave(Duration::from_secs(60));
    assert_eq!(over.left(limit), limit, "for what comes after the work");
}

// The far side over sockets.

/// A server on loopback that does this with each connection.
async fn server<F: Future<Output = ()> + Send + 'static>(
    with: impl Fn(TcpStream) -> F + Send + 'static,
) -> (SocketAddr, JoinSet<()>) {
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    let address = socket.local_addr().expect("it is bound");
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((stream, _)) = socket.accept().await {
            with(stream).await;
        }
    });
    (address, tasks)
}

/// A certificate for this name and the acceptor of a server that has it.
fn certified(name: &str) -> (String, TlsAcceptor) {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed([name.to_owned()]).expect("a sound name");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a key");
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the defaults are sound")
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key);
    (cert.pem(), TlsAcceptor::from(Arc::new(config.expect("they belong together"))))
}

async fn asked(outbound: &Outbound, url: &str) -> Result<u16, Error> {
    let ask = Ask { limit: Duration::from_secs(8), ..Ask::get(url, NamedBy::Us) };
    outbound.send(ask).await.map(|answer| answer.status)
}

#[tokio::test]
async fn after_a_suspend_no_kept_connection_is_used_and_a_request_that_runs_ends() {
    const NIGHT: Duration = Duration::from_secs(8 * 3_600);
    let connections = Arc::new(AtomicUsize::new(0));
    let (counted, tasks) = (Arc::clone(&connections), Mutex::new(JoinSet::new()));
    let (address, _server) = server(move |mut stream| {
        counted.fetch_add(1, Ordering::SeqCst);
        tasks.lock().expect("whole").spawn(async move {
            let mut request = [0; 4096];
            while let Ok(read @ 1..) = stream.read(&mut request).await {
                if request[..read].starts_with(b"GET /silent") {
                    std::future::pending::<()>().await;
                }
                stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.expect("it is open");
            }
        });
        std::future::ready(())
    })
    .await;
    let clock = Clock::virtual_at(std::time::SystemTime::UNIX_EPOCH);
    let outbound = Outbound::until(Config { insecure_loopback: true, ..Config::default() }, clock.clone(), None);
    let url = format!("http://{address}/");
    for _ in 0..2 {
        assert_eq!(asked(&outbound, &url).await, Ok(204));
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1, "it is kept");
    clock.suspend(NIGHT);
    assert_eq!(asked(&outbound, &url).await, Ok(204));
    assert_eq!(connections.load(Ordering::SeqCst), 2, "nobody at the other end remembers the first");
    let silent = format!("{url}silent");
    let suspend = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        clock.suspend(NIGHT);
    };
    let (outcome, ()) = tokio::join!(asked(&outbound, &silent), suspend);
    assert!(matches!(outcome, Err(Error::Stale { .. })), "{outcome:?}");
}

#[tokio::test]
async fn what_goes_wrong_in_a_handshake_has_a_type() {
    async fn told(name: &str, trusted: bool) -> Result<u16, Error> {
        let (pem, acceptor) = certified(name);
        let (address, _server) = server(move |stream| {
            let acceptor = acceptor.clone();
            async move {
                // A client that refuses the certificate hangs up.
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await.expect("a request");
                stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.expect("it is open");
            }
        })
        .await;
        let ca_pem = trusted.then(|| pem.into_bytes());
        let outbound = outbound(Config { ca_pem, insecure_loopback: true, ..Config::default() });
        asked(&outbound, &format!("https://localhost:{}/", address.port())).await
    }
    assert_eq!(told("localhost", true).await, Ok(204));
    for (name, trusted, wanted) in
        [("localhost", false, CertificateFault::UnknownCa), ("other.example", true, CertificateFault::OtherName)]
    {
        let error = told(name, trusted).await.expect_err("refused");
        assert_eq!(error, Error::Certificate { host: "localhost".to_owned(), fault: wanted });
        assert!(!error.is_temporary());
    }
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_or_hangs_up_is_told_apart() {
    let outbound = outbound(Config::default());
    let (address, _plain) = server(|mut stream| async move {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await.expect("it is open");
        // Until the client hangs up.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let error = asked(&outbound, &format!("https://{address}/")).await.expect_err("no TLS");
    assert!(matches!(&error, Error::Malformed { what, .. } if what.starts_with("TLS: ")), "{error:?}");
    let (address, _closing) = server(|stream| async move { drop(stream) }).await;
    let error = asked(&outbound, &format!("https://{address}/")).await.expect_err("it hangs up");
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn what_the_forward_proxy_answers_is_told() {
    let html = "<html>no</html>";
    for (answer, wanted) in [
        (format!("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n{html}"), "proxy authorization required"),
        (format!("HTTP/1.1 502 Bad Gateway\r\n\r\n{html}"), "it refuses with status 502"),
        (format!("HTTP/1.1 200 OK\r\n\r\n{html}"), "it answers with a page and not with a tunnel"),
        (html.to_owned(), "its answer is not HTTP"),
    ] {
        let (address, _proxy) = server(move |mut stream| {
            let answer = answer.clone();
            async move {
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await.expect("a request");
                stream.write_all(answer.as_bytes()).await.expect("it is open");
            }
        })
        .await;
        let proxy = Proxy::new(&format!("http://{address}").into(), None).expect("a proxy");
        let outbound = outbound(Config { proxy: Some(proxy), ..Config::default() });
        let error = asked(&outbound, "https://login.example/").await.expect_err("no tunnel");
        let through = Error::ThroughProxy {
            host: "login.example".to_owned(),
            proxy: address.to_string(),
            what: wanted.to_owned(),
        };
        assert_eq!(error, through);
        assert!(error.is_temporary() && error.hint().is_some());
    }
}

#[tokio::test]
async fn a_silent_forward_proxy_costs_the_limit_and_is_blamed() {
    let (address, _proxy) = server(|mut stream| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let proxy = Proxy::new(&format!("http://{address}").into(), None).expect("a proxy");
    let outbound = outbound(Config { proxy: Some(proxy), ..Config::default() });
    let ask = Ask { limit: Duration::from_millis(200), ..Ask::get("https://login.example/", NamedBy::Us) };
    let error = outbound.send(ask).await.map(|answer| answer.status).expect_err("nothing comes");
    assert!(matches!(&error, Error::ThroughProxy { what, .. } if what == "no answer within 0.2 s"), "{error:?}");
}

#[tokio::test]
async fn clients_are_kept_for_each_certificate_and_each_thumbprint() {
    let outbound = outbound(Config::default());
    let certificate = |name: &str| {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed([name.to_owned()]).expect("a sound name");
        let pair = Certificate::from_pem(cert.pem().as_bytes(), signing_key.serialize_pem().as_bytes());
        pair.expect("a pair")
    };
    let far = |certificate: Option<&Certificate>| match outbound.client(Lane::Ours, certificate) {
        Ok(Client::Far(far)) => far,
        _ => panic!("hosts that the operator named are on the far side"),
    };
    let (one, other) = (certificate("one"), certificate("other"));
    assert!(Arc::ptr_eq(&far(Some(&one)), &far(Some(&one))));
    assert!(Arc::ptr_eq(&far(None), &far(None)));
    assert!(!Arc::ptr_eq(&far(Some(&one)), &far(Some(&other))));
    assert!(!Arc::ptr_eq(&far(Some(&one)), &far(None)));
    let thumbprint = |digit: &str| Thumbprint::parse(&digit.repeat(40)).expect("forty digits");
    let pinned = |digit: &str| outbound.pinned(thumbprint(digit)).expect("it can be set up").0;
    assert!(Arc::ptr_eq(&pinned("a"), &pinned("a")));
    assert!(!Arc::ptr_eq(&pinned("a"), &pinned("b")));
}
