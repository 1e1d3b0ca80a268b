//! Bad input: each case has an input and the expected exit code, class, message and hint.
//!
//! The cases are data (`tests/bad_input/`). Each runs as a single command and, if a daemon can have the same problem, through a
//! daemon's socket as well. Always: nothing on standard output, `safeconduct: error:` on standard error, and a hint where the
//! case names one.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::json;
use support::authorization_server::{FakeAs, TokenFault};
use support::fault::Fault;
use support::mcp_server::FakeMcp;
use support::platform::FakePlatform;
use support::safeconduct::{Output, Safeconduct};
use support::wait::until;

use crate::{LIMIT, binary};
use case::Case;

mod case;

const SCOPES: [&str; 2] = ["demo:read", "demo:write"];
const LIFE: Duration = Duration::from_secs(300);

/// How many cases run at the same time. Many, because some only wait for a time limit.
const AT_ONCE: usize = 8;

/// The servers and the program of one case.
struct World {
    platform: FakePlatform,
    authorization_server: FakeAs,
    mcp: FakeMcp,
    safeconduct: Safeconduct,
    /// Lines of `[servers.demo]`; by default, the issuer.
    server: String,
    /// Tables before `[servers.demo]`.
    top: String,
    /// The whole file, instead of the lines above.
    file: Option<String>,
    args: Vec<String>,
}

impl World {
    async fn new() -> Self {
        let platform = FakePlatform::start().await;
        let authorization_server = FakeAs::start(platform.trust()).await;
        let mcp = FakeMcp::start(&authorization_server, &SCOPES).await;
        let server = format!("issuer = \"{}\"", authorization_server.issuer());
        let safeconduct = Safeconduct::new(binary()).envs(platform.env());
        let args = ["token", "demo", "--timeout", "20s"].map(str::to_owned).into();
        Self { platform, authorization_server, mcp, safeconduct, server, top: String::new(), file: None, args }
    }

    fn configured(&self) -> Safeconduct {
        let whole = || {
            format!(
                "{}\n[egress]\ninsecure_loopback = true\n[servers.demo]\nurl = \"{}\"\nscopes = [\"demo:read\"]\n{}\n",
                self.top,
                self.mcp.url(),
                self.server
            )
        };
        self.safeconduct.clone().config(&self.file.clone().unwrap_or_else(whole))
    }

    fn args(&mut self, args: &[&str]) {
        self.args = args.iter().map(|arg| (*arg).to_owned()).collect();
    }

    /// `config check` of this file.
    fn check(&mut self, file: &str) {
        self.file = Some(file.to_owned());
        self.args(&["config", "check"]);
    }

    /// The identity is in a file with this content.
    fn identity(&mut self, content: impl AsRef<[u8]>) {
        let path = self.safeconduct.private("subject.jwt");
        std::fs::write(&path, content).expect("ours");
        self.identity_at(&path.display().to_string());
    }

    fn identity_at(&mut self, path: &str) {
        self.top = format!("[identity]\nsource = \"file\"\ntoken_file = \"{path}\"");
    }

    async fn run(&self, safeconduct: &Safeconduct, more: &[&str]) -> Output {
        let args: Vec<&str> = self.args.iter().map(String::as_str).chain(more.iter().copied()).collect();
        safeconduct.run(&args).await
    }
}

/// Runs the cases of a group, each in its own world.
async fn every_case(group: &str, judge: impl AsyncFn(&Case, World) -> Result<(), String>) {
    let cases = case::group(group);
    let outcomes = futures_util::stream::iter(&cases).map(|case| {
        let judge = &judge;
        async move {
            let mut world = World::new().await;
            let case = Case::read(case, &world);
            case.give(&mut world);
            judge(&case, world).await.map_err(|why| format!("* {}: {why}", case.name))
        }
    });
    let wrong: Vec<String> =
        outcomes.buffer_unordered(AT_ONCE).filter_map(async |outcome| outcome.err()).collect().await;
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

async fn bad(group: &str) {
    every_case(group, async |case, world| {
        let safeconduct = world.configured();
        as_command(case, &world.run(&safeconduct, &[]).await)?;
        match &case.class {
            Some(class) => through_a_daemon(case, class, &safeconduct).await,
            None => Ok(()),
        }
    })
    .await;
}

fn as_command(case: &Case, output: &Output) -> Result<(), String> {
    let line = |start: &str| {
        output.stderr.find(start).map(|at| output.stderr[at + start.len()..].trim_end().to_owned()).unwrap_or_default()
    };
    let error = line("safeconduct: error: ");
    let error = error.split("\nsafeconduct: hint: ").next().unwrap_or_default();
    let hint = line("safeconduct: hint: ");
    let right = case.exit != 0
        && output.code == Some(case.exit)
        && output.stdout.is_empty()
        && error.contains(&case.says)
        && case.lists.as_ref().is_none_or(|wanted| lists(error, wanted))
        && hint.contains(&case.hint)
        && !error.is_empty();
    if right {
        return Ok(());
    }
    let last: Vec<&str> = output.stderr.lines().rev().take(case.lists.as_ref().map_or(4, |_| 12)).collect();
    Err(format!("exit {:?}, {last:#?}", output.code))
}

/// Does the message list these problems and no other?
fn lists(error: &str, wanted: &[String]) -> bool {
    let found: Vec<&str> = error.lines().filter_map(|line| line.strip_prefix("  ")).collect();
    found.len() == wanted.len() && found.iter().zip(wanted).all(|(found, wanted)| found.contains(wanted))
}

async fn through_a_daemon(case: &Case, class: &str, safeconduct: &Safeconduct) -> Result<(), String> {
    let daemon = safeconduct.daemon(&[]).await;
    let reply = daemon.get("/v1/token?server=demo").await;
    let body = reply.json();
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    let status = match class {
        "bad_request" => 400,
        "denied" => 403,
        "refused" => 502,
        "no_identity" | "temporary" => 503,
        _ => 500,
    };
    let right = reply.status == status
        && text("class") == class
        && text("error_description").contains(&case.says)
        && text("hint").contains(&case.hint)
        && (class == "temporary") == reply.header("retry-after").is_some()
        && text("server") == "demo"
        && body["access_token"].is_null();
    // Afterwards the world works as before.
    let alive = daemon.get("/healthz").await.status == 200;
    let told = if reply.status == 200 { "a token" } else { reply.body.trim() };
    if right && alive { Ok(()) } else { Err(format!("the daemon answers {} {told}", reply.status)) }
}

#[tokio::test]
async fn configuration() {
    bad("configuration").await;
}

#[tokio::test]
async fn identity_file() {
    bad("identity-file").await;
}

#[tokio::test]
async fn identity_endpoint() {
    bad("identity-endpoint").await;
}

#[tokio::test]
async fn resource_metadata() {
    bad("resource-metadata").await;
}

#[tokio::test]
async fn server_metadata() {
    bad("server-metadata").await;
}

#[tokio::test]
async fn token_answer() {
    bad("token-answer").await;
}

#[tokio::test]
async fn socket_path() {
    bad("socket-path").await;
}

#[tokio::test]
async fn asked_wrongly() {
    bad("asked-wrongly").await;
}

#[tokio::test]
async fn every_problem_of_a_configuration_is_reported_at_once_with_its_line() {
    let safeconduct = Safeconduct::new(binary());
    let toml = "[servers.a]\nurl = \"ftp://x\"\nscope = []\n[servers.b]\n[listen]\nsocket_mode = \"0777\"\n[egres]\n";
    let output = safeconduct.config(toml).run(&["config", "check"]).await.expect_code(78);
    assert_eq!(output.stdout, "");
    for words in [
        "5 problems",
        "line 2: servers.a.url",
        "line 3: servers.a.scope",
        "servers.b.url",
        "line 6: listen.socket_mode",
        "line 7: egres",
    ] {
        assert!(output.stderr.contains(words), "{words:?} is not in\n{}", output.stderr);
    }
}

/// Checks the answer on the socket: status, class, code and message.
#[tokio::test]
async fn the_local_api_says_what_was_asked_wrongly() {
    let world = World::new().await;
    let daemon = world.configured().daemon(&[]).await;
    let asked = [
        ("/v1/token", 400, "bad_request", "`server` is missing"),
        ("/v1/token?server=", 400, "bad_request", "no server is called"),
        ("/v1/token?server=dmeo", 400, "bad_request", "no server is called \"dmeo\""),
        ("/v1/token?server=%1b%5b31m", 400, "bad_request", "no server is called"),
        ("/v1/token?server=%ff%fe", 400, "bad_request", "no server is called"),
        ("/v1/token?server=demo&server=demo", 400, "bad_request", "server is given twice"),
        ("/v1/token?server=demo&sever=x", 400, "bad_request", "unknown parameter"),
        ("/v1/token?server=demo&min_ttl=-1", 400, "bad_request", "`min_ttl` is a number"),
        ("/v1/token?server=demo&min_ttl=1e9", 400, "bad_request", "`min_ttl` is a number"),
        ("/v1/token?server=demo&min_ttl=99999999999999999999999", 400, "bad_request", "`min_ttl` is a number"),
        ("/v1/token?server=demo&fresh=yes", 400, "bad_request", "`fresh` is 0 or 1"),
        ("/v1/token?server=demo&use=agent", 400, "bad_request", "`use` can only be"),
        ("/v1/token?server=demo&scope=%22", 400, "bad_request", "visible ASCII"),
        ("/v1/token?server=demo&scope=demo:admin", 403, "denied", "beyond the ceiling"),
        ("/v1/token?server=https://mcp.example.com/mcp", 403, "denied", "is not a configured server"),
        ("/v1/token?server=ftp://mcp.example.com", 400, "bad_request", "https is needed"),
        ("/v1/token?server=https://a:b@mcp.example.com", 400, "bad_request", "user name or password"),
        ("/v1/headers?server=demo&url=nonsense", 400, "bad_request", "not an absolute URL"),
    ];
    for (path, status, class, words) in asked {
        let reply = daemon.get(path).await;
        let body = reply.json();
        assert_eq!((reply.status, body["class"].as_str()), (status, Some(class)), "{path}: {}", reply.body);
        let description = body["error_description"].as_str().unwrap_or_default();
        assert!(description.contains(words) && !description.chars().any(char::is_control), "{path}: {description:?}");
        assert_eq!(reply.header("cache-control"), Some("no-store"));
    }
    let digest = "0".repeat(64);
    let bodies = [
        json!({}),
        json!([]),
        json!({"server": "demo"}),
        json!({"server": 7, "access_token_sha256": digest}),
        json!({"server": "demo", "access_token_sha256": "abc"}),
        json!({"server": "demo", "access_token_sha256": "\u{20ac}".repeat(22)}),
        json!({"server": "demo", "access_token_sha256": digest, "more": 1}),
        json!({"server": "dmeo", "access_token_sha256": digest}),
    ];
    for body in bodies {
        assert_eq!(daemon.post("/v1/reject", &body).await.status, 400, "{body}");
    }
    let broken = "POST /v1/reject HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 4\r\n\r\n{\"a\"";
    assert_eq!(daemon.exchange(broken).await.status, 400);
    assert_eq!(world.platform.requests(), 0);
    // A digest of another token is ignored.
    daemon.token("demo").await;
    let other = json!({"server": "demo", "access_token_sha256": digest});
    assert_eq!(daemon.post("/v1/reject", &other).await.status, 204);
    daemon.token("demo").await;
    assert_eq!(world.authorization_server.token_requests(), 1);
}

#[tokio::test]
async fn a_second_daemon_goes_and_the_first_stays() {
    let world = World::new().await;
    let safeconduct = world.configured();
    let daemon = safeconduct.daemon(&[]).await;
    let second = safeconduct.run(&["run"]).await.expect_code(78);
    assert!(
        second.stderr.contains("another daemon already serves") && second.stderr.contains("hint: "),
        "{}",
        second.stderr
    );
    daemon.token("demo").await;
    // The socket of a killed daemon does no harm either.
    daemon.signal(nix::sys::signal::Signal::SIGKILL);
    daemon.wait().await;
    assert!(safeconduct.socket().exists(), "a killed daemon leaves its socket");
    safeconduct.daemon(&[]).await.token("demo").await;
}

/// Unusual input that must be accepted.
#[tokio::test]
async fn what_is_odd_and_good_is_accepted() {
    every_case("odd-and-good", async |case, world| {
        let output = world.run(&world.configured(), &["-o", "json"]).await;
        if !output.succeeded() {
            return Err(format!("exit {:?}: {}", output.code, output.stderr));
        }
        let token = output.json();
        let same = |name: &str, wanted: &Option<String>| wanted.as_ref().is_none_or(|wanted| token[name] == **wanted);
        let lives =
            |[least, most]: [u64; 2]| token["expires_in"].as_u64().is_some_and(|left| (least..=most).contains(&left));
        let right = case.expires_in.is_none_or(lives)
            && same("scope", &case.scope)
            && same("token_type", &case.token_type)
            && case.warns.as_ref().is_none_or(|words| output.stderr.contains(words));
        let told = format!("{}, {}, {}", token["expires_in"], token["scope"], token["token_type"]);
        if right { Ok(()) } else { Err(format!("it is good for {told}: {}", output.stderr)) }
    })
    .await;
}

/// The platform replaces the file by a rename while it is read: one version or the other, never a mixture.
#[tokio::test]
async fn an_identity_file_replaced_while_it_is_read_is_whole() {
    let mut world = World::new().await;
    let issuer = world.authorization_server.issuer();
    world.identity(world.platform.mint(&issuer, LIFE));
    let (path, next) = (world.safeconduct.private("subject.jwt"), world.safeconduct.private("next.jwt"));
    let replace = |padding: usize| {
        let jwt = world.platform.mint_with(&issuer, LIFE, &json!({"padding": "x".repeat(padding)}));
        std::fs::write(&next, jwt).and_then(|()| std::fs::rename(&next, &path)).expect("ours");
    };
    let safeconduct = world.configured();
    let platform = async {
        for round in 0.. {
            replace(round * 7919 % 20_000);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let asks = async {
        for round in 0..10 {
            // The server accepts an assertion only once.
            replace(round);
            safeconduct.run(&["token", "demo"]).await.expect_code(0);
        }
    };
    tokio::select! {
        () = platform => {}
        () = asks => {}
    }
    assert!(world.authorization_server.received().iter().all(|request| request.outcome == "ok"));
}

/// A failed renewal does not affect the valid token.
#[tokio::test]
async fn a_good_token_survives_every_bad_answer() {
    let faults = [
        TokenFault::oauth("invalid_grant"),
        TokenFault::Wire(Fault::Status(500)),
        TokenFault::Wire(Fault::HugeBody),
        TokenFault::TokenType("MAC".to_owned()),
        TokenFault::Wire(Fault::HalfBody),
    ];
    // Each in its own world, because a failure delays the next try.
    futures_util::future::join_all(faults.map(a_good_token_survives)).await;
}

async fn a_good_token_survives(fault: TokenFault) {
    let world = World::new().await;
    let daemon = world.configured().daemon(&[]).await;
    let token = daemon.token("demo").await;
    world.authorization_server.always_token(fault);
    // A token that was made within the last second counts as fresh.
    until(LIMIT, "a new token is asked for", async || {
        let reply = daemon.get("/v1/token?server=demo&fresh=1").await;
        assert_eq!(reply.status, 200, "a forced renewal that fails gives the valid token: {}", reply.body);
        assert_eq!(reply.json()["access_token"], token.as_str());
        world.authorization_server.token_requests() > 1
    })
    .await;
    assert_eq!(daemon.token("demo").await, token);
}
