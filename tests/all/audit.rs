//! `[audit]`: every decision of the daemon and of commands is one line of a chain. If it cannot be recorded, nothing is served.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::future::join_all;
use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use serde_json::{Value, json};
use support::authorization_server::FakeAs;
use support::fault::Fault;
use support::safeconduct::{Daemon, Safeconduct};
use support::scene::Scene;
use support::tcp_http::{self, Loopback};
use support::unix_http;
use support::wait::until;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::exit::{ASKED_WRONGLY, CONFIG, DENIED, TEMPORARY};
use crate::{LIMIT, binary};

const BROKEN: i32 = 1;

const ASK: &str = "/v1/token?server=demo";

/// The audit file of a world.
struct Record(PathBuf);

impl Record {
    fn of(scene: &Scene) -> Self {
        Self(scene.safeconduct.path().join("audit.jsonl"))
    }

    /// The table for the configuration.
    fn table(&self) -> String {
        format!("[audit]\nfile = \"{}\"\n", self.0.display())
    }

    fn text(&self) -> String {
        read(&self.0)
    }

    fn lines(&self) -> Vec<Value> {
        lines(&self.text())
    }

    fn path(&self) -> String {
        self.0.display().to_string()
    }

    /// The path after a rotation.
    fn rotated(&self, number: usize) -> PathBuf {
        self.0.with_extension(format!("jsonl.{number}"))
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn decisions(text: &str) -> usize {
    lines(text).iter().filter(|line| line["outcome"].is_string()).count()
}

/// Another server, which admits only another user.
fn closed() -> String {
    format!(
        "[servers.closed]\nurl = \"https://closed.example.com/mcp\"\nallow = [{{ uid = {} }}]\n",
        geteuid().as_raw() + 1
    )
}

async fn audited(scene: &Scene, more: &str) -> (Safeconduct, Daemon, Record) {
    let record = Record::of(scene);
    let world = scene.configured(&format!("{more}{}", record.table()));
    let daemon = world.daemon(&[]).await;
    (world, daemon, record)
}

async fn verify(world: &Safeconduct, args: &[&str]) -> Value {
    world.run(&[&["audit", "verify", "--json"], args].concat()).await.expect_code(0).json()
}

// Every decision.

#[tokio::test]
async fn a_server_that_is_named_again_and_again_is_one_line() {
    let scene = Scene::new(binary()).await;
    let (_, daemon, record) = audited(&scene, "").await;
    let repeated = vec!["server=demo"; 500].join("&");
    daemon.get(&format!("/readyz?{repeated}")).await;
    assert_eq!(decisions(&record.text()), 1);
    let many: Vec<String> = (0..65).map(|number| format!("server=s{number}")).collect();
    let reply = daemon.get(&format!("/readyz?{}", many.join("&"))).await;
    assert_eq!((reply.status, &reply.json()["error"]), (400, &json!("invalid_request")), "{}", reply.body);
    assert_eq!(decisions(&record.text()), 2);
}

#[tokio::test]
async fn who_shows_no_secret_over_tcp_is_recorded_as_nobody_known() {
    let scene = Scene::new(binary()).await;
    let (_, daemon, record) = audited(&scene, "[listen]\nhttp = \"127.0.0.1:0\"\n").await;
    let loopback = Loopback::of(&daemon).await;
    assert_eq!(loopback.get(ASK).await.status, 200);
    assert_eq!(loopback.get_with(ASK, "").await.status, 403);
    assert_eq!(loopback.get_with(ASK, "origin: https://evil.example\r\n").await.status, 403);
    let callers: Vec<Value> = record.lines().iter().map(|line| line["caller"].clone()).collect();
    assert_eq!(callers, [json!({"uid": geteuid().as_raw()}), json!({}), json!({})]);
}

#[tokio::test]
async fn a_bound_token_without_a_proof_is_recorded_as_refused_because_it_was() {
    let scene = Scene::new(binary()).await;
    scene.mcp.require_dpop(None);
    let (world, daemon, record) = audited(&scene, "").await;
    assert_eq!(daemon.get("/v1/headers?server=demo").await.status, 403);
    let url = scene.mcp.url();
    assert_eq!(daemon.get(&format!("/v1/headers?server=demo&method=POST&url={url}")).await.status, 200);
    let told: Vec<String> = record.lines().iter().map(in_short).collect();
    assert_eq!(told, ["headers denied token_bound demo", "headers served demo"]);
    drop(daemon);
    world.run(&["headers", "demo", "--no-daemon"]).await.expect_code(77);
    assert_eq!(record.lines().last().map(in_short).as_deref(), Some("headers denied token_bound demo"));
}

#[tokio::test]
async fn every_decision_is_one_line_whatever_came_of_it() {
    let scene = Scene::new(binary()).await;
    let (world, daemon, record) = audited(&scene, &closed()).await;
    let token: String = daemon.token("demo").await;
    let browser =
        "GET /v1/token?server=demo HTTP/1.1\r\nhost: localhost\r\norigin: https://x\r\nconnection: close\r\n\r\n";
    let rebound = "GET /v1/status HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n";
    assert_eq!(daemon.get("/v1/headers?server=demo&use=helper&scope=demo:read").await.status, 200);
    assert_eq!(daemon.get("/v1/token?server=closed").await.status, 403);
    assert_eq!(daemon.get("/v1/token?server=nobody%0Aknows").await.status, 400);
    assert_eq!(daemon.get("/v1/token?server=https://elsewhere.example/mcp?key=hush").await.status, 403);
    assert_eq!(daemon.get("/v1/headers?server=demo&method=POST&url=https://elsewhere.example/").await.status, 403);
    assert_eq!(daemon.exchange(browser).await.status, 403);
    assert_eq!(daemon.exchange(rebound).await.status, 403);
    let digest = "0".repeat(64);
    let rejected = json!({ "server": "demo", "access_token_sha256": digest });
    assert_eq!(daemon.post("/v1/reject", &rejected).await.status, 204);
    assert_eq!(daemon.get("/readyz?server=demo").await.status, 200);
    assert_eq!(daemon.get("/readyz?server=unheard").await.status, 400);
    assert_eq!(daemon.post("/v1/revoke", &json!({ "server": "closed" })).await.status, 403);
    // These requests contain no decision, so there is no line.
    for quiet in ["/healthz", "/readyz", "/metrics", "/v1/status"] {
        daemon.get(quiet).await;
    }
    let told: Vec<String> = record.lines().iter().map(in_short).collect();
    let wanted = [
        "token served demo",
        "headers served demo",
        "token denied access_denied closed",
        "token bad_request unknown_server nobody knows",
        "token denied server_not_configured https://elsewhere.example/mcp",
        "headers denied access_denied demo",
        "gate denied browser",
        "gate denied foreign_host",
        "reject served demo",
        "ready served demo",
        "ready bad_request unknown_server unheard",
        "revoke denied access_denied closed",
    ];
    assert_eq!(told, wanted);
    assert!(!record.text().contains("hush"), "a query may hold anything");
    assert!(!record.text().contains(&token), "no secret is in it");
    whole_and_as_the_status_says(&world, &daemon, &record).await;
    daemon.stop().await.expect_code(0);
}

fn in_short(line: &Value) -> String {
    let words = [&line["action"], &line["class"], &line["error"], &line["server"]];
    let mut words: Vec<&str> = words.iter().filter_map(|word| word.as_str()).collect();
    if line["outcome"] == "served" {
        words.insert(1, "served");
    }
    words.join(" ")
}

async fn whole_and_as_the_status_says(world: &Safeconduct, daemon: &Daemon, record: &Record) {
    let status = daemon.get("/v1/status").await.json();
    let report = verify(world, &[]).await;
    assert_eq!((&report["ok"], &report["lines"]), (&json!(true), &json!(record.lines().len())));
    assert_eq!((&report["head"], &report["seq"]), (&status["audit"]["head"], &status["audit"]["seq"]));
    assert_eq!(status["audit"]["file"], record.path());
    let shown = daemon.run(&["status"]).await.expect_code(0).stdout;
    assert!(shown.contains(report["head"].as_str().expect("a text")), "{shown}");
}

#[tokio::test]
async fn a_served_line_names_the_caller_the_identity_and_the_token() {
    let scene = Scene::new(binary()).await;
    let (_, daemon, record) = audited(&scene, "").await;
    let answer = daemon.get("/v1/token?server=demo&scope=demo:read&use=helper").await.json();
    let line = record.lines().pop().expect("one line");
    let token = answer["access_token"].as_str().expect("a token");
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(line["sha256"], hex);
    for (key, wanted) in
        [("resource", "resource"), ("issuer", "issuer"), ("expires_at", "expires_at"), ("scopes", "scope")]
    {
        assert_eq!(line[key], answer[wanted], "{key}");
    }
    assert_eq!((&line["asked"], &line["helper"]), (&json!("demo:read"), &json!(true)));
    let caller = &line["caller"];
    assert_eq!((&caller["uid"], &caller["pid"]), (&json!(geteuid().as_raw()), &json!(std::process::id())));
    #[cfg(target_os = "linux")]
    assert_eq!(
        caller["exe"].as_str(),
        std::env::current_exe().expect("it runs").to_str(),
        "it is this test that asked"
    );
    let hop = &line["identity"][0];
    assert_eq!(hop["source"], "github-actions");
    assert!(hop["sub"].as_str().is_some_and(|sub| sub.starts_with("repo:")), "{hop}");
    assert!(hop["iss"].as_str().is_some_and(|iss| iss.starts_with("http")), "{hop}");
    assert_eq!(fs::metadata(&record.0).expect("there").mode() & 0o777, 0o600);
}

/// The rules of the documented format.
#[tokio::test]
async fn a_stranger_can_check_a_line_with_the_tools_of_every_machine() {
    let scene = Scene::new(binary()).await;
    let (_, daemon, record) = audited(&scene, "").await;
    daemon.token("demo").await;
    daemon.token("demo").await;
    let script = r#"sed -n 1p "$1" | sed 's/,"hash":"[0-9a-f]*"}$/}/' | tr -d '\n' | sha256sum | cut -d ' ' -f 1"#;
    let said = std::process::Command::new("sh").args(["-c", script, "sh"]).arg(&record.0).output().expect("a shell");
    let hash = String::from_utf8_lossy(&said.stdout).trim().to_owned();
    let lines = record.lines();
    assert_eq!((&lines[0]["hash"], &lines[1]["prev"]), (&json!(hash), &json!(hash)));
}

#[tokio::test]
async fn sixteen_clients_at_once_leave_a_line_for_each_token_and_lose_no_refusal() {
    let scene = Scene::new(binary()).await;
    let (world, daemon, record) = audited(&scene, &closed()).await;
    let client = |number: usize| {
        let socket = daemon.socket().to_owned();
        async move {
            for round in 0..20 {
                let refused = (number + round).is_multiple_of(4);
                let path = if refused { "/v1/token?server=closed" } else { ASK };
                let reply = unix_http::get(&socket, path).await.expect("answered");
                assert_eq!(reply.status, if refused { 403 } else { 200 });
            }
        }
    };
    join_all((0..16).map(client)).await;
    let served = |line: &&Value| line["outcome"] == "served";
    assert_eq!(record.lines().iter().filter(served).count(), 16 * 15);
    // Its end does not wait for the end of the second.
    daemon.stop().await.expect_code(0);
    let lines = record.lines();
    let refused = lines.iter().filter(|line| !served(line)).map(|line| line["more"].as_u64().unwrap_or(1));
    assert_eq!(refused.sum::<u64>(), 16 * 5);
    assert_eq!(verify(&world, &[]).await["lines"], lines.len());
}

// One writer.

#[tokio::test]
async fn a_second_daemon_and_a_command_beside_it_are_refused_with_the_holder_named() {
    let scene = Scene::new(binary()).await;
    let (world, daemon, record) = audited(&scene, "").await;
    daemon.token("demo").await;
    let socket = world.path().join("second.sock").display().to_string();
    let second = world.run(&["run", "--socket", &socket]).await.expect_code(CONFIG);
    let command = world.run(&["token", "demo", "--no-daemon"]).await.expect_code(CONFIG);
    for output in [&second, &command] {
        assert!(output.stdout.is_empty());
        assert!(output.stderr.contains(&record.path()), "{}", output.stderr);
        assert!(output.stderr.contains("hint: one daemon writes to one file"), "{}", output.stderr);
        // On some file systems /proc/locks shows another inode than stat(2).
        let named = output.stderr.contains(&format!("another safeconduct (pid {})", daemon.pid()));
        assert!(named || output.stderr.contains("another safeconduct writes"), "{}", output.stderr);
    }
    assert_eq!(record.lines().len(), 1, "neither wrote between its lines");
    daemon.stop().await.expect_code(0);
    world.run(&["token", "demo", "--no-daemon"]).await.expect_code(0);
    assert_eq!(verify(&world, &[]).await["lines"], 2);
}

#[tokio::test]
async fn commands_without_a_daemon_record_what_they_decide() {
    let scene = Scene::new(binary()).await;
    let record = Record::of(&scene);
    let world = scene.configured(&format!("{}{}", closed(), record.table()));
    world.run(&["token", "demo"]).await.expect_code(0);
    world.run(&["headers", "demo"]).await.expect_code(0);
    world.run(&["token", "closed"]).await.expect_code(DENIED);
    world.run(&["token", "unheard"]).await.expect_code(ASKED_WRONGLY);
    world.run(&["token", &format!("{}/../x", scene.mcp.base())]).await.expect_code(ASKED_WRONGLY);
    world.run(&["token", &format!("{}/elsewhere?key=hush", scene.mcp.base())]).await.expect_code(DENIED);
    scene.authorization_server.always_token(Fault::Stall);
    world.run(&["token", "demo", "--timeout", "1s"]).await.expect_code(TEMPORARY);
    let told: Vec<String> = record.lines().iter().map(in_short).collect();
    assert_eq!(
        told[..4],
        [
            "token served demo",
            "headers served demo",
            "token denied access_denied closed",
            "token bad_request unknown_server unheard",
        ]
    );
    assert_eq!(told[4], format!("token denied server_not_configured {}/elsewhere", scene.mcp.base()));
    assert!(told[5].starts_with("token temporary t") && told[5].ends_with(" demo"), "{}", told[5]);
    assert_eq!(told.len(), 6);
    assert_eq!(verify(&world, &[]).await["lines"], 6);
}

#[tokio::test]
async fn commands_at_once_take_turns() {
    let scene = Scene::new(binary()).await;
    let record = Record::of(&scene);
    let world = scene.configured(&record.table());
    let runs = (0..6).map(|_| {
        let world = world.clone();
        async move { world.run(&["token", "demo"]).await.expect_code(0) }
    });
    join_all(runs).await;
    assert_eq!(verify(&world, &[]).await["lines"], 6);
}

#[tokio::test]
async fn a_place_that_others_can_change_is_refused() {
    let scene = Scene::new(binary()).await;
    let open = scene.safeconduct.path().join("open");
    fs::create_dir(&open).expect("it is new");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).expect("ours");
    let record = Record(open.join("audit.jsonl"));
    let world = scene.configured(&record.table());
    for args in [&["run"][..], &["token", "demo"]] {
        let output = world.run(args).await.expect_code(CONFIG);
        assert!(output.stderr.contains("its directory can be written by others"), "{}", output.stderr);
    }
    assert_eq!(scene.authorization_server.token_requests(), 0, "nothing is minted that could not be recorded");
}

// A full disk.

/// The soft limit on the size of a file that the daemon writes. It has the effect of a full disk, also for root.
#[cfg(target_os = "linux")]
pub(crate) fn limit_files(daemon: &Daemon, bytes: Option<u64>) {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let pid = Pid::from_raw(i32::try_from(daemon.pid()).expect("a pid")).expect("not zero");
    prlimit(Some(pid), Resource::Fsize, Rlimit { current: bytes, maximum: None }).expect("the daemon is ours");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_cannot_be_recorded_is_not_served_and_a_part_of_a_line_is_cut_off() {
    let scene = Scene::new(binary()).await;
    let (world, daemon, record) = audited(&scene, &closed()).await;
    for _ in 0..3 {
        daemon.token("demo").await;
    }
    let before = record.text();
    // Space for only a part of a line.
    limit_files(&daemon, Some(before.len() as u64 + 100));
    for path in [ASK, "/v1/headers?server=demo", "/readyz?server=demo"] {
        let reply = daemon.get(path).await;
        let body = reply.json();
        assert_eq!((reply.status, &body["class"], &body["error"]), (503, &json!("temporary"), &json!("audit_failed")));
        assert!(reply.header("retry-after").is_some());
        let hint = body["hint"].as_str().expect("a cure");
        assert!(hint.contains(&record.path()) && hint.contains("nothing is served"), "{hint}");
        assert!(!reply.body.contains("access_token"));
    }
    assert_eq!(daemon.get("/v1/token?server=closed").await.status, 403, "a refusal stays one");
    let helper = daemon.run(&["token", "demo"]).await.expect_code(TEMPORARY);
    assert!(helper.stderr.contains("cannot be written"), "{}", helper.stderr);
    assert_eq!(record.text(), before, "no part of a line is left");
    limit_files(&daemon, None);
    daemon.token("demo").await;
    assert_eq!(verify(&world, &[]).await["lines"], 4);
    daemon.stop().await.expect_code(0);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_daemon_that_cannot_record_is_not_ready_until_it_can_again() {
    let scene = Scene::new(binary()).await;
    let (world, daemon, record) = audited(&scene, "required = true\n[listen]\nhealth = \"127.0.0.1:0\"\n").await;
    daemon.run(&["ready", "--wait", "10s"]).await.expect_code(0);
    let listen = tcp_http::listening(&daemon).await;
    let health: SocketAddr = listen["health"].as_str().and_then(|text| text.parse().ok()).expect("an address");
    let probe = async || tcp_http::get(health, "/readyz").await.expect("it answers");
    let unwritten = async || {
        let text = daemon.get("/metrics").await.body;
        let line = text.lines().find_map(|line| line.strip_prefix("safeconduct_audit_records_failed_total "));
        line.expect("there").parse::<u64>().expect("a number")
    };
    assert_eq!((probe().await.status, unwritten().await), (200, 0));
    let before = record.text();
    limit_files(&daemon, Some(before.len() as u64 + 1));
    assert_eq!(daemon.get(ASK).await.status, 503);
    let reply = daemon.get("/readyz").await;
    assert_eq!((reply.status, &reply.json()["ready"]), (503, &json!(false)));
    let reason = reply.json()["reasons"][0].as_str().expect("a reason").to_owned();
    assert!(reason.contains(&record.path()) && reason.contains("cannot be written"), "{reason}");
    let told = probe().await;
    assert_eq!(told.status, 503);
    assert!(told.body.contains("audit") && !told.body.contains(&record.path()), "no names: {}", told.body);
    let output = daemon.run(&["ready"]).await.expect_code(TEMPORARY);
    assert!(output.stderr.contains("cannot be written"), "{}", output.stderr);
    let status = daemon.run(&["status", "--json"]).await.expect_code(0).json();
    assert!(status["audit"]["error"].as_str().is_some_and(|error| error.contains("cannot be written")), "{status}");
    let table = daemon.run(&["status"]).await.expect_code(0).stdout;
    assert!(table.contains("cannot be written") && table.contains("nothing is served"), "{table}");
    assert!(unwritten().await >= 1);
    assert_eq!(record.text(), before);
    // Whoever waits for readiness sends no other request, so the question itself finds out.
    limit_files(&daemon, None);
    assert_eq!((probe().await.status, daemon.get("/readyz").await.status), (200, 200));
    let status = daemon.get("/v1/status").await.json();
    assert!(status["audit"].get("error").is_none_or(Value::is_null), "{status}");
    assert_eq!(verify(&world, &[]).await["lines"], decisions(&before) + 1);
    daemon.stop().await.expect_code(0);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_rotation_is_a_cure_for_a_full_file() {
    let scene = Scene::new(binary()).await;
    let (world, daemon, record) = audited(&scene, "").await;
    daemon.token("demo").await;
    limit_files(&daemon, Some(record.text().len() as u64 + 1));
    assert_eq!(daemon.get(ASK).await.status, 503);
    fs::rename(&record.0, record.rotated(1)).expect("ours");
    limit_files(&daemon, None);
    daemon.signal(Signal::SIGHUP);
    until(LIMIT, "the new file is there", async || record.0.exists()).await;
    daemon.token("demo").await;
    let files = [record.rotated(1).display().to_string(), record.path()];
    assert_eq!(verify(&world, &[&files[0], &files[1]]).await["lines"], 3);
}

// Rotation and loss of power.

#[tokio::test]
async fn a_rotation_under_load_keeps_the_chain_whole() {
    let scene = Scene::new(binary()).await;
    let (world, daemon, record) = audited(&scene, "").await;
    daemon.token("demo").await;
    let (served, stop) = (Arc::new(AtomicUsize::new(1)), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (socket, served, stop) = (daemon.socket().to_owned(), Arc::clone(&served), Arc::clone(&stop));
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    assert_eq!(unix_http::get(&socket, ASK).await.expect("answered").status, 200);
                    served.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let mut files = Vec::new();
    for number in 0..3 {
        let before = served.load(Ordering::SeqCst);
        until(LIMIT, "the clients are at it", async || served.load(Ordering::SeqCst) > before + 20).await;
        fs::rename(&record.0, record.rotated(number)).expect("ours");
        files.push(record.rotated(number));
        daemon.signal(Signal::SIGHUP);
        until(LIMIT, "the new file is there", async || record.0.exists()).await;
    }
    stop.store(true, Ordering::SeqCst);
    join_all(clients).await.into_iter().for_each(|client| client.expect("it was served"));
    files.push(record.0.clone());
    let count: usize = files.iter().map(|file| decisions(&read(file))).sum();
    assert_eq!(count, served.load(Ordering::SeqCst));
    let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(verify(&world, &names).await["lines"], count + 3);
    assert!(
        read(&files[1]).starts_with(&format!("{{\"prev\":{}", lines(&read(&files[0])).pop().expect("a last")["hash"]))
    );
    names.remove(1);
    let gap = world.run(&[&["audit", "verify"], &names[..]].concat()).await.expect_code(BROKEN);
    assert!(gap.stderr.contains("missing before it"), "{}", gap.stderr);
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn a_line_that_was_torn_by_a_loss_of_power_is_kept_and_told() {
    let scene = Scene::new(binary()).await;
    let (world, daemon, record) = audited(&scene, "").await;
    daemon.token("demo").await;
    daemon.token("demo").await;
    daemon.stop().await.expect_code(0);
    let whole = record.text();
    fs::write(&record.0, &whole[..whole.len() - 60]).expect("ours");
    let output = world.run(&["audit", "verify"]).await.expect_code(BROKEN);
    assert!(output.stderr.contains("line 2: the chain is broken: the last"), "{}", output.stderr);
    let daemon = world.daemon(&[]).await;
    daemon.logged("no whole line").await;
    daemon.token("demo").await;
    let output = world.run(&["audit", "verify"]).await.expect_code(0);
    assert!(output.stdout.starts_with("whole: 3 lines"), "{}", output.stdout);
    assert!(
        output.stdout.contains("line 2:") && output.stdout.contains("as after a loss of power"),
        "{}",
        output.stdout
    );
}

// The outputs of the commands.

#[tokio::test]
async fn verify_says_which_line_is_wrong_and_whether_a_head_is_there() {
    let scene = Scene::new(binary()).await;
    let (world, daemon, record) = audited(&scene, "").await;
    for _ in 0..4 {
        daemon.token("demo").await;
    }
    let heads: Vec<String> =
        record.lines().iter().filter_map(|line| line["hash"].as_str().map(str::to_owned)).collect();
    let output = world.run(&["audit", "verify", "--head", &heads[3]]).await.expect_code(0);
    assert!(output.stdout.contains("line 4; it is the last line"), "{}", output.stdout);
    let output = world.run(&["audit", "verify", "--head", &heads[1]]).await.expect_code(0);
    assert!(
        output.stdout.contains(&heads[3]) && output.stdout.contains("line 2; lines follow it"),
        "{}",
        output.stdout
    );
    daemon.stop().await.expect_code(0);
    let text = record.text();
    let cut: String = text.split_inclusive('\n').take(3).collect();
    let other = world.write("other.jsonl", &cut).display().to_string();
    let output = world.run(&["audit", "verify", &other, "--head", &heads[3]]).await.expect_code(BROKEN);
    assert!(output.stdout.is_empty() && output.stderr.contains("its end was cut off"), "{}", output.stderr);
    let json = world.run(&["audit", "verify", &other, "--head", &heads[3], "--json"]).await.expect_code(BROKEN);
    let said: Value = serde_json::from_str(&json.stderr).expect("JSON");
    assert_eq!((&said["ok"], &said["error"], &said["lines"]), (&json!(false), &json!("head_not_found"), &json!(3)));
    fs::write(&other, text.replacen("\"seq\":3", "\"seq\":5", 1)).expect("ours");
    let output = world.run(&["audit", "verify", &other]).await.expect_code(BROKEN);
    assert!(
        output.stderr.contains(&format!("{other}: line 3: the chain is broken: it was changed")),
        "{}",
        output.stderr
    );
    let json = world.run(&["audit", "verify", &other, "--json"]).await.expect_code(BROKEN);
    let said: Value = serde_json::from_str(&json.stderr).expect("JSON");
    assert_eq!((&said["error"], &said["at"]["line"]), (&json!("changed"), &json!(3)));
    world.run(&["audit", "verify", "--head", "12"]).await.expect_code(ASKED_WRONGLY);
    world.run(&["audit", "verify", "/nonexistent/audit.jsonl"]).await.expect_code(CONFIG);
    scene.configured("").run(&["audit", "verify"]).await.expect_code(ASKED_WRONGLY);
}

#[tokio::test]
async fn tail_shows_the_last_lines_for_people_and_commands_no_runner() {
    let scene = Scene::new(binary()).await;
    let (world, daemon, record) = audited(&scene, "").await;
    daemon.token("demo").await;
    daemon.get("/v1/token?server=%3A%3Aset-env%20name%3Dx%3A%3Ay").await;
    let output = world.run(&["audit", "tail"]).await.expect_code(0);
    let shown: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(shown.len(), 2, "{}", output.stdout);
    for word in ["served", "demo", "as repo:", "uid"] {
        assert!(shown[0].contains(word), "{word}: {}", shown[0]);
    }
    assert!(shown[1].contains("refused") && shown[1].ends_with("bad_request: unknown_server"), "{}", shown[1]);
    let ci = world.clone().env("CI", "true");
    for args in [&["audit", "tail", "-n", "1"][..], &["audit", "tail", "-n", "1", "--json"]] {
        let output = ci.run(args).await.expect_code(0);
        assert_eq!(output.stdout.lines().count(), 1);
        assert!(!output.stdout.contains("::") && output.stdout.contains("set-env"), "{}", output.stdout);
    }
    let raw =
        world.without_env("GITHUB_ACTIONS").run(&["audit", "tail", "--json", &record.path()]).await.expect_code(0);
    assert_eq!(raw.stdout, record.text());
}

#[tokio::test]
async fn tail_follows_over_a_rotation() {
    let scene = Scene::new(binary()).await;
    let (world, daemon, record) = audited(&scene, "").await;
    daemon.token("demo").await;
    let mut tail = world.spawn(&["audit", "tail", "-f", "--json"]);
    let mut shown = BufReader::new(tail.stdout()).lines();
    let mut seen = Vec::new();
    let mut next = async |count: usize| {
        for _ in 0..count {
            let line = tokio::time::timeout(LIMIT, shown.next_line()).await.expect("in time").expect("readable");
            seen.push(line.expect("it goes on"));
        }
        seen.len()
    };
    next(1).await;
    daemon.token("demo").await;
    next(1).await;
    fs::rename(&record.0, record.rotated(1)).expect("ours");
    daemon.token("demo").await;
    daemon.signal(Signal::SIGHUP);
    until(LIMIT, "the new file is there", async || record.0.exists()).await;
    daemon.token("demo").await;
    assert_eq!(next(3).await, 5);
    tail.signal(Signal::SIGTERM);
    tail.wait().await;
    let all = format!("{}{}", read(&record.rotated(1)), record.text());
    assert_eq!(seen, all.lines().collect::<Vec<_>>());
}

// Chains.

#[tokio::test]
async fn a_line_names_every_hop_from_the_platform_to_the_server() {
    let scene = Scene::new(binary()).await;
    let first = FakeAs::start(scene.platform.trust()).await;
    let second = FakeAs::start(first.trust()).await;
    first.set_audience(&second.issuer());
    second.set_audience(&scene.authorization_server.issuer());
    scene.authorization_server.trust_only(second.trust());
    let chain = format!(
        "identity = \"changed\"\nexchange = \"id-jag\"\nidp = {{ issuer = \"{}\" }}\n\
         [identities.changed]\nfrom = \"default\"\nexchange = \"token-exchange\"\nissuer = \"{}\"\n",
        second.issuer(),
        first.issuer()
    );
    let (world, daemon, record) = audited(&scene, &chain).await;
    daemon.token("demo").await;
    let line = record.lines().pop().expect("a line");
    let hop = |source: &str, iss: &str, sub: &Value| json!({"source": source, "iss": iss, "sub": sub});
    // The claims about the workload in the token that each party made for the next.
    let shown = |party: &FakeAs| party.last_request().assertion["sub"].clone();
    let hops = [
        hop("github-actions", &scene.platform.trust().issuer, &shown(&first)),
        hop("token-exchange", &first.issuer(), &shown(&second)),
        hop("id-jag", &second.issuer(), &shown(&scene.authorization_server)),
    ];
    assert_eq!(line["identity"], json!(hops));
    assert_eq!((&line["outcome"], &line["issuer"]), (&json!("served"), &json!(scene.authorization_server.issuer())));
    let shown = world.run(&["audit", "tail"]).await.expect_code(0).stdout;
    assert!(shown.contains("demo"), "{shown}");
    daemon.stop().await.expect_code(0);
}
