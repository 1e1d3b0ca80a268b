//! Identity sources from the environment to the token: runs every case of `tests/sources/`. The cases are data.
//!
//! A case without files runs the real binary in its environment. A case with files runs the real daemon inside this process,
//! because there the platform's absolute paths can have another root directory. In both, the authorization server verifies what
//! every token, and a case that fails sends it nothing.

use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use safeconduct::broker::Class;
use safeconduct::{App, Clock, Config, Env};
use serde_json::{Value, json};
use support::case::{self, Case, Stage};
use support::keys;
use support::leak;
use support::safeconduct::Safeconduct;
use support::scene::Scene;
use support::unix_http;

use crate::binary;
use crate::exit::NO_IDENTITY;

const LIFE: Duration = Duration::from_secs(600);
/// How many cases run at the same time. Most wait for a time limit of their source.
const AT_ONCE: usize = 16;

/// The outcome of a case.
enum Outcome {
    Token(String),
    Failed { class: String, message: String, hint: String },
}

// On a busy machine each thread gets an equal share of the processors, and one thread's share is too little for this many
// daemons and servers with real time limits.
#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn every_case_ends_as_it_says() {
    log_here();
    let cases = case::all(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sources")));
    assert!(cases.len() > 100, "the cases are not where they were");
    let failed: Vec<String> = futures_util::stream::iter(cases)
        .map(|case| async move {
            let name = format!("{}/{}", case.source, case.name);
            // Each case is a task, so that a panic does not hide the other cases.
            let outcome = tokio::spawn(async move { run(&case).await }).await;
            match outcome {
                Ok(problems) if problems.is_empty() => None,
                Ok(problems) => Some(format!("{name}:\n  {}", problems.join("\n  "))),
                Err(_) => Some(format!("{name}: panics, see above")),
            }
        })
        .buffer_unordered(AT_ONCE)
        .filter_map(|failed| async move { failed })
        .collect()
        .await;
    leak::check_bytes("the log of the daemons in this process", &LOG.lock().unwrap_or_else(PoisonError::into_inner));
    assert!(failed.is_empty(), "{} cases end otherwise:\n{}", failed.len(), failed.join("\n"));
}

/// The differences between the outcome and the expected one.
async fn run(case: &Case) -> Vec<String> {
    let stage = case.stage(binary()).await;
    let mut problems = Vec::new();
    let outcome = match &stage.files {
        None => as_command(case, &stage).await,
        Some(root) => in_process(case, &stage, root.path(), &mut problems).await,
    };
    judge(case, &stage, outcome, &mut problems);
    problems.extend(stage.problems());
    if stage.files.is_none() && (case.expect.source.is_some() || case.expect.state.is_some()) {
        whoami(case, &mut problems).await;
    }
    problems
}

/// A case may have a token in the wrong key on purpose.
fn world(stage: &Stage) -> Safeconduct {
    Safeconduct::new(binary()).envs(stage.vars.clone()).private_config(&stage.config)
}

async fn as_command(case: &Case, stage: &Stage) -> Outcome {
    let timeout = case.expect.timeout.as_deref().unwrap_or("25s");
    let output = world(stage).run(&["token", "demo", "--no-daemon", "--timeout", timeout]).await;
    if output.code == Some(0) {
        return Outcome::Token(output.stdout.trim().to_owned());
    }
    let classes = ["bad_request", "denied", "config", "no_identity", "refused", "temporary", "internal"];
    let class = classes
        .into_iter()
        .find(|name| Class::parse(name).is_some_and(|class| Some(i32::from(class.exit_code())) == output.code));
    let told = output.stderr.split("safeconduct: error: ").nth(1).unwrap_or_default();
    let (message, hint) = told.split_once("safeconduct: hint: ").unwrap_or((told, ""));
    failed(class.unwrap_or("no class"), message, hint)
}

/// The daemon, in this process, with the case's files below `root`.
async fn in_process(case: &Case, stage: &Stage, root: &Path, problems: &mut Vec<String>) -> Outcome {
    let place = tempfile::Builder::new().prefix("sc").tempdir_in("/tmp").expect("/tmp is writable");
    let socket = place.path().join("s");
    let env = Env::from_vars(stage.vars.clone()).with_root(root.to_owned());
    let text = format!("{}\n[listen]\nsocket = {:?}\n", stage.config, socket.display().to_string());
    let config = match Config::from_toml(&text, &env) {
        Ok(config) => config,
        Err(error) => return failed("config", &error.to_string(), "none is needed"),
    };
    let app = match App::build(config, env, Clock::system()).await {
        Ok(app) => app,
        Err(error) => {
            return failed(error.class().as_str(), &error.to_string(), &error.hint().unwrap_or_default());
        }
    };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let served = tokio::spawn(app.run(async move { drop(stopped.await) }));
    let answer = unix_http::get(&socket, "/v1/token?server=demo").await.expect("the daemon answers").json();
    let status = unix_http::get(&socket, "/v1/status").await.expect("the daemon answers").json();
    drop(stop);
    served.await.expect("it does not panic").expect("it serves");
    if case.expect.source.is_some() {
        compare(case, &status["identity"], problems);
    }
    let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
    match answer["access_token"].as_str() {
        Some(token) => Outcome::Token(token.to_owned()),
        None => failed(&text("class"), &text("error_description"), &text("hint")),
    }
}

fn failed(class: &str, message: &str, hint: &str) -> Outcome {
    for text in [message, hint] {
        leak::check("an error", text);
    }
    Outcome::Failed { class: class.to_owned(), message: message.to_owned(), hint: hint.to_owned() }
}

fn judge(case: &Case, stage: &Stage, outcome: Outcome, problems: &mut Vec<String>) {
    let expect = &case.expect;
    let sent = stage.scene.authorization_server.token_requests();
    match (outcome, &expect.class) {
        (Outcome::Token(token), None) => {
            if keys::peek(&token)["aud"] != json!(stage.scene.mcp.url()) {
                problems.push("the token is for another server".to_owned());
            }
        }
        (Outcome::Token(_), Some(class)) => problems.push(format!("a token came, not {class}")),
        (Outcome::Failed { class, message, hint }, None) => {
            problems.push(format!("no token came but {class}: {message} (hint: {hint})"));
        }
        (Outcome::Failed { class, message, hint }, Some(wanted)) => {
            if class != *wanted {
                problems.push(format!("it is {class}, not {wanted}: {message}"));
            }
            let missing = expect.says.iter().filter(|words| !message.contains(*words));
            problems.extend(missing.map(|words| format!("{words:?} is not in {message:?}")));
            let missing = expect.hint.iter().filter(|words| !hint.contains(*words));
            problems.extend(missing.map(|words| format!("{words:?} is not in the hint {hint:?}")));
            if expect.says.is_empty() || (hint.is_empty() && wanted != "temporary") {
                problems.push(format!("nothing is said, or no hint given: {message:?}"));
            }
            if sent != 0 {
                problems.push(format!("{sent} requests reached the authorization server"));
            }
        }
    }
}

/// The same case, seen by `whoami`.
async fn whoami(case: &Case, problems: &mut Vec<String>) {
    let stage = case.stage(binary()).await;
    let output = world(&stage).run(&["whoami", "--json", "--audience", &stage.audience]).await;
    // On failure the report goes to standard error, after the log.
    let text = if output.code == Some(0) { &*output.stdout } else { output.stderr.lines().last().unwrap_or_default() };
    let report: Value = serde_json::from_str(text).unwrap_or_default();
    if case.expect.source.is_some() {
        compare(case, &report["identity"], problems);
        problems.extend(stage.problems());
    }
    if let Some(state) = &case.expect.state {
        let rows = report["sources"].as_array().cloned().unwrap_or_default();
        let row = rows.into_iter().find(|row| row["source"] == case.source.as_str()).unwrap_or_default();
        if row["state"] != state.as_str() {
            problems.push(format!("whoami does not call it {state}: {row}"));
        }
    }
}

fn compare(case: &Case, identity: &Value, problems: &mut Vec<String>) {
    let expect = &case.expect;
    let mut same = |name: &str, wanted: Option<Value>| {
        // The status of a daemon has less detail than `whoami`.
        if let Some(wanted) = wanted.filter(|wanted| !identity[name].is_null() && identity[name] != *wanted) {
            problems.push(format!("{name} is {}, not {wanted}", identity[name]));
        }
    };
    same("source", expect.source.clone().map(Value::from));
    same("evidence", expect.evidence.clone().map(Value::from));
    same("mints_anew", expect.mints_anew.map(Value::from));
    if identity["source"].is_null() {
        problems.push(format!("nobody was found: {identity}"));
    }
}

static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Log;

impl io::Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        LOG.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Keeps the log of the daemons in this process, at the log level of the binary in tests.
fn log_here() {
    use tracing_subscriber::filter::Targets;
    use tracing_subscriber::prelude::*;
    let filter = Targets::new().with_default(tracing::Level::WARN).with_target("safeconduct", tracing::Level::TRACE);
    let lines = tracing_subscriber::fmt::layer().with_writer(|| Log).with_filter(filter);
    let lines = tracing_subscriber::registry().with(lines);
    lines.try_init().expect("nobody else logs in this process");
}

/// A world whose identity is this shell script, which finds a token for the right audience in the file `$1`.
fn commanded(scene: &Scene, script: &str) -> Safeconduct {
    let world = scene.safeconduct.clone();
    let token = world.private("subject.jwt");
    std::fs::write(&token, scene.platform.mint(&scene.authorization_server.issuer(), LIFE)).expect("ours");
    let words = json!(["/bin/sh", "-c", script, "sh", token]);
    let config = format!("{}\n[identity]\nsource = \"command\"\ncommand = {words}\n", scene.config(""));
    world.config(&config)
}

#[tokio::test]
async fn a_program_that_hangs_is_killed_with_all_it_started() {
    let scene = Scene::new(binary()).await;
    let world = commanded(&scene, "sleep 120 & echo $! > \"$1.pid\"; wait");
    let output = world.run(&["token", "demo"]).await.expect_code(NO_IDENTITY);
    assert!(output.stderr.contains("did not end within 10 s"), "{}", output.stderr);
    let pid = std::fs::read_to_string(world.private("subject.jwt.pid")).expect("it was started");
    let gone = || {
        // A killed process without a parent may stay a zombie for a moment.
        std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).map_or(true, |stat| stat.contains(") Z "))
    };
    for _ in 0..100 {
        if gone() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("what the program started still runs");
}

#[tokio::test]
async fn a_program_is_not_taken_from_the_working_directory() {
    use std::os::unix::fs::PermissionsExt;

    let scene = Scene::new(binary()).await;
    let world = scene.safeconduct.clone();
    let marker = world.private("it-ran");
    // The commands of the tests run in `home`, as a job runs in its checkout, which may belong to somebody else.
    let planted = world.path().join("home/idp");
    std::fs::write(&planted, format!("#!/bin/sh\necho > {}\n", marker.display())).expect("ours");
    std::fs::set_permissions(&planted, std::fs::Permissions::from_mode(0o755)).expect("ours");
    let config = format!("{}\n[identity]\nsource = \"command\"\ncommand = [\"idp\"]\n", scene.config(""));
    let world = world.config(&config);
    for path in ["", ":/usr/bin", "/usr/bin:", "/usr/bin::/bin", ".", "../home", "/usr/bin:./"] {
        let output =
            world.clone().env("PATH", path).run(&["token", "demo", "--no-daemon"]).await.expect_code(NO_IDENTITY);
        assert!(output.stderr.contains("in no absolute directory of PATH"), "{path:?}: {}", output.stderr);
        assert!(!marker.exists(), "{path:?}");
    }
}

#[tokio::test]
async fn a_program_inherits_no_secret_and_nothing_that_speaks_to_the_service_manager() {
    const KEPT_BACK: [&str; 10] = [
        "CLIENT_SECRET_OF_DEMO",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
        "ACTIONS_ID_TOKEN_REQUEST_URL",
        "SYSTEM_ACCESSTOKEN",
        "IDENTITY_HEADER",
        "NOTIFY_SOCKET",
        "LISTEN_FDNAMES",
        "WATCHDOG_USEC",
        "WATCHDOG_PID",
        "INVOCATION_ID",
    ];
    let scene = Scene::new(binary()).await;
    let mut world = commanded(&scene, "env > \"$1.env\"; cat \"$1\"").env("TOOL_SETTING", "kept");
    for name in KEPT_BACK {
        world = world.env(name, "kept-back");
    }
    let text = std::fs::read_to_string(world.path().join("safeconduct.toml")).expect("written");
    let other = "[servers.other]\nurl = \"https://other.example/mcp\"\nissuer = \"https://as.example\"\n\
         exchange = \"client-credentials\"\nclient_id = \"x\"\nclient_auth = \"secret\"\n\
         client_secret_env = \"CLIENT_SECRET_OF_DEMO\"\n";
    world.rewrite_config(&format!("{text}\n{other}"));
    world.run(&["token", "demo", "--no-daemon"]).await.expect_code(0);
    let given = std::fs::read_to_string(world.private("subject.jwt.env")).expect("it ran");
    assert!(given.contains("TOOL_SETTING=kept") && given.contains("SAFECONDUCT_AUDIENCE="), "{given}");
    let leaked: Vec<&str> = KEPT_BACK.into_iter().filter(|name| given.contains(&format!("{name}="))).collect();
    assert!(leaked.is_empty(), "{leaked:?}");
}

#[tokio::test]
async fn whoami_of_a_token_that_has_ended_says_so() {
    let scene = Scene::new(binary()).await;
    let world = scene.safeconduct.clone();
    let file = world.private("subject.jwt");
    let ended = json!({ "iat": 1_000_000, "exp": 1_003_600 });
    std::fs::write(&file, scene.platform.mint_with("https://as.example.com", LIFE, &ended)).expect("ours");
    let file = file.display().to_string();
    let output = world.run(&["whoami", "--identity-file", &file]).await.expect_code(NO_IDENTITY);
    assert!(
        output.stderr.contains("the identity token ended") && output.stderr.contains("subPath"),
        "{}",
        output.stderr
    );
    std::fs::write(&file, scene.platform.mint("https://as.example.com", LIFE)).expect("ours");
    world.run(&["whoami", "--identity-file", &file]).await.expect_code(0);
}

/// A platform that makes tokens for registered audiences alone refuses the one that `whoami` asks for by itself.
#[tokio::test]
async fn whoami_names_the_audience_flag_where_its_own_audience_is_refused() {
    let scene = Scene::new(binary()).await;
    scene.platform.always(support::fault::Fault::Status(400));
    let world = scene.configured("");
    let output = world.run(&["whoami"]).await.expect_code(NO_IDENTITY);
    assert!(output.stderr.contains("whoami --audience A"), "{}", output.stderr);
    let named = world.run(&["whoami", "--audience", "https://as.example.com"]).await.expect_code(NO_IDENTITY);
    assert!(!named.stderr.contains("whoami --audience A"), "{}", named.stderr);
}
