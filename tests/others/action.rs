//! The GitHub action (`action.yml`), run as GitHub's runner runs it, with the real program and Node.js 24.
//!
//! | file | what |
//! |---|---|
//! | `job.rs` | the runner |
//! | `release.rs` | programs of a release: the digest, the tool cache, the download |

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::fakes::authorization_server::TokenFault;
use crate::fakes::fault::Fault;
use crate::fakes::scene::Scene;
use crate::fakes::{leak, wait};
use crate::process::{LIMIT, ROOT, SAFECONDUCT, installed, run};
use job::{Job, NODE_24};

mod job;
mod release;

#[tokio::test(flavor = "multi_thread")]
async fn a_job_has_its_tokens_renewed_and_revoked_at_its_end() {
    let scene = Scene::new(SAFECONDUCT).await;
    scene.authorization_server.set_token_life(Duration::from_secs(4));
    let job = Job::of(&scene).input("issuer", &scene.authorization_server.issuer()).input("scope", "demo:read");
    let main = job.main().expect_success();
    let first = &main.outputs["token_demo"];
    let names: Vec<&String> = main.outputs.keys().collect();
    assert_eq!(names, ["expires_at_demo", "socket", "token_demo"]);
    assert!(scene.authorization_server.verifier().verify(first).is_ok(), "the output is a token");
    assert_eq!(main.state["socket"], main.outputs["socket"]);
    assert_eq!(main.path, "", "an installed program is on PATH already, or not wanted there");
    assert!(main.summary.contains("demo"), "people see what the job has: {:?}", main.summary);

    // A later step finds the daemon without a word, and after a while it has another token.
    let later = || {
        let command = job.command(SAFECONDUCT, &["token", "demo", "--daemon-only", "--no-mask"]);
        run(command, &job.path("home")).stdout.trim().to_owned()
    };
    wait::until(LIMIT, "a renewed token", async || {
        let token = later();
        !token.is_empty() && token != *first
    })
    .await;
    scene.authorization_server.set_token_life(Duration::from_secs(600));
    wait::until(LIMIT, "a token of ten minutes", async || {
        let issued = scene.authorization_server.issued();
        issued.last().is_some_and(|(from, until)| until - from > 500.0)
    })
    .await;
    let last = later();
    let post = job.post(&main.state);
    assert_eq!(post.log, [""; 0], "it has nothing to say");
    assert!(scene.authorization_server.is_revoked(&last), "what lives is revoked");
    nothing_is_left(&scene, &job).await;
    // A second post step, as of a second attempt, finds nothing to do.
    assert_eq!(job.post(&main.state).log, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_job_says_why_and_its_post_step_is_quiet() {
    let scene = Scene::new(SAFECONDUCT).await;
    scene.authorization_server.always_token(TokenFault::oauth("invalid_grant"));
    let job = Job::of(&scene);
    let main = job.main().expect_failure(&["invalid_grant", "%0ACure: "]);
    assert_eq!(job.post(&main.state).log, [""; 0]);
    nothing_is_left(&scene, &job).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_without_the_permission_names_it_before_anything_is_fetched() {
    let scene = Scene::new(SAFECONDUCT).await;
    for missing in ["ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"] {
        // A program that cannot be had would be the next failure.
        let job = Job::of(&scene).without_env(missing).input("path", "/nowhere/safeconduct");
        let main =
            job.main().expect_failure(&["may not ask for an identity token", "`permissions:` with `id-token: write`"]);
        assert!(main.state.contains_key("before"), "the state comes first");
        assert_eq!(job.post(&main.state).log, [""; 0]);
    }
    let event = serde_json::json!({
        "pull_request": { "head": { "repo": { "id": 2, "full_name": "x\n::add-path::/evil" } } },
        "repository": { "id": 1 }
    });
    for (event, said) in [(event.to_string(), "pull request from a fork"), ("{".to_owned(), "id-token: write")] {
        let job = Job::of(&scene).without_env("ACTIONS_ID_TOKEN_REQUEST_URL");
        fs::write(job.path("event.json"), event).expect("ours");
        let path = job.path("event.json").display().to_string();
        job.env("GITHUB_EVENT_PATH", &path).main().expect_failure(&[said]);
    }
    // The cure is another one where others run GitHub's actions.
    let job = Job::of(&scene).without_env("ACTIONS_ID_TOKEN_REQUEST_URL").env("FORGEJO_ACTIONS", "true");
    job.main().expect_failure(&["`enable-openid-connect: true`"]);
    // A configuration can name an identity that is not the job's, so then the program decides.
    let job = Job::of(&scene).without_env("ACTIONS_ID_TOKEN_REQUEST_URL");
    let config = job.path("safeconduct.toml").display().to_string();
    job.input("config", &config).main().expect_failure(&["ACTIONS_ID_TOKEN_REQUEST_URL", "id-token: write"]);
    assert_eq!(scene.platform.requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_leaves_nothing_behind() {
    // Cancelled with time to end, and without.
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
        let scene = Scene::new(SAFECONDUCT).await;
        scene.authorization_server.always_token(Fault::Stall);
        let job = Job::of(&scene);
        let main = job.begin_main();
        wait::until(LIMIT, "the exchange begins", async || scene.authorization_server.token_requests() > 0).await;
        main.signal(signal);
        let main = main.end();
        assert!(!main.succeeded && main.outputs.is_empty(), "{signal}: {}", main.said());
        assert!(!main.said().contains("::error"), "the page of the run says it already: {}", main.said());
        assert_eq!(job.post(&main.state).log, [""; 0], "{signal}");
        nothing_is_left(&scene, &job).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guards_of_the_workflow_hold() {
    let scene = Scene::new(SAFECONDUCT).await;
    let issuer = scene.authorization_server.issuer();
    let allowed = |servers: &str, issuers: &str| {
        Job::of(&scene).input("allowed-servers", servers).input("allowed-issuers", issuers)
    };
    let url = scene.mcp.url();
    allowed("https://other.example/mcp", "").main().expect_failure(&[&url]);
    allowed("", "https://other.example").main().expect_failure(&[&issuer]);
    assert_eq!(scene.authorization_server.token_requests(), 0, "nobody got the identity");
    let job = allowed(&format!("https://other.example/mcp\n{url}"), &format!("{issuer}\r\n"));
    let main = job.main().expect_success();
    job.post(&main.state);
    nothing_is_left(&scene, &job).await;
}

/// The log takes no command, and the files no key, from what a workflow passes on.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_inputs_add_no_command_no_flag_and_no_key() {
    let scene = Scene::new(SAFECONDUCT).await;
    let url = scene.mcp.url();
    for servers in [
        String::new(),
        "--config=/etc/passwd".to_owned(),
        format!("--allowed-server={url}"),
        "demo".to_owned(),
        format!("demo={url}\ndemo={url}"),
        format!("a<<b={url}"),
        "x\r\n::add-path::/evil".to_owned(),
    ] {
        let job = Job::of(&scene).input("servers", &servers);
        let main = job.main().expect_failure(&[]);
        assert_eq!(main.path, "", "{servers:?}");
        assert!(main.state.keys().all(|name| ["before", "program"].contains(&name.as_str())), "{:?}", main.state);
        job.post(&main.state);
    }
    for (input, value) in [("issuer", "--json"), ("allowed-issuers", "-h")] {
        Job::of(&scene).input(input, value).main().expect_failure(&[]);
    }
    assert_eq!(scene.platform.requests(), 0);
    // That is the name of a scope, which the server does not know.
    Job::of(&scene).input("scope", "--no-such-flag").main().expect_failure(&["invalid_scope"]);
    // These are URLs below that of the server. Whether there is a token for them or not, they are shown as texts.
    for path in ["%0A::add-path::/evil", "##[add-path]/evil", "\u{7}\u{1b}[31m\u{2028}::error::x", "](x)<img>"] {
        let job = Job::of(&scene).input("servers", &format!("x={url}/{path}"));
        let main = job.main();
        let known = ["token_x", "expires_at_x", "socket"];
        assert!(main.outputs.keys().all(|name| known.contains(&name.as_str())), "{path:?}: {:?}", main.outputs.keys());
        assert!(main.path.is_empty() && !main.summary.contains("<img>"), "{path:?}: {}", main.summary);
        job.post(&main.state);
        nothing_is_left(&scene, &job).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_step_that_cannot_end_the_daemon_says_so_in_one_line() {
    let scene = Scene::new(SAFECONDUCT).await;
    let job = Job::of(&scene);
    let main = job.main().expect_success();
    let with = |program: &str| {
        let mut state = main.state.clone();
        state.insert("program".to_owned(), program.to_owned());
        state
    };
    for (program, said) in [("/nowhere/safeconduct", "the program is gone"), ("/bin/false", "it ended with 1")] {
        let post = job.post(&with(program));
        assert_eq!(post.log.len(), 1, "{:?}", post.log);
        assert!(post.log[0].contains(said) && post.log[0].contains("not revoked"), "{:?}", post.log);
    }
    // The program gets nothing of the post step's environment.
    let seen = job.path("seen");
    let script = job.path("script");
    fs::write(&script, format!("#!/bin/sh\nenv >{}\n", seen.display())).expect("ours");
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("ours");
    job.post(&with(&script.display().to_string()));
    let seen = fs::read_to_string(seen).expect("it ran");
    let names: Vec<&str> = seen.lines().filter_map(|line| line.split('=').next()).collect();
    assert!(names.iter().all(|name| ["PWD", "_", "SHLVL", "OLDPWD"].contains(name)), "{names:?}");
    assert_eq!(job.post(&main.state).log, [""; 0]);
    nothing_is_left(&scene, &job).await;
}

#[test]
fn the_committed_files_are_what_the_script_makes() {
    installed();
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let mut command = Command::new(Path::new(ROOT).join(NODE_24));
    command.args([&format!("{ROOT}/packaging/action/build.mjs"), "--check"]);
    let outcome = run(command, dir.path());
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let imports = |name: &str| {
        let text = fs::read_to_string(format!("{ROOT}/packaging/action/dist/{name}")).expect("it is committed");
        assert!(!text.contains("require(") && !text.contains("import("), "{name} loads something else");
        let from = |line: &str| line.strip_prefix("import ")?.split('"').nth(1).map(str::to_owned);
        text.lines().filter_map(from).collect::<Vec<_>>()
    };
    for name in ["main.mjs", "post.mjs"] {
        let foreign: Vec<String> = imports(name).into_iter().filter(|module| !module.starts_with("node:")).collect();
        assert_eq!(foreign, [""; 0], "{name} needs a package at run time");
    }
}

/// No process of the job runs, no socket answers, and no file of the runner's directories has a token.
async fn nothing_is_left(scene: &Scene, job: &Job) {
    let url = scene.mcp.url();
    let own = std::process::id().to_string();
    wait::until(LIMIT, "no process of the job is left", async || processes_with(&url, &own).is_empty()).await;
    let mut pending = vec![job.path("temp"), job.path("cache"), job.path("home"), job.path("work")];
    while let Some(path) = pending.pop() {
        if path.is_dir() && !path.is_symlink() {
            pending.extend(fs::read_dir(&path).expect("readable").map(|entry| entry.expect("readable").path()));
        } else if path.is_file() && path.metadata().is_ok_and(|file| file.len() < 1 << 20) {
            let text = fs::read(&path).expect("readable");
            // `run` keeps what a command printed for the test itself.
            if !path.starts_with(job.path("home")) {
                leak::check_bytes(&path.display().to_string(), &text);
            }
        } else {
            assert!(!path.ends_with("safeconduct.sock"), "a socket is left: {}", path.display());
        }
    }
}

/// The processes, other than the test, whose command line has this text.
fn processes_with(text: &str, own: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").expect("there is /proc").flatten();
    let numbered =
        entries.filter(|entry| entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()));
    let command_line = |entry: fs::DirEntry| {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        (entry.file_name().to_string_lossy().into_owned(), String::from_utf8_lossy(&line).into_owned())
    };
    let found = numbered.map(command_line).filter(|(pid, line)| pid != own && line.contains(text));
    found.map(|(_, line)| line).collect()
}

/// The variables of a step that has none.
const NO_STATE: BTreeMap<String, String> = BTreeMap::new();

#[tokio::test(flavor = "multi_thread")]
async fn a_post_step_without_a_main_step_does_nothing() {
    let scene = Scene::new(SAFECONDUCT).await;
    assert_eq!(Job::of(&scene).post(&NO_STATE).log, [""; 0]);
}
