//! `safeconduct run`: how it starts, where it listens, whom it serves and how it ends.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getegid, geteuid, getsid};
use serde_json::{Value, json};
use support::fault::Fault;
use support::leak;
use support::safeconduct::{Output, Running, Safeconduct};
use support::scene::Scene;
use support::unix_http;
use support::wait::until;

use crate::binary;

const ASKED_WRONGLY: i32 = 64;
const NO_IDENTITY: i32 = 69;
const TEMPORARY: i32 = 75;
const DENIED: i32 = 77;
const CONFIG: i32 = 78;

/// Longer than anything here takes, and an end to what never would.
const LIMIT: Duration = Duration::from_secs(30);

async fn answers(socket: &Path) -> bool {
    unix_http::get(socket, "/healthz").await.is_ok_and(|reply| reply.status == 200)
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
}

/// A new directory in this world's own.
fn directory(world: &Safeconduct, name: &str, mode: u32) -> PathBuf {
    let path = world.path().join(name);
    fs::create_dir(&path).expect("it is new");
    set_mode(&path, mode);
    path
}

/// A daemon that has to end by itself, in failure.
async fn fails(world: &Safeconduct, args: &[&str]) -> Output {
    world.run(&[&["run"], args].concat()).await
}

/// A process that is not our child: it is ended with the test.
struct Detached(Pid);

impl Detached {
    fn of(pid: &str) -> Self {
        Self(Pid::from_raw(pid.parse().expect("a process id")))
    }

    fn lives(&self) -> bool {
        kill(self.0, None).is_ok()
    }
}

impl Drop for Detached {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGKILL);
    }
}

/// `name   value` lines.
fn fields(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|line| line.split_once(' ')).map(|(name, value)| (name, value.trim())).collect()
}

// Starting and serving.

#[tokio::test]
async fn a_token_is_served_and_renders_as_documented() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("scopes = [\"demo:read\"]").await;
    let reply = daemon.get("/v1/token?server=demo").await;
    assert_eq!((reply.status, reply.header("cache-control")), (200, Some("no-store")), "{}", reply.status);
    let body = reply.json();
    let names: Vec<&String> = body.as_object().expect("an object").keys().collect();
    let mut wanted = ["access_token", "token_type", "expires_in", "expires_at", "scope", "resource", "issuer"];
    wanted.sort_unstable();
    assert_eq!(names, wanted.iter().collect::<Vec<_>>());
    assert_eq!(body["token_type"], "Bearer");
    assert_eq!(body["scope"], "demo:read");
    assert_eq!(body["resource"], scene.mcp.url());
    assert_eq!(body["issuer"], scene.authorization_server.issuer());
    let left = body["expires_in"].as_u64().expect("seconds");
    assert!((590..=600).contains(&left), "{left}");
    assert!(body["expires_at"].as_str().is_some_and(|text| text.ends_with('Z') && text.contains('T')));
    assert_eq!(mode(daemon.socket()), 0o600);
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn servers_of_the_command_line_need_no_file_and_are_required() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.safeconduct.daemon(&[&scene.argument(), "--insecure-loopback"]).await;
    let ready = daemon.run(&["ready", "--wait", "10s"]).await.expect_code(0);
    assert_eq!(ready.stdout, "ready\n");
    assert_eq!(scene.authorization_server.token_requests(), 1, "nobody had to ask for the token");
    let status = daemon.get("/v1/status").await.json();
    assert_eq!((&status["servers"][0]["name"], &status["servers"][0]["required"]), (&json!("demo"), &json!(true)));
    daemon.token("demo").await;
    assert_eq!(scene.authorization_server.token_requests(), 1);
}

#[tokio::test]
async fn what_cannot_be_served_is_said_before_anything_is_bound() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("");
    let url = scene.mcp.url();
    for (args, code, words) in [
        (vec!["https://mcp.example.com/mcp"], ASKED_WRONGLY, "NAME=URL"),
        (vec!["demo"], ASKED_WRONGLY, "NAME=URL"),
        (vec!["bad name=https://mcp.example.com/mcp"], ASKED_WRONGLY, "cannot be used"),
        (vec!["other=https://user@mcp.example.com/mcp"], ASKED_WRONGLY, "URL"),
        (vec!["demo=https://mcp.example.com/mcp"], ASKED_WRONGLY, "configured already"),
        (vec!["demo2", "demo3"], ASKED_WRONGLY, "NAME=URL"),
    ] {
        let output = fails(&world, &args).await.expect_code(code);
        assert!(output.stderr.contains(words) && output.stdout.is_empty(), "{args:?}: {}", output.stderr);
        assert!(!world.socket().exists());
    }
    let same_place = format!("again={url}/");
    let output = fails(&world, &[&same_place]).await.expect_code(ASKED_WRONGLY);
    assert!(output.stderr.contains("configured already"), "{}", output.stderr);
    let plain = fails(&scene.safeconduct, &[&scene.argument()]).await.expect_code(CONFIG);
    assert!(plain.stderr.contains("plain http") && plain.stderr.contains("--insecure-loopback"), "{}", plain.stderr);
}

#[tokio::test]
async fn without_an_identity_no_place_is_taken() {
    let scene = Scene::new(binary()).await;
    let laptop = Safeconduct::new(binary()).config(&scene.config(""));
    let output = fails(&laptop, &[]).await.expect_code(NO_IDENTITY);
    assert!(output.stderr.contains("--identity-file"), "{}", output.stderr);
    assert!(!laptop.socket().exists());
}

#[tokio::test]
async fn requests_that_are_no_requests_of_ours_are_refused_by_status() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    for (path, status, error) in [
        ("/v1/token", 400, "invalid_request"),
        ("/v1/token?server=nope", 400, "unknown_server"),
        ("/v1/token?server=https://mcp.example.com/mcp", 403, "server_not_configured"),
        ("/v1/token?server=http://user@127.0.0.1/mcp", 400, "invalid_request"),
        ("/v1/token?server=demo&server=demo", 400, "invalid_request"),
        ("/v1/token?server=demo&min_ttl=soon", 400, "invalid_request"),
        ("/v1/token?server=demo&fresh=yes", 400, "invalid_request"),
        ("/v1/token?server=demo&use=browser", 400, "invalid_request"),
        ("/v1/token?server=demo&colour=blue", 400, "invalid_request"),
        ("/v1/headers?server=demo&url=https://mcp.example.com/mcp", 403, "access_denied"),
        ("/v1/nothing", 404, "not_found"),
        ("/v1/reject", 405, "method_not_allowed"),
    ] {
        let reply = daemon.get(path).await;
        assert_eq!((reply.status, reply.json()["error"].as_str()), (status, Some(error)), "{path}: {}", reply.body);
        assert!(reply.json()["class"].is_string() && reply.json()["error_description"].is_string(), "{path}");
        assert_eq!(reply.header("cache-control"), Some("no-store"), "{path}");
    }
    let other_spelling = scene.mcp.url().replace("http://", "HTTP://");
    assert_eq!(daemon.get(&format!("/v1/token?server={other_spelling}/")).await.status, 200);
    assert_eq!(scene.authorization_server.token_requests(), 1, "only the last was worth a token");
}

#[tokio::test]
async fn a_page_in_a_browser_gets_nothing() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    for header in [
        "host: evil.example",
        "host: localhost\r\norigin: https://evil.example",
        "host: localhost\r\nx-forwarded-for: 1",
    ] {
        for path in ["/v1/token?server=demo", "/v1/status", "/healthz", "/metrics"] {
            let reply = daemon.exchange(&format!("GET {path} HTTP/1.1\r\n{header}\r\nconnection: close\r\n\r\n")).await;
            assert_eq!((reply.status, reply.json()["class"].as_str()), (403, Some("denied")), "{path} {header}");
        }
    }
    assert_eq!(scene.authorization_server.token_requests(), 0);
}

// Health, readiness, status, metrics.

#[tokio::test]
async fn readiness_waits_for_the_required_and_names_what_is_missing() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.set_down(true);
    let daemon = scene.daemon("required = true").await;
    assert_eq!(daemon.get("/healthz").await.json(), json!({"status": "alive"}));

    let reply = daemon.get("/readyz").await;
    assert_eq!((reply.status, &reply.json()["ready"]), (503, &json!(false)));
    assert!(reply.json()["reasons"][0].as_str().is_some_and(|reason| reason.starts_with("demo: ")), "{}", reply.body);
    let output = daemon.run(&["ready"]).await.expect_code(TEMPORARY);
    assert!(output.stderr.contains("not ready: demo: ") && output.stdout.is_empty(), "{}", output.stderr);
    let output = daemon.run(&["ready", "--json"]).await.expect_code(TEMPORARY);
    let report: Value = serde_json::from_str(&output.stderr).expect("JSON on stderr");
    assert_eq!(report["ready"], false);

    scene.authorization_server.heal();
    assert_eq!(daemon.run(&["ready", "--wait", "15s", "--json"]).await.expect_code(0).json(), json!({"ready": true}));
    assert_eq!(daemon.get("/readyz").await.json(), json!({"ready": true, "reasons": []}));
}

#[tokio::test]
async fn readiness_of_a_named_server_fetches_its_token() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    assert_eq!(daemon.get("/readyz").await.status, 200, "nothing is required");
    assert_eq!(scene.authorization_server.token_requests(), 0);
    daemon.run(&["ready", "demo", "--wait", "10s"]).await.expect_code(0);
    assert_eq!(scene.authorization_server.token_requests(), 1);
    daemon.run(&["ready", "https://mcp.example.com/mcp"]).await.expect_code(ASKED_WRONGLY);
}

/// Waiting does not help: the name will not appear while the daemon runs.
#[tokio::test]
async fn readiness_of_an_unknown_server_is_no_matter_of_waiting() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    let output = daemon.helper().limit(Duration::from_secs(10)).run(&["ready", "nope", "--wait", "60s"]).await;
    assert!(output.expect_code(ASKED_WRONGLY).stderr.contains("nope"));
}

#[tokio::test]
async fn ready_waits_for_a_daemon_that_is_yet_to_come() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("required = true");
    world.run(&["ready"]).await.expect_code(TEMPORARY);
    let early = tokio::spawn({
        let world = world.clone();
        async move { world.run(&["ready", "--wait", "15s"]).await }
    });
    tokio::time::sleep(Duration::from_millis(150)).await;
    let _daemon = world.daemon(&[]).await;
    early.await.expect("it ran").expect_code(0);
}

#[tokio::test]
async fn status_tells_everything_but_the_token() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("scopes = [\"demo:read\"]").await;
    assert_eq!(daemon.get("/v1/status").await.json()["servers"][0]["state"], "idle");
    daemon.token("demo").await;
    daemon.token("demo").await;

    let status = daemon.run(&["status", "--json"]).await.expect_code(0).json();
    assert_eq!((&status["pid"], &status["identity"]["source"]), (&json!(daemon.pid()), &json!("github-actions")));
    let server = &status["servers"][0];
    assert_eq!(
        (&server["name"], &server["url"], &server["state"]),
        (&json!("demo"), &json!(scene.mcp.url()), &json!("fresh"))
    );
    assert_eq!(server["issuer"], scene.authorization_server.issuer());
    assert_eq!(server["callers"], json!([{"uid": geteuid().as_raw(), "served": 2}]));
    let token = &server["tokens"][0];
    assert_eq!((&token["scope"], &token["lifetime"]), (&json!("demo:read"), &json!(600)));
    assert_eq!(token["sub"], "repo:octo-org/octo-repo:ref:refs/heads/main");
    assert_eq!(token["sha256"].as_str().map(str::len), Some(12));

    let table = daemon.run(&["status"]).await.expect_code(0).stdout;
    for words in ["demo  http://127.0.0.1:", "s of 600 s left", "scope \"demo:read\"", "2×"] {
        assert!(table.contains(words), "{words:?} in\n{table}");
    }
}

#[tokio::test]
async fn status_shows_a_failure_with_its_class_and_cure() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.always_token(support::authorization_server::TokenFault::oauth("invalid_grant"));
    let daemon = scene.daemon("").await;
    assert_eq!(daemon.get("/v1/token?server=demo").await.status, 502);
    let server = &daemon.get("/v1/status").await.json()["servers"][0];
    assert_eq!((&server["state"], &server["error"]["class"]), (&json!("failing"), &json!("refused")));
    assert_eq!(server["error"]["error"], "invalid_grant");
    let table = daemon.run(&["status"]).await.expect_code(0).stdout;
    assert!(table.contains("failing (refused)") && table.contains("hint: "), "{table}");
}

#[tokio::test]
async fn metrics_are_open_metrics_and_count_what_happened() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    daemon.token("demo").await;
    daemon.token("demo").await;
    daemon.get("/v1/token?server=nope").await;
    let reply = daemon.get("/metrics").await;
    assert_eq!(reply.status, 200);
    assert!(reply.header("content-type").is_some_and(|media| media.starts_with("application/openmetrics-text")));
    let samples = open_metrics(&reply.body);
    let value = |name: &str| samples.get(name).copied();
    assert_eq!(value("safeconduct_tokens_served_total{server=\"demo\"}"), Some(2.0), "{samples:?}");
    assert_eq!(value("safeconduct_requests_refused_total{class=\"bad_request\"}"), Some(1.0));
    assert_eq!(value("safeconduct_cache_hits_total"), Some(1.0));
    assert_eq!(value("safeconduct_flights_total"), Some(1.0));
    assert_eq!(value("safeconduct_flight_seconds_count"), Some(1.0));
}

/// The rules of OpenMetrics 1.0 that a scraper relies on: every sample belongs to the family declared before it, counters end in
/// `_total`, values are numbers, the text ends with `# EOF`.
fn open_metrics(text: &str) -> BTreeMap<String, f64> {
    let body = text.strip_suffix("# EOF\n").unwrap_or_else(|| panic!("no end in\n{text}"));
    let (mut samples, mut family, mut kind) = (BTreeMap::new(), String::new(), String::new());
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            let mut words = rest.splitn(3, ' ');
            let (what, name, rest) = (words.next(), words.next().expect("a name"), words.next().unwrap_or_default());
            match what {
                Some("HELP" | "UNIT") => assert!(!rest.is_empty(), "{line}"),
                Some("TYPE") => kind = rest.to_owned(),
                _ => panic!("neither HELP nor TYPE nor UNIT: {line}"),
            }
            name.clone_into(&mut family);
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
        let name = sample.split('{').next().unwrap_or_default();
        let suffix = name.strip_prefix(&family).unwrap_or_else(|| panic!("{line} does not belong to {family}"));
        let known: &[&str] = match kind.as_str() {
            "counter" => &["_total", "_created"],
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        assert!(known.contains(&suffix), "{line}: a {kind} has no {suffix:?}");
        assert!(samples.insert(sample.to_owned(), value.parse().expect("a number")).is_none(), "twice: {line}");
    }
    samples
}

// The place.

#[tokio::test]
async fn a_stale_socket_is_replaced() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("");
    let killed = world.daemon(&[]).await;
    killed.signal(Signal::SIGKILL);
    assert_eq!(killed.wait().await.code, None);
    assert!(world.socket().exists(), "a killed daemon leaves its socket");
    let daemon = world.daemon(&[]).await;
    daemon.token("demo").await;
    daemon.stop().await.expect_code(0);
    assert!(!world.socket().exists());
}

#[tokio::test]
async fn a_second_daemon_is_refused_and_the_first_is_not_disturbed() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("");
    let first = world.daemon(&[]).await;
    let output = fails(&world, &[]).await.expect_code(CONFIG);
    assert!(output.stderr.contains("another daemon already serves"), "{}", output.stderr);
    assert!(output.stderr.contains("safeconduct: hint: "), "{}", output.stderr);
    first.token("demo").await;
}

#[tokio::test]
async fn of_daemons_that_start_at_once_exactly_one_wins() {
    let scene = Scene::new(binary()).await;
    for round in 0..3 {
        let socket = scene.safeconduct.path().join(format!("{round}.sock"));
        let world = scene.configured("").env("SAFECONDUCT_SOCKET", &socket.display().to_string());
        let mut all: Vec<Running> = (0..4).map(|_| world.spawn(&["run"])).collect();
        until(LIMIT, "all but one have ended", async || {
            all.iter_mut().filter_map(|one| (!one.has_ended()).then_some(())).count() == 1
        })
        .await;
        until(LIMIT, "the one answers", async || answers(&socket).await).await;
        for one in &mut all {
            if one.has_ended() {
                let output = one.wait().await.expect_code(CONFIG);
                assert!(output.stderr.contains("another daemon already serves"), "{}", output.stderr);
            } else {
                one.signal(Signal::SIGTERM);
                one.wait().await.expect_code(0);
            }
        }
    }
}

#[tokio::test]
async fn an_explicit_path_must_lie_where_nobody_else_can_write() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("");
    let open = directory(&world, "open", 0o777);
    let sticky = directory(&world, "sticky", 0o1777);
    let group = directory(&world, "group", 0o775);
    let missing = world.path().join("missing");
    for place in [&open, &sticky, &group, &missing] {
        let socket = place.join("safeconduct.sock").display().to_string();
        let output = fails(&world, &["--socket", &socket]).await.expect_code(CONFIG);
        assert!(output.stderr.contains("safeconduct: hint: "), "{}: {}", place.display(), output.stderr);
        assert!(!Path::new(&socket).exists());
    }
    let readable = directory(&world, "readable", 0o755);
    let socket = readable.join("safeconduct.sock").display().to_string();
    world.daemon(&["--socket", &socket]).await.stop().await.expect_code(0);
    assert_eq!(mode(&readable), 0o755, "an explicit directory is used as it is");
}

#[tokio::test]
async fn what_lies_at_the_path_and_is_no_socket_stays() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("");
    let precious = world.write("precious", "data");
    let link = world.path().join("link.sock");
    symlink(&precious, &link).expect("linked");
    for path in [&precious, &link] {
        fails(&world, &["--socket", &path.display().to_string()]).await.expect_code(CONFIG);
    }
    assert_eq!(fs::read_to_string(&precious).expect("still there"), "data");
    let long = world.path().join("x".repeat(120)).display().to_string();
    let output = fails(&world, &["--socket", &long]).await.expect_code(CONFIG);
    assert!(output.stderr.contains("shorter"), "{}", output.stderr);
}

#[tokio::test]
async fn a_group_may_be_let_in() {
    let scene = Scene::new(binary()).await;
    let group = getegid().as_raw();
    let listen = format!("[listen]\nsocket_mode = \"0660\"\nsocket_group = \"{group}\"");
    let daemon = scene.daemon(&listen).await;
    let found = fs::metadata(daemon.socket()).expect("it is there");
    assert_eq!((found.mode() & 0o777, found.gid()), (0o660, group));
}

// Its place in a CI job.

#[tokio::test]
async fn in_a_job_the_place_is_the_jobs_own_and_its_end_is_the_daemons() {
    let scene = Scene::new(binary()).await;
    for variable in ["RUNNER_TEMP", "AGENT_TEMPDIRECTORY"] {
        let job = directory(&scene.safeconduct, variable, 0o1777);
        let world = scene.configured("").without_env("SAFECONDUCT_SOCKET").env(variable, &job.display().to_string());
        let mut running = world.spawn(&["run"]);
        let socket = job.join("safeconduct/safeconduct.sock");
        until(LIMIT, "it listens in the job's directory", async || answers(&socket).await).await;
        assert_eq!((mode(&job.join("safeconduct")), mode(&socket)), (0o700, 0o600));
        // A later step of the same job finds it by the same variable.
        let helper =
            Safeconduct::new(binary()).without_env("SAFECONDUCT_SOCKET").env(variable, &job.display().to_string());
        helper.run(&["token", "demo", "--daemon-only"]).await.expect_code(0);

        fs::remove_dir_all(&job).expect("it is ours");
        let output = running.wait().await.expect_code(0);
        assert!(output.stderr.contains("the job has ended"), "{}", output.stderr);
    }
}

/// The next job on the same machine makes the same directory again, perhaps before the daemon of the last job looks.
#[tokio::test]
async fn a_daemon_of_the_last_job_leaves_the_place_of_the_next_alone() {
    let scene = Scene::new(binary()).await;
    let job = directory(&scene.safeconduct, "job", 0o700);
    let world = scene.configured("").without_env("SAFECONDUCT_SOCKET").env("RUNNER_TEMP", &job.display().to_string());
    let mut last = world.spawn(&["run"]);
    let socket = job.join("safeconduct/safeconduct.sock");
    until(LIMIT, "the last job's daemon listens", async || answers(&socket).await).await;
    fs::remove_dir_all(job.join("safeconduct")).expect("it is ours");
    let mut next = world.spawn(&["run"]);
    until(LIMIT, "the next job's daemon listens", async || answers(&socket).await).await;
    last.wait().await.expect_code(0);
    assert!(answers(&socket).await, "its end took the socket of the next away");
    next.signal(Signal::SIGTERM);
    next.wait().await.expect_code(0);
}

#[tokio::test]
async fn a_squatted_place_is_refused() {
    let scene = Scene::new(binary()).await;
    let elsewhere = directory(&scene.safeconduct, "elsewhere", 0o700);
    let job = directory(&scene.safeconduct, "job", 0o1777);
    symlink(&elsewhere, job.join("safeconduct")).expect("linked");
    let world = scene.configured("").without_env("SAFECONDUCT_SOCKET").env("RUNNER_TEMP", &job.display().to_string());
    let output = fails(&world, &[]).await.expect_code(CONFIG);
    assert!(output.stderr.contains("no directory"), "{}", output.stderr);
    assert_eq!(fs::read_dir(&elsewhere).expect("it is there").count(), 0, "nothing was put behind the link");
    fs::remove_file(job.join("safeconduct")).expect("removed");
    let wide = job.join("safeconduct");
    fs::create_dir(&wide).expect("made");
    set_mode(&wide, 0o777);
    let mut running = world.spawn(&["run"]);
    until(LIMIT, "it listens", async || answers(&wide.join("safeconduct.sock")).await).await;
    assert_eq!(mode(&wide), 0o700, "a directory of ours is made private");
    running.signal(Signal::SIGTERM);
    running.wait().await.expect_code(0);
}

// Detached.

#[tokio::test]
async fn detached_it_returns_when_ready_and_goes_on_alone() {
    let scene = Scene::new(binary()).await;
    let world = scene.safeconduct.clone();
    let output = world.run(&["run", "--detach", &scene.argument(), "--insecure-loopback"]).await.expect_code(0);
    let told = fields(&output.stdout);
    let daemon = Detached::of(told["pid"]);
    assert_eq!(told["socket"], world.socket().display().to_string());
    assert!(answers(&world.socket()).await, "it said that it is ready");
    assert_eq!(getsid(Some(daemon.0)), Ok(daemon.0), "a session of its own");
    assert_eq!(mode(Path::new(told["log"])), 0o600);
    let log = fs::read_to_string(told["log"]).expect("ours");
    assert!(log.contains("listening"), "{log}");
    for descriptor in ["0", "1", "2"] {
        let target = fs::read_link(format!("/proc/{}/fd/{descriptor}", daemon.0));
        if let Ok(target) = target {
            let wanted = if descriptor == "0" { "/dev/null" } else { told["log"] };
            assert_eq!(target, Path::new(wanted), "descriptor {descriptor}");
        }
    }
    world.run(&["ready", "--wait", "10s"]).await.expect_code(0);
    world.run(&["token", "demo", "--daemon-only"]).await.expect_code(0);

    kill(daemon.0, Signal::SIGTERM).expect("it lives");
    until(LIMIT, "it has ended", async || !daemon.lives() || is_zombie(daemon.0)).await;
    assert!(!world.socket().exists());
}

/// Nobody may be there to wait for an orphan.
fn is_zombie(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z'))
}

#[tokio::test]
async fn a_failed_start_detached_gives_the_daemons_code_and_last_words() {
    let scene = Scene::new(binary()).await;
    // The log has the words of an earlier daemon, which are not to be repeated.
    let laptop = Safeconduct::new(binary()).config(&scene.config(""));
    let log = laptop.path().join("safeconduct.sock.log");
    fs::write(&log, "safeconduct: error: old words\nsafeconduct: hint: old hint\n").expect("ours");
    set_mode(&log, 0o644);
    let output = laptop.run(&["run", "--detach"]).await.expect_code(NO_IDENTITY);
    assert!(output.stdout.is_empty() && output.stderr.contains("no workload identity here"), "{}", output.stderr);
    assert!(output.stderr.contains("safeconduct: hint: ") && !output.stderr.contains("old"), "{}", output.stderr);
    assert_eq!(mode(&log), 0o600, "a log that is there is made private");

    let world = scene.configured("");
    let _first = world.daemon(&[]).await;
    let output = world.run(&["run", "--detach"]).await.expect_code(CONFIG);
    assert!(output.stderr.contains("another daemon already serves"), "{}", output.stderr);
}

#[tokio::test]
async fn a_daemon_that_helpers_do_not_find_says_which_flag_they_need() {
    let scene = Scene::new(binary()).await;
    let socket = scene.safeconduct.path().join("elsewhere.sock").display().to_string();
    let output = scene.configured("").run(&["run", "--detach", "--socket", &socket]).await.expect_code(0);
    let _daemon = Detached::of(fields(&output.stdout)["pid"]);
    assert!(output.stderr.contains(&format!("--socket {socket}")), "{}", output.stderr);
}

// Its end.

#[tokio::test]
async fn a_request_in_flight_is_answered_before_the_end() {
    let scene = Scene::new(binary()).await;
    let sluice = scene.sluice().await;
    let world = scene.configured("");
    let daemon = world.daemon(&[]).await;
    sluice.shut();
    let asked = tokio::spawn({
        let socket = world.socket();
        async move { unix_http::get(&socket, "/v1/token?server=demo").await }
    });
    sluice.holds(1).await;
    daemon.signal(Signal::SIGTERM);
    until(LIMIT, "it no longer listens", async || !world.socket().exists()).await;
    assert!(!asked.is_finished());
    sluice.open();
    let reply = asked.await.expect("it ran").expect("an answer");
    assert_eq!(reply.status, 200);
    daemon.wait().await.expect_code(0);
}

#[tokio::test]
async fn a_kept_connection_that_is_idle_delays_nothing() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    let idle = tokio::net::UnixStream::connect(daemon.socket()).await.expect("connected");
    idle.writable().await.expect("open");
    idle.try_write(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("written");
    idle.readable().await.expect("answered");
    let output = daemon.stop().await.expect_code(0);
    assert!(!output.stderr.contains("not everything ended in time"), "{}", output.stderr);
}

#[tokio::test]
async fn what_never_ends_does_not_keep_the_daemon() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.always_token(Fault::Stall);
    let world = scene.configured("");
    let daemon = world.daemon(&[]).await;
    let asked = tokio::spawn({
        let socket = world.socket();
        async move { unix_http::get(&socket, "/v1/token?server=demo").await }
    });
    until(LIMIT, "the request is under way", async || scene.authorization_server.token_requests() == 1).await;
    daemon.stop().await.expect_code(0);
    asked.abort();
}

#[tokio::test]
async fn interrupt_ends_it_and_hangup_does_not() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    daemon.signal(Signal::SIGHUP);
    daemon.logged("the configuration is read anew").await;
    daemon.token("demo").await;
    daemon.signal(Signal::SIGINT);
    daemon.wait().await.expect_code(0);
}

// Service managers.

/// The binary started as a service manager starts it: `stdin` becomes descriptor 3, and `LISTEN_PID` is its own process.
fn activated(world: &Safeconduct, stdin: OwnedFd) -> (tokio::process::Child, PathBuf) {
    const LAUNCH: &str = "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$; export LISTEN_FDS LISTEN_PID; exec \"$@\"";
    let command = world.command(&["run"]);
    let given = command.as_std();
    let log = world.path().join("out/activated");
    let mut shell = tokio::process::Command::new("/bin/sh");
    shell.args(["-c", LAUNCH, "sh"]).arg(given.get_program()).args(given.get_args()).env_clear();
    shell.envs(given.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.stdin(Stdio::from(stdin)).stdout(Stdio::null()).kill_on_drop(true);
    shell.stderr(fs::File::create(&log).expect("ours"));
    (shell.spawn().expect("there is a shell"), log)
}

async fn ends(mut child: tokio::process::Child, log: &Path) -> (Option<i32>, String) {
    let status = tokio::time::timeout(LIMIT, child.wait()).await.expect("in time").expect("waited for");
    let text = fs::read_to_string(log).expect("ours");
    leak::check("stderr of an activated daemon", &text);
    (status.code(), text)
}

#[tokio::test]
async fn a_socket_of_the_service_manager_is_served_and_left_to_it() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("");
    let path = world.path().join("activated.sock");
    let listener = UnixListener::bind(&path).expect("bound");
    set_mode(&path, 0o600);
    let (child, log) = activated(&world, listener.try_clone().expect("cloned").into());
    until(LIMIT, "it answers", async || answers(&path).await).await;
    assert!(!world.socket().exists(), "it binds none of its own");
    let reply = unix_http::get(&path, "/v1/token?server=demo").await.expect("an answer");
    assert_eq!(reply.status, 200);
    let pid = i32::try_from(child.id().expect("it runs")).expect("positive");
    kill(Pid::from_raw(pid), Signal::SIGTERM).expect("it lives");
    assert_eq!(ends(child, &log).await.0, Some(0));
    assert!(path.exists(), "the socket is the service manager's");
}

#[tokio::test]
async fn a_socket_wider_than_configured_is_refused() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("");
    let path = world.path().join("activated.sock");
    let listener = UnixListener::bind(&path).expect("bound");
    for wide in [0o666, 0o660, 0o602] {
        set_mode(&path, wide);
        let (child, log) = activated(&world, listener.try_clone().expect("cloned").into());
        let (code, text) = ends(child, &log).await;
        assert_eq!(code, Some(CONFIG), "{text}");
        assert!(text.contains("wider than the configured 0600") && text.contains("safeconduct: hint: "), "{text}");
    }
    assert!(path.exists());
}

#[tokio::test]
async fn a_descriptor_that_is_no_listener_of_ours_is_refused() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("");
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let datagram = UnixDatagram::bind(world.path().join("datagram.sock")).expect("bound");
    let descriptors = [
        (OwnedFd::from(tcp), "is not the one that `http` in [listen] names"),
        (OwnedFd::from(datagram), "neither a Unix stream socket nor a TCP listener"),
    ];
    for (descriptor, words) in descriptors {
        let (child, log) = activated(&world, descriptor);
        let (code, text) = ends(child, &log).await;
        assert_eq!(code, Some(CONFIG), "{text}");
        assert!(text.contains(words) && text.contains("safeconduct: hint: "), "{text}");
    }
}

#[tokio::test]
async fn the_service_manager_is_told_of_readiness_and_of_the_end() {
    let scene = Scene::new(binary()).await;
    let notices = scene.safeconduct.path().join("notify.sock");
    let inbox = tokio::net::UnixDatagram::bind(&notices).expect("bound");
    let notified = async || {
        let mut notice = [0; 256];
        let length = tokio::time::timeout(LIMIT, inbox.recv(&mut notice)).await.expect("in time").expect("received");
        String::from_utf8_lossy(&notice[..length]).into_owned()
    };
    let world = scene.configured("").env("NOTIFY_SOCKET", &notices.display().to_string());
    let mut running = world.spawn(&["run"]);
    assert!(notified().await.contains("READY=1"));
    assert_eq!(unix_http::get(&world.socket(), "/healthz").await.map(|reply| reply.status).ok(), Some(200));
    running.signal(Signal::SIGTERM);
    assert!(notified().await.contains("STOPPING=1"));
    running.wait().await.expect_code(0);
}

// Who may ask.

#[tokio::test]
async fn only_callers_that_the_policy_names_are_served() {
    let scene = Scene::new(binary()).await;
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    for (allow, served) in [
        (format!("[{{ uid = {uid} }}]"), true),
        (format!("[{{ gid = {gid} }}]"), true),
        (format!("[{{ uid = {} }}, {{ gid = {gid} }}]", uid + 1), true),
        (format!("[{{ uid = {uid}, gid = {} }}]", gid + 1), false),
        (format!("[{{ uid = {} }}]", uid + 1), false),
    ] {
        let daemon = scene.daemon(&format!("allow = {allow}")).await;
        let reply = daemon.get("/v1/token?server=demo").await;
        assert_eq!(reply.status == 200, served, "{allow}");
        let output = daemon.run(&["token", "demo"]).await;
        if !served {
            assert_eq!((reply.status, reply.json()["class"].as_str()), (403, Some("denied")));
            assert!(
                output.expect_code(DENIED).stderr.contains("safeconduct: hint: "),
                "a refusal is no reason to work here"
            );
            assert_eq!(daemon.post("/v1/revoke", &json!({"server": "demo"})).await.status, 403);
        }
        daemon.stop().await.expect_code(0);
    }
}

#[tokio::test]
async fn callers_have_their_own_ceilings_within_the_servers() {
    let scene = Scene::new(binary()).await;
    let uid = geteuid().as_raw();
    let allow = format!(
        "scopes = [\"demo:read\", \"demo:write\"]\nallow = [{{ uid = {uid}, scopes = [\"demo:read\"] }}, {{ uid = {} }}]",
        uid + 1
    );
    let daemon = scene.daemon(&allow).await;
    assert_eq!(daemon.get("/v1/token?server=demo").await.json()["scope"], "demo:read");
    let reply = daemon.get("/v1/token?server=demo&scope=demo:write").await;
    assert_eq!((reply.status, reply.json()["error"].as_str()), (403, Some("invalid_scope")));
    assert_eq!(scene.authorization_server.token_requests(), 1);
}

/// Somebody else's command, which root alone can start.
async fn as_somebody(binary: &Path, socket: &Path, args: &[&str]) -> std::process::Output {
    let mut command = std::process::Command::new(binary);
    command.args(args).env_clear().env("SAFECONDUCT_SOCKET", socket).current_dir("/");
    std::os::unix::process::CommandExt::gid(&mut command, SOMEBODY);
    std::os::unix::process::CommandExt::uid(&mut command, SOMEBODY);
    let output = tokio::process::Command::from(command).output();
    let output = tokio::time::timeout(LIMIT, output).await.expect("in time").expect("it runs");
    leak::check("stderr of another user's command", &String::from_utf8_lossy(&output.stderr));
    output
}

const SOMEBODY: u32 = 54_321;

/// Root can be somebody else; anybody else sees that the kernel names them.
#[tokio::test]
async fn the_kernel_says_who_asks() {
    let scene = Scene::new(binary()).await;
    if !geteuid().is_root() {
        return only_callers_of(&scene).await;
    }
    let world = &scene.safeconduct;
    // Somebody else must be able to reach the binary and the socket; the policy alone is to decide.
    set_mode(world.path(), 0o755);
    let others = tempfile::tempdir_in("/tmp").expect("/tmp is writable");
    set_mode(others.path(), 0o755);
    let copy = others.path().join("safeconduct");
    fs::copy(binary(), &copy).expect("copied");
    set_mode(&copy, 0o755);
    let listen = format!("[listen]\nsocket_mode = \"0660\"\nsocket_group = \"{SOMEBODY}\"");
    for (allow, code) in
        [(format!("allow = [{{ uid = {SOMEBODY} }}]"), 0), ("allow = [{ uid = 0 }]".to_owned(), DENIED)]
    {
        let daemon = scene.daemon(&format!("{allow}\n{listen}")).await;
        let ask = async |args: &[&str]| as_somebody(&copy, daemon.socket(), args).await;
        let output = ask(&["token", "demo", "--daemon-only"]).await;
        assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
        let own = daemon.run(&["token", "demo"]).await;
        assert_eq!(own.code, Some(if code == 0 { DENIED } else { 0 }), "root is not implied: {}", own.stderr);
        // What somebody may not use they are not told of.
        let status = ask(&["status", "--json"]).await;
        assert_eq!(status.status.code(), Some(code));
        assert_eq!(String::from_utf8_lossy(&status.stdout).contains("demo"), code == 0);
        let ready = ask(&["ready", "demo", "--wait", "5s"]).await;
        assert_eq!(ready.status.code(), Some(code), "{}", String::from_utf8_lossy(&ready.stderr));
        daemon.stop().await.expect_code(0);
    }
    // Without the group the mode keeps them out, and that is no reason to do the work in their own process.
    let daemon = scene.daemon(&format!("allow = [{{ uid = {SOMEBODY} }}]")).await;
    let output = as_somebody(&copy, daemon.socket(), &["token", &scene.mcp.url()]).await;
    assert_eq!(output.status.code(), Some(DENIED), "{}", String::from_utf8_lossy(&output.stderr));
}

async fn only_callers_of(scene: &Scene) {
    let daemon = scene.daemon("").await;
    daemon.token("demo").await;
    let callers = daemon.get("/v1/status").await.json()["servers"][0]["callers"].clone();
    assert_eq!(callers, json!([{"uid": geteuid().as_raw(), "served": 1}]));
}

// Slow and silent clients.

#[tokio::test]
async fn a_client_that_hangs_up_does_not_cancel_what_others_wait_for() {
    let scene = Scene::new(binary()).await;
    let sluice = scene.sluice().await;
    let world = scene.configured("");
    let daemon = world.daemon(&[]).await;
    sluice.shut();
    let first = tokio::spawn({
        let socket = world.socket();
        async move { unix_http::get(&socket, "/v1/token?server=demo").await.map(|_| ()) }
    });
    sluice.holds(1).await;
    let second = tokio::spawn({
        let socket = world.socket();
        async move { unix_http::get(&socket, "/v1/token?server=demo").await }
    });
    first.abort();
    sluice.open();
    let reply: io::Result<_> = second.await.expect("it ran");
    assert_eq!(reply.expect("an answer").status, 200);
    assert_eq!(scene.authorization_server.token_requests(), 1);
    daemon.stop().await.expect_code(0);
}

// Streams that are gone.

#[tokio::test]
async fn a_daemon_outlives_the_reader_of_its_log() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("");
    let mut command = world.command(&["run"]);
    let mut daemon =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
    until(LIMIT, "it listens", async || answers(&world.socket()).await).await;
    drop(daemon.stderr.take());
    // It logs a refusal, to nobody.
    for _ in 0..2 {
        let refused = unix_http::get(&world.socket(), "/v1/token?server=unknown").await.expect("an answer");
        assert_eq!(refused.status, 400);
    }
    assert_eq!(unix_http::get(&world.socket(), "/v1/token?server=demo").await.expect("an answer").status, 200);
    assert!(daemon.try_wait().expect("it is ours").is_none(), "it has ended");
    daemon.kill().await.expect("it ends");
}

#[tokio::test]
async fn closed_standard_streams_are_never_taken_by_what_is_opened_next() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("");
    let given = world.command(&["run"]);
    let given = given.as_std();
    let mut shell = tokio::process::Command::new("/bin/sh");
    shell.args(["-c", "exec \"$0\" \"$@\" <&- >&-"]).arg(given.get_program()).args(given.get_args()).env_clear();
    shell.envs(given.get_envs().filter_map(|(name, value)| Some((name, value?)))).kill_on_drop(true);
    let mut daemon = shell.stderr(Stdio::null()).spawn().expect("it starts");
    until(LIMIT, "it listens", async || answers(&world.socket()).await).await;
    let pid = daemon.id().expect("it lives");
    for stream in [0, 1] {
        let open = fs::read_link(format!("/proc/{pid}/fd/{stream}")).expect("it is open");
        assert_eq!(open, Path::new("/dev/null"), "stream {stream}");
    }
    daemon.kill().await.expect("it ends");
}
