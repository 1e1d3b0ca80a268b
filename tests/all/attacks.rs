//! What an attacker would try, one test each, against the real binary.
//!
//! The attackers: an MCP server or authorization server that wants more than its own, a network that redirects, stalls or
//! floods, a neighbour on the machine (another user, a browser, a squatter), and the operator's own log.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use support::authorization_server::{FakeAs, JWT_BEARER, MetadataFault, TokenFault};
use support::fault::{self, Fault};
use support::keys;
use support::leak;
use support::listener::{Bound, Listener};
use support::mcp_server::{FakeMcp, Signposts};
use support::platform::{FakePlatform, PlatformFault};
use support::safeconduct::{Output, Safeconduct};
use support::tcp_http::Loopback;
use support::tls::TestCa;
use support::unix_http::Reply;
use support::wait::until;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener, UnixStream};

use crate::binary;

const SCOPES: [&str; 2] = ["demo:read", "demo:write"];

/// A listener on TCP beside the socket.
const LOOPBACK: &str = "[listen]\nhttp = \"127.0.0.1:0\"";

/// Gives one of the servers a fault.
type SetFault = fn(&World, Fault);

/// A user that is neither ours nor root's.
const STRANGER: u32 = 65534;
/// One whose compiled-in place under `/tmp` nobody else uses.
const VICTIM: u32 = 61_234;

/// What the attacker's token endpoint gives out: visible ASCII, and nothing a server should send.
const ODD_TOKEN: &str = "a-token%25of%0Athe-attacker\"\\$(id)";

/// Longer than anything here may take, whatever the machine.
const BOUND: Duration = Duration::from_secs(30);

struct World {
    platform: FakePlatform,
    authorization_server: FakeAs,
    mcp: FakeMcp,
}

impl World {
    async fn new() -> Self {
        let platform = FakePlatform::start().await;
        let authorization_server = FakeAs::start(platform.trust()).await;
        let mcp = FakeMcp::start(&authorization_server, &SCOPES).await;
        Self { platform, authorization_server, mcp }
    }

    /// A job on the platform, with `demo` configured by `lines`.
    fn job(&self, lines: &str) -> Safeconduct {
        self.job_with(lines, "")
    }

    fn job_with(&self, lines: &str, egress: &str) -> Safeconduct {
        let url = self.mcp.url();
        let toml = format!(
            "[egress]\ninsecure_loopback = true\n{egress}\n[servers.demo]\nurl = \"{url}\"\nscopes = [\"demo:read\"]\n{lines}\n"
        );
        Safeconduct::new(binary()).envs(self.platform.env()).config(&toml)
    }

    fn pin(&self) -> String {
        format!("issuer = \"{}\"", self.authorization_server.issuer())
    }
}

async fn token(safeconduct: &Safeconduct) -> Output {
    safeconduct.run(&["token", "demo", "--timeout", "3s"]).await
}

/// Refused with this exit code, nothing on stdout, and these words on stderr.
#[track_caller]
fn refused(output: Output, code: i32, words: &str) -> String {
    let output = output.expect_code(code);
    assert_eq!(output.stdout, "", "no half answers");
    assert!(output.stderr.contains("safeconduct: error: "), "{}", output.stderr);
    assert!(output.stderr.contains(words), "{words:?} is not in\n{}", output.stderr);
    output.stderr
}

#[track_caller]
fn accepted(output: Output) -> String {
    output.expect_code(0).stdout.trim().to_owned()
}

#[track_caller]
fn failed(reply: &Reply, status: u16, class: &str, code: &str) {
    let body = reply.json();
    let found = (reply.status, body["class"].as_str(), body["error"].as_str());
    let shown = if reply.status == 200 { "it was served" } else { &reply.body };
    assert_eq!(found, (status, Some(class), Some(code)), "{shown}");
}

/// A server of the attacker's own. It records all that reaches it, and plays an authorization server that lists our grant.
struct Attacker {
    base: String,
    received: Arc<Mutex<Vec<Received>>>,
    _listener: Listener,
}

#[derive(Clone, Debug)]
struct Received {
    line: String,
    authorization: bool,
    body: String,
}

impl Attacker {
    async fn start() -> Self {
        let bound = Bound::new(None).await;
        let base = bound.base().to_owned();
        let received = Arc::new(Mutex::new(Vec::new()));
        let (issuer, notes) = (base.clone(), Arc::clone(&received));
        let listener = bound.serve(move |request| {
            let (issuer, notes) = (issuer.clone(), Arc::clone(&notes));
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                notes.lock().expect("never held over a panic").push(Received {
                    line: format!("{} {}", head.method, head.uri.path()),
                    authorization: head.headers.contains_key("authorization"),
                    body: String::from_utf8_lossy(&body).into_owned(),
                });
                Ok(fault::json(
                    200,
                    json!({
                        "issuer": issuer, "token_endpoint": format!("{issuer}/token"), "grant_types_supported": [JWT_BEARER],
                        "access_token": ODD_TOKEN, "token_type": "Bearer", "expires_in": 600,
                    })
                    .to_string(),
                ))
            }
        });
        Self { base, received, _listener: listener }
    }

    fn received(&self) -> Vec<Received> {
        self.received.lock().expect("never held over a panic").clone()
    }

    #[track_caller]
    fn saw_nothing(&self) {
        assert_eq!(self.received().len(), 0, "{:?}", self.received().iter().map(|one| &one.line).collect::<Vec<_>>());
    }
}

/// The attacker's own request at the honest authorization server: status and OAuth error.
async fn present(server: &FakeAs, assertion: &str, resource: &str) -> (u16, Value) {
    let form = [("grant_type", JWT_BEARER), ("assertion", assertion), ("resource", resource), ("scope", "demo:read")];
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().expect("a client");
    let request =
        client.post(server.token_endpoint()).header("content-type", "application/x-www-form-urlencoded").body(body);
    let answer = request.send().await.expect("it answers");
    (answer.status().as_u16(), serde_json::from_str(&answer.text().await.expect("a body")).expect("JSON"))
}

// Hostile issuers

#[tokio::test]
async fn what_a_hostile_issuer_gets_is_worthless_at_the_honest_one() {
    let world = World::new().await;
    let attacker = Attacker::start().await;
    world.mcp.set_metadata(json!({"authorization_servers": [attacker.base]}));
    refused(token(&world.job("")).await, 76, "is not bound to");

    let received = attacker.received();
    assert!(received.iter().all(|one| !one.authorization), "the request token of the job is the platform's alone");
    let sent: Vec<_> = received.iter().filter(|one| one.line == "POST /token").collect();
    assert_eq!(sent.len(), 1);
    let form: Vec<(String, String)> = url::form_urlencoded::parse(sent[0].body.as_bytes()).into_owned().collect();
    let assertion = &form.iter().find(|(name, _)| name == "assertion").expect("the grant").1;
    assert_eq!(keys::peek(assertion)["aud"], json!(attacker.base));
    assert_eq!(world.platform.audiences().concat(), attacker.base, "nothing was minted for anybody else");

    let (status, body) = present(&world.authorization_server, assertion, &world.mcp.url()).await;
    assert_eq!((status, &body["error"]), (400, &json!("invalid_grant")));
    assert_eq!(body["error_description"], "aud is not exactly this issuer");
}

#[tokio::test]
async fn with_a_pin_nothing_reaches_a_hostile_issuer() {
    let world = World::new().await;
    let attacker = Attacker::start().await;
    world.mcp.set_metadata(json!({"authorization_servers": [attacker.base]}));
    let daemon = world.job(&world.pin()).daemon(&[]).await;
    failed(&daemon.get("/v1/token?server=demo").await, 502, "refused", "issuer_not_named");
    attacker.saw_nothing();
    assert_eq!(world.authorization_server.token_requests(), 0);
    assert!(!world.platform.audiences().contains(&attacker.base));
}

#[tokio::test]
async fn with_listed_issuers_nothing_reaches_a_hostile_issuer() {
    let world = World::new().await;
    let attacker = Attacker::start().await;
    let honest = world.authorization_server.issuer();
    let listed = format!("issuers = [\"{honest}\"]");
    world.mcp.set_metadata(json!({"authorization_servers": [attacker.base]}));
    let daemon = world.job_with("", &listed).daemon(&[]).await;
    failed(&daemon.get("/v1/token?server=demo").await, 403, "denied", "issuer_not_listed");
    assert_eq!(world.platform.requests(), 0, "no identity is asked for before somebody may have it");

    // Named beside the honest one, the attacker is passed over.
    world.mcp.set_metadata(json!({"authorization_servers": [attacker.base, honest]}));
    accepted(token(&world.job_with("", &listed)).await);
    attacker.saw_nothing();
    assert_eq!(world.platform.audiences(), [honest]);
}

#[tokio::test]
async fn several_issuers_are_never_tried_in_turn() {
    let world = World::new().await;
    let attacker = Attacker::start().await;
    let named = json!([attacker.base, world.authorization_server.issuer()]);
    world.mcp.set_metadata(json!({"authorization_servers": named}));
    let stderr = refused(token(&world.job("")).await, 78, "several authorization servers");
    assert!(stderr.contains("hint: ") && stderr.contains("--issuer"), "{stderr}");
    attacker.saw_nothing();
    assert_eq!(world.platform.requests(), 0);
}

#[tokio::test]
async fn a_token_that_is_not_bound_to_the_resource_needs_a_trusted_issuer() {
    let faults = [
        TokenFault::IgnoreResource,
        TokenFault::OpaqueToken,
        TokenFault::Audience(json!(["https://somebody-else.example/mcp", "https://another.example/mcp"])),
        TokenFault::Audience(Value::Null),
    ];
    for ignorance in faults {
        let world = World::new().await;
        world.authorization_server.always_token(ignorance);
        let daemon = world.job("").daemon(&[]).await;
        let reply = daemon.get("/v1/token?server=demo").await;
        failed(&reply, 502, "refused", "resource_not_bound");
        let hint = reply.json()["hint"].as_str().unwrap_or_default().to_owned();
        assert!(hint.contains("pin") && hint.contains(&world.authorization_server.issuer()), "{hint}");
        accepted(token(&world.job(&world.pin())).await);
        accepted(token(&world.job("trust_discovered_issuer = true")).await);
    }
}

#[tokio::test]
async fn the_metadata_of_another_issuer_is_refused() {
    let world = World::new().await;
    let attacker = Attacker::start().await;
    let issuer = world.authorization_server.issuer();
    let others =
        [attacker.base.clone(), format!("{issuer}/"), issuer.to_uppercase(), format!("{issuer}/tenant"), String::new()];
    for other in others {
        world.authorization_server.always_metadata(MetadataFault::WrongIssuer(other.clone()));
        for lines in [world.pin(), String::new()] {
            let stderr = refused(token(&world.job(&lines)).await, 76, "server metadata is for issuer");
            assert!(stderr.contains("safeconduct: hint: "), "{stderr}");
        }
    }
    let daemon = world.job(&world.pin()).daemon(&[]).await;
    failed(&daemon.get("/v1/token?server=demo").await, 502, "refused", "issuer_mismatch");
    attacker.saw_nothing();
    assert_eq!(world.authorization_server.token_requests(), 0);
}

#[tokio::test]
async fn a_pin_with_a_slash_too_many_is_not_the_issuer() {
    let world = World::new().await;
    let pin = format!("issuer = \"{}/\"", world.authorization_server.issuer());
    let output = token(&world.job(&pin)).await;
    refused(output, 76, "issuer");
    assert_eq!(world.authorization_server.token_requests(), 0);
}

#[tokio::test]
async fn the_metadata_of_another_resource_is_refused() {
    let world = World::new().await;
    let base = world.mcp.base().to_owned();
    let others =
        ["https://mcp.example.com/mcp".to_owned(), format!("{base}/mcp/deeper"), format!("{base}/mc"), String::new()];
    for other in others {
        world.mcp.set_metadata(json!({"resource": other}));
        for lines in [world.pin(), String::new()] {
            refused(token(&world.job(&lines)).await, 76, "resource metadata is for");
        }
    }
    assert_eq!(world.authorization_server.token_requests(), 0);
}

/// `resource` in metadata may be a prefix of the URL. A token for the prefix is good at every server below it, so a caller
/// who is let in at one of them only must not have it.
#[tokio::test]
async fn one_resource_over_two_servers_does_not_get_round_allow() {
    let world = World::new().await;
    world.mcp.set_signposts(Signposts { header: None, inserted: false, root: true });
    let url = world.mcp.url();
    let toml = format!(
        "[egress]\ninsecure_loopback = true\n[servers.mine]\nurl = \"{url}/mine\"\n[servers.theirs]\nurl = \"{url}/theirs\"\nallow = [{{ uid = 61234 }}]\n"
    );
    let daemon = Safeconduct::new(binary()).envs(world.platform.env()).config(&toml).daemon(&[]).await;
    let reply = daemon.get("/v1/token?server=mine").await;
    assert_eq!((reply.status, reply.json()["class"].as_str()), (500, Some("config")));
    assert_eq!(world.authorization_server.token_requests(), 0);
}

// The network

#[tokio::test]
async fn no_redirect_is_followed_with_or_without_a_credential() {
    let attacker = Attacker::start().await;
    let elsewhere = || Fault::Redirect(format!("{}/elsewhere", attacker.base));
    let places: [(&str, SetFault, i32, &str); 4] = [
        ("identity", |world, fault| world.platform.always(fault), 69, "the identity endpoint"),
        ("resource metadata", |world, fault| world.mcp.always_metadata(fault), 76, "the resource metadata"),
        (
            "server metadata",
            |world, fault| world.authorization_server.always_metadata(fault),
            76,
            "the server metadata",
        ),
        ("token", |world, fault| world.authorization_server.always_token(fault), 76, "the token endpoint"),
    ];
    for (name, set, code, party) in places {
        let world = World::new().await;
        set(&world, elsewhere());
        let stderr = refused(token(&world.job("")).await, code, "answers with a redirect");
        assert!(stderr.contains(party), "{name}: {stderr}");
        assert!(stderr.contains("safeconduct: hint: "), "{name}: {stderr}");
    }
    attacker.saw_nothing();
}

#[tokio::test]
async fn a_redirect_of_the_mcp_server_is_not_followed() {
    let attacker = Attacker::start().await;
    let world = World::new().await;
    world.mcp.script([Fault::Redirect(format!("{}/elsewhere", attacker.base))]);
    let output = token(&world.job(&world.pin())).await;
    assert!([Some(0), Some(76)].contains(&output.code), "{}", output.stderr);
    attacker.saw_nothing();
}

/// Everything over TLS with names and addresses of this machine; only what the configuration names may be private.
struct Private {
    ca: TestCa,
    platform: FakePlatform,
    authorization_server: FakeAs,
    url: String,
    _mcp: FakeMcp,
}

impl Private {
    /// The MCP server is configured as `127.0.0.1`, the authorization server calls itself `localhost`.
    async fn new() -> Self {
        let ca = TestCa::new();
        let platform = FakePlatform::start().await;
        let authorization_server = FakeAs::start_tls(platform.trust(), ca.good()).await;
        let mcp = FakeMcp::start_tls(&authorization_server, &SCOPES, ca.good()).await;
        let url = mcp.url().replace("localhost", "127.0.0.1");
        authorization_server.register(&url, &SCOPES);
        mcp.set_metadata(json!({"resource": url}));
        mcp.set_signposts(Signposts { header: None, inserted: true, root: false });
        Self { ca, platform, authorization_server, url, _mcp: mcp }
    }

    async fn token(&self, egress: &str, lines: &str) -> Output {
        let issuer = self.authorization_server.issuer();
        let safeconduct = Safeconduct::new(binary());
        let file = safeconduct.private("subject.jwt");
        std::fs::write(&file, self.platform.mint(&issuer, Duration::from_secs(300))).expect("ours");
        let toml = format!(
            "[egress]\nca_file = \"{}\"\n{egress}\n[servers.demo]\nurl = \"{}\"\n{lines}\n",
            self.ca.file().display(),
            self.url
        );
        let file = file.display().to_string();
        safeconduct.config(&toml).run(&["--identity-file", &file, "token", "demo", "--timeout", "3s"]).await
    }
}

#[tokio::test]
async fn a_name_in_metadata_that_resolves_to_a_private_address_is_not_dialled() {
    let world = Private::new().await;
    let stderr = refused(world.token("", "").await, 76, "localhost is refused: it is a loopback address");
    assert!(stderr.contains("the server metadata"), "{stderr}");
    assert_eq!(world.authorization_server.metadata_requests(), 0);
    // Named by the configuration it is dialled, so the name alone was the reason.
    accepted(world.token("allow = [\"localhost\"]", "").await);
    let pin = format!("issuer = \"{}\"", world.authorization_server.issuer());
    accepted(world.token("", &pin).await);
}

#[tokio::test]
async fn a_token_endpoint_at_a_private_address_gets_no_subject_token() {
    let world = Private::new().await;
    let pin = format!("issuer = \"{}\"", world.authorization_server.issuer());
    let port = world.authorization_server.base().rsplit(':').next().expect("a port").to_owned();
    // Both loopback names are configured here, so other private places are named.
    for host in ["10.0.0.1", "192.168.0.1", "100.64.0.1", "[fd00::1]", "[::ffff:10.0.0.1]", "[::1]", "169.254.169.254"]
    {
        let place = format!("https://{host}:{port}/token");
        world.authorization_server.always_metadata(MetadataFault::TokenEndpoint(place));
        let stderr = refused(world.token("", &pin).await, 76, " is refused: it is a");
        assert!(stderr.contains("the token endpoint"), "{stderr}");
    }
    assert_eq!(world.authorization_server.token_requests(), 0);
}

#[tokio::test]
async fn a_private_address_in_metadata_is_not_dialled_even_in_development() {
    let world = World::new().await;
    let places = [
        "https://10.0.0.1",
        "https://172.16.0.1:8443",
        "https://169.254.169.254",
        "https://[::ffff:10.0.0.1]",
        "https://[::ffff:169.254.169.254]",
        "https://[64:ff9b::a9fe:a9fe]",
        "https://[fd00:ec2::254]",
        "https://0xa9.0xfe.43518",
        "https://2852039166",
    ];
    for place in places {
        world.mcp.set_metadata(json!({"authorization_servers": [place]}));
        refused(token(&world.job("")).await, 76, " is refused: it is a");
    }
    world.mcp.set_challenges(Some(&["Bearer resource_metadata=\"https://169.254.169.254/latest/meta-data\""]));
    refused(token(&world.job("")).await, 76, "169.254.169.254 is refused: it is a link-local address");
    assert_eq!(world.authorization_server.token_requests(), 0);
}

#[tokio::test]
async fn a_host_beyond_the_operators_list_is_not_dialled() {
    let world = World::new().await;
    world.mcp.set_metadata(json!({"authorization_servers": ["https://as.attacker.example"]}));
    let stderr =
        refused(token(&world.job_with("", "allow = [\"login.example.com\"]")).await, 77, "is not in [egress] allow");
    assert!(stderr.contains("hint: "), "{stderr}");
    world.mcp.set_metadata(json!({"authorization_servers": ["https://203.0.114.7"]}));
    refused(token(&world.job_with("", "allow = [\"10.1.0.0/16\"]")).await, 77, "not in [egress] allow");
}

#[tokio::test]
async fn bodies_without_end_measure_or_second_half_are_bounded() {
    let places: [(SetFault, i32, &str); 4] = [
        (|world, fault| world.platform.always(fault), 69, "the identity endpoint"),
        (|world, fault| world.mcp.always_metadata(fault), 76, "the resource metadata"),
        (|world, fault| world.authorization_server.always_metadata(fault), 76, "the server metadata"),
        (|world, fault| world.authorization_server.always_token(fault), 76, "the token endpoint"),
    ];
    let cases = places.into_iter().flat_map(|place| {
        [(Fault::HugeBody, "sends more than 64 KiB"), (Fault::HalfBody, "breaks off")].map(|fault| (place, fault))
    });
    join_all(cases.map(|((set, code, party), (fault, words))| async move {
        let world = World::new().await;
        let code = if matches!(fault, Fault::HugeBody) { code } else { 75 };
        set(&world, fault);
        let stderr = refused(token(&world.job("")).await, code, words);
        assert!(stderr.contains(party), "{stderr}");
    }))
    .await;
}

#[tokio::test]
async fn servers_that_stall_end_within_the_time_out_and_are_named() {
    let places: [(SetFault, &str); 4] = [
        (|world, fault| world.platform.always(fault), "the identity endpoint"),
        (|world, fault| world.mcp.always_metadata(fault), "the resource metadata"),
        (|world, fault| world.authorization_server.always_metadata(fault), "the server metadata"),
        (|world, fault| world.authorization_server.always_token(fault), "the token endpoint"),
    ];
    let cases = places.into_iter().flat_map(|place| [Fault::Stall, Fault::StallBody].map(|fault| (place, fault)));
    let outcomes = join_all(cases.map(|((set, party), fault)| async move {
        let world = World::new().await;
        set(&world, fault.clone());
        let output = tokio::time::timeout(BOUND, token(&world.job(""))).await.expect("bounded");
        let stderr = refused(output, 75, "within");
        // Which part of the path is waited for is what an operator needs to know.
        let error = stderr.lines().find(|line| line.starts_with("safeconduct: error: ")).unwrap_or_default();
        (!error.contains(party)).then(|| format!("{fault:?} of {party} is told as {error:?}"))
    }))
    .await;
    let wrong: Vec<String> = outcomes.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn a_helper_waits_for_a_slow_daemon_no_longer_than_it_was_told() {
    let world = World::new().await;
    world.platform.always(Fault::Stall);
    let daemon = world.job(&world.pin()).daemon(&[]).await;
    refused(daemon.run(&["token", "demo", "--timeout", "1s"]).await, 75, "no answer within 1 s");
    assert_eq!(daemon.get("/healthz").await.status, 200);
}

/// What answers on a socket that somebody named may be anything.
#[tokio::test]
async fn what_is_no_daemon_ends_a_helper_within_its_time_out() {
    let world = World::new().await;
    // What can be told at once is told at once; the time-out is for what never comes to an end.
    let answers: [(&[u8], Duration, i32); 4] = [
        (b"SSH-2.0-OpenSSH_9.9\r\n", Duration::ZERO, 78),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n{\"a\":1}", Duration::ZERO, 78),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 70\r\n\r\n{\"a\":1}", Duration::ZERO, 78),
        // One byte now and then, and never the last.
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9000\r\n\r\n", Duration::from_millis(300), 75),
    ];
    for (answer, pause, code) in answers {
        let safeconduct = Safeconduct::new(binary()).envs(world.platform.env()).limit(Duration::from_secs(20));
        let listener = UnixListener::bind(safeconduct.socket()).expect("bound");
        let strange = async {
            let (mut stream, _) = listener.accept().await.expect("accepted");
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            for byte in answer.chunks(if pause.is_zero() { answer.len() } else { 1 }) {
                if stream.write_all(byte).await.is_err() {
                    return;
                }
                tokio::time::sleep(pause).await;
            }
        };
        let timeout = if pause.is_zero() { "15s" } else { "1s" };
        let asked = safeconduct.run(&["token", "demo", "--timeout", timeout]);
        let ((), output) = tokio::join!(strange, asked);
        refused(output, code, "at ");
    }
    assert_eq!(world.platform.requests(), 0, "it is not done here instead");
}

// The neighbours

#[tokio::test]
async fn no_spelling_of_a_url_gets_round_allow() {
    let world = World::new().await;
    let daemon = world.job("allow = [{ uid = 61234 }]").daemon(&[]).await;
    let url = world.mcp.url();
    let port = world.mcp.base().rsplit(':').next().expect("a port").to_owned();
    let spellings = [
        url.clone(),
        format!("{url}/"),
        format!("{url}//"),
        format!("{url}?a=b"),
        format!("{url}/below"),
        url.replace("http://", "HTTP://"),
        format!("http://127.1:{port}/mcp"),
        format!("http://0x7f000001:{port}/mcp"),
        format!("http://2130706433:{port}/mcp"),
        format!("http://127.0.0.1:0{port}/mcp"),
    ];
    for spelling in spellings {
        let query = url::form_urlencoded::byte_serialize(spelling.as_bytes()).collect::<String>();
        failed(&daemon.get(&format!("/v1/token?server={query}")).await, 403, "denied", "access_denied");
        let output = daemon.run(&["token", &spelling]).await;
        refused(output, 77, "is not allowed to use this server");
    }
    let base = world.mcp.base();
    let refused_at_sight = [
        format!("{base}/mcp/../mcp"),
        format!("{base}/./mcp"),
        format!("{base}/mcp/%2e%2e/mcp"),
        format!("{base}/mcp/.%2E/mcp"),
        format!("{base}\\mcp"),
        format!("http://somebody@127.0.0.1:{port}/mcp"),
        format!("http://:@127.0.0.1:{port}/mcp"),
        format!("{url}#fragment"),
        format!("http://127.0.0.1%3a{port}/mcp"),
        format!("http://１２７.0.0.1:{port}/mcp"),
        format!(" {url}"),
        format!("{url}\t"),
    ];
    for spelling in refused_at_sight {
        let query = url::form_urlencoded::byte_serialize(spelling.as_bytes()).collect::<String>();
        failed(&daemon.get(&format!("/v1/token?server={query}")).await, 400, "bad_request", "invalid_request");
        refused(daemon.run(&["token", &spelling]).await, 64, "");
    }
    let not_served =
        [format!("{base}/"), format!("{base}/mcpx"), format!("{base}/%6dcp"), format!("http://localhost:{port}/mcp")];
    for spelling in not_served {
        let query = url::form_urlencoded::byte_serialize(spelling.as_bytes()).collect::<String>();
        failed(&daemon.get(&format!("/v1/token?server={query}")).await, 403, "denied", "server_not_configured");
        refused(daemon.run(&["token", &spelling]).await, 77, "is not a configured server");
    }
    assert_eq!((world.platform.requests(), world.mcp.seen().len()), (0, 0), "policy comes before everything");
}

#[tokio::test]
async fn the_narrowest_server_decides_however_the_wider_one_is_spelled() {
    let world = World::new().await;
    let url = world.mcp.url();
    let toml = format!(
        "[egress]\ninsecure_loopback = true\n[servers.wide]\nurl = \"{url}////////////\"\n[servers.narrow]\nurl = \"{url}/admin\"\nallow = [{{ uid = 61234 }}]\n"
    );
    let daemon = Safeconduct::new(binary()).envs(world.platform.env()).config(&toml).daemon(&[]).await;
    failed(&daemon.get(&format!("/v1/token?server={url}/admin")).await, 403, "denied", "access_denied");
    failed(&daemon.get(&format!("/v1/token?server={url}/admin/x")).await, 403, "denied", "access_denied");
}

#[tokio::test]
async fn a_url_beside_a_configured_one_is_not_taken_for_unconfigured() {
    let world = World::new().await;
    let beside = format!("{}/elsewhere", world.mcp.base());
    let job = world.job("allow = [{ uid = 61234 }]");
    refused(job.run(&["token", &beside]).await, 77, "on the origin of the configured server");
    refused(job.run(&["token", &beside.replace("127.0.0.1", "127.1")]).await, 77, "on the origin");
    assert_eq!(world.platform.requests(), 0);
}

#[tokio::test]
async fn a_user_that_no_rule_names_gets_nothing() {
    let world = World::new().await;
    let daemon = world.job("allow = [{ uid = 61234 }]").daemon(&[]).await;
    let mine = nix::unistd::geteuid().as_raw();
    for path in ["/v1/token?server=demo", "/v1/headers?server=demo"] {
        let reply = daemon.get(path).await;
        failed(&reply, 403, "denied", "access_denied");
        assert!(reply.json()["hint"].as_str().is_some_and(|hint| hint.contains(&format!("uid = {mine}"))));
    }
    let digest = "0".repeat(64);
    let body = json!({"server": "demo", "access_token_sha256": digest});
    failed(&daemon.post("/v1/reject", &body).await, 403, "denied", "access_denied");
    failed(&daemon.post("/v1/revoke", &json!({"server": "demo"})).await, 403, "denied", "access_denied");
    // Being asked whether it is ready must not make it fetch a token for somebody who may not have it.
    daemon.get("/readyz?server=demo").await;
    assert_eq!((world.platform.requests(), world.mcp.seen().len()), (0, 0));
}

/// Another user of the machine, for real. It needs root, which CI has.
#[tokio::test]
async fn a_foreign_user_is_told_no_by_the_kernels_word() {
    let Some(copy) = as_root_only() else { return };
    let world = World::new().await;
    for (rule, code, words) in [
        ("", 77, "is not allowed to use this server"),
        ("allow = [{ uid = 0 }]", 77, "is not allowed to use this server"),
        ("allow = [{ uid = 65534, gid = 0 }]", 77, "is not allowed to use this server"),
        ("allow = [{ uid = 65534 }]", 0, ""),
        ("allow = [{ gid = 65534 }]", 0, ""),
    ] {
        let listen = "[listen]\nsocket_mode = \"0660\"\nsocket_group = \"65534\"\n";
        let job = world.job_with(&format!("{}\n{rule}\n{listen}", world.pin()), "");
        open_to_all(job.path());
        let daemon = job.daemon(&[]).await;
        let output = as_user(STRANGER, &daemon.helper(), &copy, &["token", "demo", "--daemon-only"]).await;
        match code {
            0 => drop(accepted(output)),
            _ => {
                let stderr = refused(output, code, words);
                assert!(stderr.contains("uid = 65534"), "the hint names the rule that would help: {stderr}");
            }
        }
    }
    assert_eq!(world.authorization_server.token_requests(), 2);
}

/// Two callers, two ceilings, one server: neither sees what was made for the other.
#[tokio::test]
async fn a_narrow_caller_never_gets_a_wide_callers_token() {
    let Some(copy) = as_root_only() else { return };
    let world = World::new().await;
    let toml = format!(
        "[egress]\ninsecure_loopback = true\n[listen]\nsocket_mode = \"0660\"\nsocket_group = \"65534\"\n[servers.demo]\nurl = \"{}\"\n{}\nallow = [{{ uid = 65534 }}, {{ uid = 0, scopes = [\"demo:read\"] }}]\n[servers.hidden]\nurl = \"https://hidden.example\"\n",
        world.mcp.url(),
        world.pin()
    );
    let job = Safeconduct::new(binary()).envs(world.platform.env()).config(&toml);
    open_to_all(job.path());
    let daemon = job.daemon(&[]).await;
    let args = ["token", "demo", "-o", "json"];
    let wide = as_user(STRANGER, &daemon.helper(), &copy, &args).await.expect_code(0).json();
    assert_eq!(wide["scope"], "demo:read demo:write");
    for path in ["/v1/token?server=demo", "/v1/token?server=demo&scope=demo:read+demo:write"] {
        let narrow = daemon.get(path).await.json();
        assert_eq!(narrow["scope"], "demo:read");
        assert_ne!(narrow["access_token"], wide["access_token"]);
    }
    // An authorization server that grants what nobody asked for changes nothing.
    world.authorization_server.always_token(TokenFault::ScopeGranted(Some(SCOPES.join(" "))));
    // A token that was minted within the last second is fresh enough.
    let mut reply = daemon.get("/v1/token?server=demo&fresh=1").await;
    until(BOUND, "a new token is asked for", async || {
        reply = daemon.get("/v1/token?server=demo&fresh=1").await;
        reply.status != 200
    })
    .await;
    failed(&reply, 403, "denied", "scope_beyond_ceiling");
    // What a caller may not use it is not told about.
    let status = as_user(STRANGER, &daemon.helper(), &copy, &["status", "--json"]).await.expect_code(0);
    assert!(status.stdout.contains("\"demo\"") && !status.stdout.contains("hidden"), "{}", status.stdout);
    leak::check("the status that another user sees", &status.stdout);
}

#[tokio::test]
async fn a_user_without_a_name_a_home_or_a_readable_file_is_told_what_is_missing() {
    let Some(copy) = as_root_only() else { return };
    let world = World::new().await;
    let job = Safeconduct::new(binary()).envs(world.platform.env()).without_env("HOME").without_env("TMPDIR");
    open_to_all(job.path());
    let url = world.mcp.url();
    let args = ["token", &url, "--insecure-loopback", "--timeout", "3s"];
    accepted(as_user(VICTIM, &job, &copy, &args).await);
    let file = job.private("subject.jwt");
    std::fs::write(&file, world.platform.mint(&world.authorization_server.issuer(), Duration::from_secs(300)))
        .expect("ours");
    let file = file.display().to_string();
    let stderr = refused(
        as_user(VICTIM, &job, &copy, &[&args[..], &["--identity-file", &file]].concat()).await,
        69,
        "ermission denied",
    );
    assert!(stderr.contains("let uid 61234 read it"), "{stderr}");
    // A configuration file of another user says what we shall do; so it must not be another user's.
    let config = job.path().join("theirs.toml");
    std::fs::write(&config, "").expect("ours");
    std::os::unix::fs::chown(&config, Some(STRANGER), None).expect("we are root");
    let config = config.display().to_string();
    refused(job.run(&["config", "check", "--config", &config]).await, 78, "belongs to uid 65534");
}

#[tokio::test]
async fn a_socket_that_may_not_be_used_is_a_refusal_and_not_an_absent_daemon() {
    let Some(copy) = as_root_only() else { return };
    let world = World::new().await;
    let job = world.job(&world.pin());
    open_to_all(job.path());
    let daemon = job.daemon(&[]).await;
    let output = as_user(STRANGER, &daemon.helper(), &copy, &["token", &world.mcp.url(), "--insecure-loopback"]).await;
    refused(output, 77, "ermission denied");
    assert_eq!(world.platform.requests(), 0);
}

/// A daemon of another user sits in the place that a helper finds by itself.
#[tokio::test]
async fn a_squatted_compiled_in_place_is_not_trusted() {
    let Some(copy) = as_root_only() else { return };
    let world = World::new().await;
    let place = PathBuf::from(format!("/tmp/safeconduct-{VICTIM}"));
    let _gone = Gone(place.clone());
    let _ = std::fs::remove_dir_all(&place);
    std::fs::create_dir(&place).expect("nobody has this uid");
    std::os::unix::fs::chown(&place, Some(STRANGER), Some(STRANGER)).expect("we are root");
    std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o755)).expect("we are root");
    let socket = place.join("safeconduct.sock");

    let safeconduct =
        Safeconduct::new(binary()).env("SAFECONDUCT_SOCKET", &socket.display().to_string()).envs(world.platform.env());
    open_to_all(safeconduct.path());
    let mut squatter = command_as(STRANGER, &safeconduct, &copy, &["run", "--identity-file", "/nonexistent"]);
    let squatter = squatter.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut squatter = squatter.spawn().expect("it starts");
    let there = async {
        while UnixStream::connect(&socket).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(BOUND, there).await.expect("the squatter listens");
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666)).expect("we are root");

    let victim = safeconduct.clone().without_env("SAFECONDUCT_SOCKET");
    let args = ["token", &world.mcp.url(), "--insecure-loopback"];
    let stderr = refused(as_user(VICTIM, &victim, &copy, &args).await, 77, "belongs to a process of uid 65534");
    assert!(stderr.contains("hint: "), "{stderr}");
    let doctor = as_user(VICTIM, &victim, &copy, &["doctor", "--json"]).await.expect_code(77);
    assert!(doctor.stdout.contains("belongs to a process of uid 65534"), "{}", doctor.stdout);
    let named = safeconduct.env("SAFECONDUCT_SOCKET", &socket.display().to_string());
    let output = as_user(VICTIM, &named, &copy, &["token", "demo"]).await;
    refused(output, 64, "no server is called");
    assert_eq!(world.platform.requests(), 0, "a squatter does not make us do the work ourselves");
    squatter.kill().await.expect("it is ours");
}

#[tokio::test]
async fn what_lies_at_the_socket_path_is_not_overwritten() {
    let world = World::new().await;
    let job = world.job(&world.pin());
    let (file, link) = (job.write("precious", "precious"), job.path().join("link"));
    std::os::unix::fs::symlink(&file, &link).expect("ours");
    let dangling = job.path().join("dangling");
    std::os::unix::fs::symlink(job.path().join("target"), &dangling).expect("ours");
    for place in [&file, &link, &dangling] {
        let place = place.display().to_string();
        let stderr = refused(job.run(&["run", "--socket", &place]).await, 78, "something else than a socket");
        assert!(stderr.contains("hint: "), "{stderr}");
    }
    assert_eq!(std::fs::read_to_string(&file).expect("still there"), "precious");
    assert!(!job.path().join("target").exists());
    // The lock beside the socket is no way to truncate a file of ours either.
    let socket = job.path().join("other.sock");
    std::os::unix::fs::symlink(&file, job.path().join("other.sock.lock")).expect("ours");
    refused(job.run(&["run", "--socket", &socket.display().to_string()]).await, 78, "other.sock.lock");
    assert_eq!(std::fs::read_to_string(&file).expect("still there"), "precious");
}

#[tokio::test]
async fn a_squatted_job_directory_is_refused() {
    let world = World::new().await;
    let job = world.job(&world.pin()).without_env("SAFECONDUCT_SOCKET");
    let temp = job.path().join("tmp");
    let elsewhere = job.path().join("home");
    std::os::unix::fs::symlink(&elsewhere, temp.join("safeconduct")).expect("ours");
    let job = job.env("RUNNER_TEMP", &temp.display().to_string());
    refused(job.run(&["run"]).await, 78, "is there and no directory");
    assert_eq!(std::fs::read_dir(&elsewhere).expect("ours").count(), 0, "nothing was put where the link points");
}

/// Header lines that only pages, proxies and rebound names bring.
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
        // The name in the request line counts more than the header (RFC 9112 section 3.2.2).
        let absolute = format!("GET http://evil.example{route} HTTP/1.1\r\n{good}connection: close\r\n\r\n");
        assert_eq!(daemon.exchange(&absolute).await.status, 403, "absolute form, {route}");
    }
    assert_eq!(world.platform.requests(), 0);
    for host in ["localhost", "localhost:7878", "LOCALHOST", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:7878"] {
        let reply =
            daemon.exchange(&format!("GET /healthz HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")).await;
        assert_eq!(reply.status, 200, "{host}");
    }
}

/// A page that found the port, by rebinding its own name or by asking plainly, with or without a stolen secret.
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
        assert_eq!(loopback.exchange(&absolute).await.status, 403, "absolute form, {route}");
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
    // What follows a request that was not let in is not let in with it.
    let smuggled = "GET /v1/status HTTP/1.1\r\nhost: localhost\r\ncontent-length: 60\r\n\r\nGET /v1/token?server=demo HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let stream = TcpStream::connect(loopback.address).await.expect("it listens");
    let answer = converse(stream, smuggled.as_bytes(), true).await;
    assert!(answer.starts_with("HTTP/1.1 403") && !answer.contains("access_token"), "{answer}");
    assert_eq!(loopback.get("/v1/token?server=demo").await.status, 200);
}

/// Loopback is open to every user of the machine; the file with the secret is not.
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

/// Requests that are none.
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
    // A body where none belongs is not waited for, and is not the next request.
    let smuggled = "GET /healthz HTTP/1.1\r\nhost: localhost\r\ncontent-length: 69\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /v1/token?server=demo HTTP/1.1\r\nhost: localhost\r\norigin: x\r\n\r\n";
    let answer = speak(daemon.socket(), smuggled.as_bytes(), true).await;
    assert!(!answer.contains("access_token"), "{}", answer.lines().next().unwrap_or_default());
    assert!(answer.matches("HTTP/1.1 200").count() <= 1);

    // Callers that never come to an end stay; others are served beside them.
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
        "/oauth/token",
        "/mcp/demo",
    ] {
        failed(&daemon.get(path).await, 404, "bad_request", "not_found");
    }
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

// Tokens where they do not belong

/// The harness looks at every output; this drives as much of the program as there is at its loudest.
#[tokio::test]
async fn no_token_is_in_any_log_at_any_level() {
    let world = World::new().await;
    let job = world.job(&world.pin()).env("RUST_LOG", "trace").env("RUST_BACKTRACE", "1");
    let daemon = job.daemon(&["--log", "trace"]).await;
    let token = daemon.token("demo").await;
    daemon.get("/v1/headers?server=demo").await;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
    let digest: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(daemon.post("/v1/reject", &json!({"server": "demo", "access_token_sha256": digest})).await.status, 204);
    daemon.token("demo").await;
    // Tokens in places where only a mistake puts them.
    for path in [
        format!("/v1/token?server={token}"),
        format!("/v1/{token}"),
        format!("/v1/token?server=demo&{token}=1"),
        format!("/v1/token?server=https://mcp.example.com/?t={token}"),
    ] {
        let reply = daemon.get(&path).await;
        assert!(reply.status >= 400);
    }
    daemon.post("/v1/reject", &json!({"server": token, "access_token_sha256": token})).await;
    for path in ["/v1/status", "/metrics", "/readyz"] {
        leak::check(path, &daemon.get(path).await.body);
    }
    for fault in [
        TokenFault::BadTokenCharacters,
        TokenFault::HugeToken,
        TokenFault::TokenType("MAC".to_owned()),
        TokenFault::ExpiresIn(json!(-1)),
        TokenFault::Wire(Fault::WrongContentType),
        TokenFault::Wire(Fault::NonUtf8),
        TokenFault::Wire(Fault::HalfBody),
    ] {
        let world = World::new().await;
        world.authorization_server.always_token(fault);
        let output = world
            .job(&world.pin())
            .run(&["--log", "trace", "--log-format", "json", "token", "demo", "--timeout", "1s"])
            .await;
        assert!(!output.succeeded());
    }
    daemon.run(&["status", "--json"]).await.expect_code(0);
    daemon.post("/v1/revoke", &json!({"server": "demo"})).await;
    assert!(world.authorization_server.revocations() > 0);
    daemon.stop().await.expect_code(0);
}

/// A runner decodes `%25` and `%0A` in its commands: a mask for the decoded text would leave the real token in the log.
#[tokio::test]
async fn the_runner_masks_the_token_that_is_printed() {
    let world = World::new().await;
    let attacker = Attacker::start().await;
    world.mcp.set_metadata(json!({"authorization_servers": [attacker.base]}));
    let job = world.job(&format!("issuer = \"{}\"", attacker.base)).without_env("SAFECONDUCT_LOG");
    let output = job.run(&["token", "demo", "--mask"]).await.expect_code(0);
    assert_eq!(output.stdout, format!("{ODD_TOKEN}\n"));
    assert_eq!(output.stderr, format!("::add-mask::{}\n", ODD_TOKEN.replace('%', "%25")));
}

/// People paste the token where the file name belongs.
#[tokio::test]
async fn a_token_in_the_place_of_a_file_name_is_not_shown() {
    let world = World::new().await;
    let jwt = world.platform.mint(&world.authorization_server.issuer(), Duration::from_secs(300));
    let job = world.job(&world.pin());
    let identity = job.run(&["--identity-file", &jwt, "token", "demo"]).await;
    refused(identity, 69, "JWT");
    let toml = format!(
        "[identity]\nsource = \"file\"\ntoken_file = \"{jwt}\"\n[egress]\ninsecure_loopback = true\n[servers.demo]\nurl = \"{}\"\n{}\n",
        world.mcp.url(),
        world.pin()
    );
    let private = job.private("pasted.toml");
    std::fs::write(&private, &toml).expect("ours");
    let private = private.display().to_string();
    let plain = Safeconduct::new(binary());
    refused(plain.run(&["--config", &private, "token", "demo"]).await, 69, "JWT");
    let in_file = job.private("subject.jwt");
    std::fs::write(&in_file, &jwt).expect("ours");
    refused(plain.run(&["--config", &in_file.display().to_string(), "token", "demo"]).await, 78, "");
}

#[tokio::test]
async fn a_refused_assertion_is_never_presented_again() {
    let world = World::new().await;
    world.authorization_server.always_token(TokenFault::oauth("invalid_grant"));
    let job = world.job(&world.pin());
    let file = job.private("subject.jwt");
    let write = || {
        std::fs::write(&file, world.platform.mint(&world.authorization_server.issuer(), Duration::from_secs(300)))
            .expect("ours");
    };
    write();
    let daemon = job.daemon(&["--identity-file", &file.display().to_string()]).await;
    failed(&daemon.get("/v1/token?server=demo").await, 502, "refused", "invalid_grant");
    // Each of these has a cache key of its own or asks for a new token; none is a reason to show the same assertion again.
    for query in ["", "&fresh=1", "&scope=openid", "&scope=demo:read", "&scope=demo:read+openid&fresh=1"] {
        let reply = daemon.get(&format!("/v1/token?server=demo{query}")).await;
        assert!(reply.status == 502 || reply.status == 403, "{query}: {}", reply.body);
    }
    assert_eq!(world.authorization_server.token_requests(), 1);
    // A new one is another matter.
    world.authorization_server.heal();
    write();
    let reply = daemon.get("/v1/token?server=demo&scope=demo:read").await;
    assert!(reply.status == 200 || reply.status == 502, "{}", reply.body);
    assert!(world.authorization_server.token_requests() <= 2);
}

#[tokio::test]
async fn after_a_refusal_there_is_no_second_grant() {
    let codes = [
        "invalid_grant",
        "invalid_client",
        "invalid_target",
        "invalid_scope",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_request",
        "access_denied",
        "made_up_code",
    ];
    for code in codes {
        let world = World::new().await;
        world.authorization_server.set_grants(Some(&[
            JWT_BEARER,
            "client_credentials",
            "urn:ietf:params:oauth:grant-type:token-exchange",
            "authorization_code",
        ]));
        world.authorization_server.always_token(TokenFault::oauth(code));
        let stderr = refused(token(&world.job(&world.pin())).await, 76, code);
        assert!(stderr.contains("hint: "), "{stderr}");
        assert_eq!(world.authorization_server.token_requests(), 1, "{code}");
        assert_eq!(world.authorization_server.last_request().params["grant_type"], JWT_BEARER);
    }
}

#[tokio::test]
async fn an_unusable_identity_is_not_replaced_by_another() {
    let world = World::new().await;
    world.platform.always(PlatformFault::WrongAudience);
    refused(token(&world.job(&world.pin())).await, 69, "the identity token is made for");
    world.platform.heal();
    world.platform.always(PlatformFault::ManyAudiences);
    refused(token(&world.job(&world.pin())).await, 69, "names 2 audiences");
    assert_eq!(world.authorization_server.token_requests(), 0);
    // A named file that is not there does not fall back to the job's identity.
    let job = world.job(&world.pin());
    refused(
        job.run(&["--identity-file", "/nonexistent/token", "token", "demo"]).await,
        69,
        "/nonexistent/token cannot be read",
    );
    assert_eq!(world.platform.requests(), 2);
}

// Words of strangers

#[tokio::test]
async fn words_of_strangers_cannot_command_a_terminal_or_a_runner() {
    let world = World::new().await;
    let hostile = TokenFault::OauthError {
        code: "invalid_grant".to_owned(),
        description: Some(format!(
            ":::add-path:::/evil\r\n::set-output name=x::y ##vso[task.complete] ##[error] \u{1b}]0;owned\u{7} \u{9b}31m \u{202e}{}",
            "x".repeat(5_000)
        )),
        uri: Some("::stop-commands::x".to_owned()),
    };
    world.authorization_server.always_token(hostile);
    let job = world.job(&world.pin());
    let everything = [job.clone(), job.without_env("SAFECONDUCT_LOG")];
    for job in everything {
        let stderr = refused(token(&job).await, 76, "in its words: ");
        harmless(&stderr);
        for command in ["::", "##[", "##vso["] {
            assert!(!stderr.contains(command), "{command} is in\n{stderr}");
        }
    }
    let daemon = world.job(&world.pin()).daemon(&[]).await;
    let description =
        daemon.get("/v1/token?server=demo").await.json()["error_description"].as_str().unwrap_or_default().to_owned();
    harmless(&description);
}

#[tokio::test]
async fn hostile_names_in_metadata_are_shown_short_and_clean() {
    let world = World::new().await;
    let long = format!("https://as.example.com/{}", "x".repeat(30_000));
    for name in [
        "https://as.example.com/\u{9b}31mred",
        "https://as.example.com/\u{202e}moc.live",
        "https://as.example.com/\u{200b}x",
        "\u{1b}[31m",
        long.as_str(),
    ] {
        for metadata in [
            json!({"authorization_servers": [name]}),
            json!({"authorization_servers": [name, name]}),
            json!({"resource": name}),
        ] {
            let world = World::new().await;
            world.mcp.set_metadata(metadata);
            let output = token(&world.job_with("", "allow = []")).await;
            assert!(!output.succeeded());
            harmless(&output.stderr);
        }
    }
    for claims in [json!({"aud": long}), json!({"aud": "\u{1b}[31m\u{9b}32m"})] {
        world.platform.always(PlatformFault::Claims(claims));
        let output = token(&world.job(&world.pin())).await;
        harmless(&refused(output, 69, "the identity token is made for"));
    }
    world.platform.always(PlatformFault::Claims(json!({"sub": "\u{1b}[31m\u{9b}32m\u{202e}\nsource forged"})));
    let output = world.job(&world.pin()).run(&["whoami", "--audience", "https://as.example.com"]).await.expect_code(0);
    harmless(&output.stdout);
    assert!(!output.stdout.contains("\nsource forged"), "{}", output.stdout);
}

/// No control or direction character, and no line longer than a person reads.
#[track_caller]
fn harmless(text: &str) {
    let bad = text.chars().find(|c| {
        (c.is_control() && *c != '\n')
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    });
    let start: String = text.chars().take(600).collect();
    assert!(bad.is_none(), "{bad:?} in\n{start:?}");
    assert!(
        text.lines().all(|line| line.len() < 2_000),
        "a line of {:?} bytes: {start}",
        text.lines().map(str::len).max()
    );
}

// Other users

/// Removes a directory at the end, however that comes.
struct Gone(PathBuf);

impl Drop for Gone {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A place that every user can execute, with the binary in it; none without root, which a CI job must have.
struct Copy {
    _directory: tempfile::TempDir,
    binary: PathBuf,
}

fn as_root_only() -> Option<Copy> {
    #[expect(clippy::disallowed_methods, reason = "the test asks about its own surroundings")]
    let in_ci = std::env::var_os("CI").is_some();
    if !nix::unistd::geteuid().is_root() {
        assert!(!in_ci, "CI must run this as root: a foreign user cannot be played otherwise");
        return None;
    }
    let directory = tempfile::Builder::new().prefix("scbin").tempdir_in("/tmp").expect("/tmp is writable");
    open_to_all(directory.path());
    let copy = directory.path().join("safeconduct");
    std::fs::copy(binary(), &copy).expect("there is room");
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755)).expect("ours");
    Some(Copy { _directory: directory, binary: copy })
}

fn open_to_all(directory: &Path) {
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o711)).expect("ours");
}

fn command_as(uid: u32, world: &Safeconduct, copy: &Copy, args: &[&str]) -> tokio::process::Command {
    let like = world.command(&[]);
    let mut command = tokio::process::Command::new(&copy.binary);
    command
        .args(args)
        .env_clear()
        .current_dir("/")
        .uid(uid)
        .gid(uid)
        .kill_on_drop(true)
        .stdin(std::process::Stdio::null());
    command.envs(like.as_std().get_envs().filter_map(|(name, value)| Some((name, value?))));
    // The harness's home is private to our own user.
    command.env("HOME", "/nonexistent");
    command
}

async fn as_user(uid: u32, world: &Safeconduct, copy: &Copy, args: &[&str]) -> Output {
    let output = tokio::time::timeout(BOUND, command_as(uid, world, copy, args).output())
        .await
        .expect("bounded")
        .expect("it starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let output = Output { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) };
    leak::check("stderr of another user's safeconduct", &output.stderr);
    output
}

/// Sends raw bytes and gives whatever comes until the other side closes, or, with the writing half closed on our side, says
/// nothing for a while.
async fn speak(socket: &Path, request: &[u8], close: bool) -> String {
    converse(UnixStream::connect(socket).await.expect("it listens"), request, close).await
}

async fn converse(stream: impl AsyncRead + AsyncWrite, request: &[u8], close: bool) -> String {
    let (mut from, mut to) = tokio::io::split(stream);
    let request = request.to_vec();
    let mut answer = Vec::new();
    let write = async {
        // It may have heard enough before the end.
        let _ = to.write_all(&request).await;
        if close {
            let _ = to.shutdown().await;
        }
        to
    };
    let read = async {
        let mut chunk = [0; 4096];
        while let Ok(Ok(length @ 1..)) = tokio::time::timeout(Duration::from_secs(2), from.read(&mut chunk)).await {
            answer.extend_from_slice(&chunk[..length]);
        }
    };
    tokio::join!(write, read);
    String::from_utf8_lossy(&answer).into_owned()
}
