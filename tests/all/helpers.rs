//! The commands that clients run: `token`, `headers`, `get`, and those beside them. With a daemon and without one.

use std::os::unix::net::UnixListener;
use std::time::Duration;

use nix::unistd::geteuid;
use serde_json::{Value, json};
use support::authorization_server::{FakeAs, TokenFault};
use support::fault::Fault;
use support::keys;
use support::leak;
use support::mcp_server::FakeMcp;
use support::platform::LIFE;
use support::safeconduct::{Daemon, Output, Safeconduct};
use support::scene::Scene;
use support::sluice::Sluice;

use crate::binary;

const ASKED_WRONGLY: i32 = 64;
const NO_IDENTITY: i32 = 69;
const TEMPORARY: i32 = 75;
const REFUSED: i32 = 76;
const DENIED: i32 = 77;
const CONFIG: i32 = 78;

/// The variables with which Codex starts a helper.
const CODEX: [&str; 6] = ["HOME", "LOGNAME", "PATH", "SHELL", "TMPDIR", "USER"];

fn line(output: &Output) -> &str {
    let line = output.stdout.strip_suffix('\n').unwrap_or_else(|| panic!("no line: {}", output.stderr));
    assert!(!line.contains('\n') && output.code == Some(0), "{}", output.stderr);
    line
}

fn flat(output: &Output) -> &str {
    let token = line(output).strip_prefix("{\"Authorization\":\"Bearer ").and_then(|rest| rest.strip_suffix("\"}"));
    token.expect("one flat object, spelled exactly so")
}

/// A failed helper says why on standard error and nothing on standard output.
fn failed(output: Output, code: i32) -> String {
    let output = output.expect_code(code);
    assert!(output.stdout.is_empty());
    assert!(output.stderr.contains("safeconduct: error: "), "{}", output.stderr);
    output.stderr
}

async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}

// Forms.

#[tokio::test]
async fn every_form_is_the_same_with_a_daemon_and_without() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    let here = scene.configured("");
    let expected = json!({
        "resource": scene.mcp.url(), "issuer": scene.authorization_server.issuer(), "scope": "demo:read demo:write", "token_type": "Bearer",
    });
    for (world, more) in [(daemon.helper(), "--daemon-only"), (here, "--no-daemon")] {
        let run = async |form: &str| world.run(&["token", "demo", "-o", form, more]).await;
        let raw = run("raw").await;
        assert_eq!(keys::peek(line(&raw))["aud"], json!(scene.mcp.url()));
        let header = run("header").await;
        let header = line(&header).strip_prefix("Authorization: Bearer ").expect("a header line").to_owned();
        assert_eq!(keys::peek(&header)["aud"], json!(scene.mcp.url()));
        let variable = run("env").await;
        let variable = line(&variable).strip_prefix("SAFECONDUCT_TOKEN_DEMO=").expect("an assignment").to_owned();
        let body = run("json").await;
        let body: Value = serde_json::from_str(line(&body)).expect("JSON");
        for (name, value) in expected.as_object().expect("an object") {
            assert_eq!(&body[name], value, "{name}");
        }
        assert!(body["expires_in"].as_u64().is_some_and(|left| (580..=600).contains(&left)));
        assert_eq!(keys::peek(&variable)["scope"], "demo:read demo:write");
        assert_eq!(flat(&world.run(&["headers", "demo", more]).await).split('.').count(), 3);
    }
    assert_eq!(daemon.run(&["token", "demo", "-o", "json"]).await.json()["access_token"], daemon.token("demo").await);
}

#[tokio::test]
async fn a_variable_needs_a_name_and_a_url_can_be_given_one() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    let url = scene.mcp.url();
    failed(daemon.run(&["token", &url, "-o", "env"]).await, ASKED_WRONGLY);
    let named = daemon.run(&["token", &format!("my-server.1={url}"), "-o", "env"]).await;
    assert!(line(&named).starts_with("SAFECONDUCT_TOKEN_MY_SERVER_1="));
}

#[tokio::test]
async fn the_runner_is_told_to_mask_before_the_token_is_printed() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    let token = daemon.token("demo").await;
    for (variables, before) in
        [(vec![("GITHUB_ACTIONS", "true")], "::add-mask::"), (vec![("TF_BUILD", "True")], "##vso[task.setsecret]")]
    {
        let mut command = daemon.helper().without_env("GITHUB_ACTIONS").command(&["token", "demo", "--mask"]);
        let output = command.envs(variables).env("SAFECONDUCT_LOG", "error").output().await.expect("it runs");
        // Not through the harness, which lets no token pass on standard error, where a runner reads this.
        assert_eq!(String::from_utf8_lossy(&output.stderr), format!("{before}{token}\n"));
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{token}\n"));
    }
    let nobody = daemon.helper().without_env("GITHUB_ACTIONS");
    failed(nobody.run(&["token", "demo", "--mask"]).await, ASKED_WRONGLY);
}

#[tokio::test]
async fn headers_take_the_server_from_claude_code_by_its_url() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    let world = daemon.helper().env("CLAUDE_CODE_MCP_SERVER_NAME", "somebody-elses");
    let token = daemon.token("demo").await;
    let told = world.clone().env("CLAUDE_CODE_MCP_SERVER_URL", &scene.mcp.url());
    assert_eq!(flat(&told.run(&["headers"]).await), token);
    let other = world.clone().env("CLAUDE_CODE_MCP_SERVER_URL", "https://mcp.example.com/mcp");
    failed(other.run(&["headers"]).await, DENIED);
    // The name is whatever a repository's file says: it must not choose.
    let named = daemon.helper().env("CLAUDE_CODE_MCP_SERVER_NAME", "demo");
    assert!(failed(named.run(&["headers"]).await, ASKED_WRONGLY).contains("safeconduct headers NAME"));
}

#[tokio::test]
async fn get_speaks_the_bazel_protocol() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    let here = scene.configured("");
    let ask = |uri: &str| json!({"uri": uri, "unknown": {"fields": ["are", "ignored"]}}).to_string();
    for world in [
        daemon.helper(),
        here.clone().without_env("SAFECONDUCT_SOCKET").env("SAFECONDUCT_SOCKET", "/nowhere/safeconduct.sock"),
    ] {
        for uri in [scene.mcp.url(), format!("{}/below?session=1", scene.mcp.url())] {
            let output = world.run_with_stdin(&["get"], &ask(&uri)).await;
            let body: Value = serde_json::from_str(line(&output)).expect("JSON");
            let names: Vec<&String> = body.as_object().expect("an object").keys().collect();
            assert_eq!(names, ["expires", "headers"]);
            let values = body["headers"]["Authorization"].as_array().expect("a list of values");
            assert!(values.len() == 1 && values[0].as_str().is_some_and(|value| value.starts_with("Bearer ")));
            assert!(body["expires"].as_str().is_some_and(|time| time.ends_with('Z')));
        }
        let before = (scene.platform.requests(), scene.authorization_server.token_requests(), scene.mcp.seen().len());
        let beside = scene.mcp.url().replace("/mcp", "/other");
        for foreign in ["https://mcp.example.com/mcp", "https://nowhere.invalid/", "grpc://x", "", &beside] {
            let output = world.run_with_stdin(&["get"], &ask(foreign)).await.expect_code(0);
            assert_eq!(output.stdout, "{}\n", "{foreign}");
        }
        let after = (scene.platform.requests(), scene.authorization_server.token_requests(), scene.mcp.seen().len());
        assert_eq!(before, after, "nobody was asked about what is none of our business");
        for nonsense in ["", "nonsense", "[]", "{\"url\":\"https://mcp.example.com\"}"] {
            failed(world.run_with_stdin(&["get"], nonsense).await, ASKED_WRONGLY);
        }
    }
}

/// Neither an identity nor a daemon is needed to say that nothing is known of a URL.
#[tokio::test]
async fn get_without_anything_leaves_every_uri_alone() {
    let world = Safeconduct::new(binary());
    let output = world.run_with_stdin(&["get"], "{\"uri\":\"https://mcp.example.com/mcp\"}").await.expect_code(0);
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("{}\n", ""));
}

// Daemon or not.

#[tokio::test]
async fn only_an_absent_daemon_lets_the_helper_do_the_work() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("");
    line(&world.run(&["token", "demo"]).await);
    let words = failed(world.run(&["token", "demo", "--daemon-only"]).await, TEMPORARY);
    assert!(words.contains("no daemon is running") && words.contains("safeconduct run"), "{words}");

    // Left behind by a killed daemon: nobody answers, which is as good as absent.
    drop(UnixListener::bind(world.socket()).expect("bound"));
    line(&world.run(&["token", "demo"]).await);

    // A socket that takes the question and never answers is no reason to ask again as somebody else.
    std::fs::remove_file(world.socket()).expect("ours");
    let silent = UnixListener::bind(world.socket()).expect("bound");
    let asked = scene.authorization_server.token_requests();
    let words = failed(scene.safeconduct.run(&["token", &scene.mcp.url(), "--timeout", "1s"]).await, TEMPORARY);
    assert!(words.contains("no answer within 1 s"), "{words}");
    drop(silent);
    assert_eq!(scene.authorization_server.token_requests(), asked);
}

/// A time-out of nothing must not become one without end.
#[tokio::test]
async fn every_wait_is_bounded_even_by_zero() {
    let world = Safeconduct::new(binary()).limit(Duration::from_secs(5));
    let _silent = UnixListener::bind(world.socket()).expect("bound");
    let output = world.run(&["token", "demo", "--timeout", "0s"]).await;
    assert!(matches!(output.code, Some(ASKED_WRONGLY | TEMPORARY)), "{output:?}");
}

#[tokio::test]
async fn another_program_at_the_socket_is_told_from_a_daemon() {
    let world = Safeconduct::new(binary());
    let listener = tokio::net::UnixListener::bind(world.socket()).expect("bound");
    let answers = [
        "SSH-2.0-x\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{\"half",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    ];
    let stranger = tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.expect("accepted");
            let mut question = [0; 1024];
            let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut question).await;
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, answer.as_bytes()).await;
        }
    });
    for _ in answers {
        let words = failed(world.run(&["token", "demo"]).await, CONFIG);
        assert!(words.contains("does not answer like safeconduct"), "{words}");
    }
    stranger.await.expect("it ran");
}

#[tokio::test]
async fn a_refusal_of_the_daemon_is_final() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon(&format!("allow = [{{ uid = {} }}]", geteuid().as_raw() + 1)).await;
    let helper = daemon.helper().envs(scene.platform.env());
    failed(helper.run(&["token", &scene.mcp.url(), "--insecure-loopback"]).await, DENIED);
    assert_eq!(scene.authorization_server.token_requests(), 0);
    line(
        &helper
            .run(&[
                "token",
                &scene.mcp.url(),
                "--insecure-loopback",
                "--no-daemon",
                "--issuer",
                &scene.authorization_server.issuer(),
            ])
            .await,
    );
}

#[tokio::test]
async fn what_only_this_process_could_honour_is_refused_with_a_daemon() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    let file = scene.safeconduct.private("identity.jwt").display().to_string();
    for flag in [
        ["--issuer", "https://login.example.com"],
        ["--identity", "github-actions"],
        ["--identity-file", &file],
        ["--config", "/nowhere/safeconduct.toml"],
    ] {
        for verb in ["token", "headers"] {
            let words = failed(daemon.run(&[verb, "demo", flag[0], flag[1]]).await, ASKED_WRONGLY);
            assert!(words.contains(flag[0]) && words.contains("--no-daemon"), "{words}");
        }
    }
    assert_eq!(scene.authorization_server.token_requests(), 0, "a question that is refused here is not asked");
    line(
        &scene
            .configured("")
            .run(&["token", "demo", "--no-daemon", "--issuer", &scene.authorization_server.issuer()])
            .await,
    );
}

/// The daemon has the configuration; a helper beside it is not to stumble over a broken file that it does not need.
#[tokio::test]
async fn with_a_daemon_no_configuration_is_read() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    let world = daemon.helper();
    let broken = world.write("broken.toml", "[this is = not TOML");
    std::fs::create_dir_all(world.path().join("home/.config/safeconduct")).expect("ours");
    std::fs::copy(&broken, world.path().join("home/.config/safeconduct/safeconduct.toml")).expect("copied");
    line(&world.run(&["token", "demo"]).await);
    failed(world.run(&["token", "demo", "--no-daemon"]).await, CONFIG);
    line(&world.env("SAFECONDUCT_CONFIG", &broken.display().to_string()).run(&["headers", "demo"]).await);
}

#[tokio::test]
async fn a_helper_works_with_almost_no_environment() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    let socket = daemon.socket().display().to_string();
    let mut bare = daemon.helper().command(&["headers", "demo", "--socket", &socket]);
    let output = bare.env_clear().output().await.expect("it runs");
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
    let mut codex = daemon.helper().command(&["headers", "demo", "--socket", &socket]);
    let output = codex.env_clear().envs(CODEX.map(|name| (name, "/nowhere"))).output().await.expect("it runs");
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}

/// Asking costs one socket and one thread. That no file is opened either was seen with `strace -f -e trace=openat`: between the
/// loader's libraries and the exit there is `/proc/self/maps` of the Rust runtime and nothing else; strace is not everywhere, so
/// what is asserted here is what the kernel shows of a helper while it waits.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_helper_that_asks_has_one_thread() {
    let world = Safeconduct::new(binary());
    let listener = tokio::net::UnixListener::bind(world.socket()).expect("bound");
    let mut helper = world.command(&["headers", "demo"]).spawn().expect("it starts");
    let (mut stream, _) = listener.accept().await.expect("it connects");
    tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 1024]).await.expect("it asks");
    let pid = helper.id().expect("it runs");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it waits");
    let threads = status.lines().find_map(|line| line.strip_prefix("Threads:")).map(str::trim);
    assert_eq!(threads, Some("1"));
    helper.kill().await.expect("it is ours");
}

// Freshness.

#[tokio::test]
async fn headers_asked_twice_give_a_new_token_and_then_back_off() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(flat(&daemon.run(&["headers", "demo"]).await).to_owned());
    }
    assert_ne!(seen[0], seen[1], "the client never says why it asks again");
    assert_eq!(seen[1..], [seen[1].clone(), seen[1].clone(), seen[1].clone()], "once, then back-off");
    assert_eq!(scene.authorization_server.token_requests(), 2);
    // The same question by `token` says nothing about the last answer.
    line(&daemon.run(&["token", "demo"]).await);
    line(&daemon.run(&["token", "demo"]).await);
    assert_eq!(scene.authorization_server.token_requests(), 2);
}

#[tokio::test]
async fn headers_asked_twice_give_the_valid_token_if_there_is_no_new_one() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    let first = flat(&daemon.run(&["headers", "demo"]).await).to_owned();
    scene.authorization_server.set_down(true);
    assert_eq!(flat(&daemon.run(&["headers", "demo"]).await), first);
}

/// A renewal after the first answer is the new token that the client needs: nothing is minted for it.
#[tokio::test]
async fn a_token_minted_since_the_first_answer_is_new_enough() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    let first = flat(&daemon.run(&["headers", "demo"]).await).to_owned();
    pause(Duration::from_millis(1_100)).await;
    let fresh = line(&daemon.run(&["token", "demo", "--fresh"]).await).to_owned();
    assert_ne!(first, fresh);
    assert_eq!(flat(&daemon.run(&["headers", "demo"]).await), fresh);
    assert_eq!(scene.authorization_server.token_requests(), 2);
}

#[tokio::test]
async fn fresh_is_a_new_token_three_times_and_then_limited() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    let fresh = async || line(&daemon.run(&["token", "demo", "--fresh"]).await).to_owned();
    let mut last = fresh().await;
    assert_eq!(fresh().await, last, "minted within the last second");
    for forced in 0..3 {
        pause(Duration::from_millis(1_100)).await;
        let next = fresh().await;
        assert!(next != last, "forced mint {forced}: {}", daemon.log());
        last = next;
    }
    pause(Duration::from_millis(1_100)).await;
    assert_eq!(fresh().await, last, "over the limit the valid token is given");
    assert_eq!(scene.authorization_server.token_requests(), 4);
}

#[tokio::test]
async fn min_ttl_is_a_wish() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.set_token_life(Duration::from_secs(12));
    let daemon = scene.daemon("").await;
    let ask = async |ttl: &str| line(&daemon.run(&["token", "demo", "--min-ttl", ttl]).await).to_owned();
    let first = ask("0s").await;
    assert_eq!(ask("1h").await, first, "no token of this issuer lives that long");
    pause(Duration::from_millis(2_600)).await;
    assert_eq!(ask("1h").await, first);
    assert_eq!(ask("5s").await, first, "it has that much left");
    assert_eq!(scene.authorization_server.token_requests(), 1);
    let second = ask("11s").await;
    assert_ne!(second, first);
    // Nothing is minted per request: the new one is as good as any.
    assert_eq!(ask("11s").await, second);
    assert_eq!(scene.authorization_server.token_requests(), 2);
    let reply = daemon.get("/v1/token?server=demo&min_ttl=3600").await;
    assert!(reply.json()["expires_in"].as_u64().is_some_and(|left| left <= 12), "with its true expiry");
}

#[tokio::test]
async fn a_rejected_token_is_dropped_if_that_can_be_meant() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.set_token_life(Duration::from_secs(10));
    let daemon = scene.daemon("").await;
    let first = daemon.token("demo").await;
    let digest = |token: &str| {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let reject = async |digest: &str| {
        let reply = daemon.post("/v1/reject", &json!({"server": "demo", "access_token_sha256": digest})).await;
        assert_eq!((reply.status, reply.body.as_str()), (204, ""));
    };
    reject(&digest(&first)).await;
    assert_eq!(daemon.token("demo").await, first, "so young a token is refused for another reason than its age");
    pause(Duration::from_millis(1_100)).await;
    reject(&digest("another")).await;
    assert_eq!(daemon.token("demo").await, first, "another caller's old token says nothing of this one");
    reject(&digest(&first)).await;
    let second = daemon.token("demo").await;
    assert_ne!(second, first);
    reject(&digest(&first)).await;
    assert_eq!(daemon.token("demo").await, second);
    assert_eq!(scene.authorization_server.token_requests(), 2);
    for body in [
        json!({"server": "demo"}),
        json!({"server": "demo", "access_token_sha256": "not a digest"}),
        json!({"server": "nope", "access_token_sha256": digest(&first)}),
        json!({"server": "demo", "access_token_sha256": digest(&first), "more": 1}),
        json!("text"),
    ] {
        assert_eq!(daemon.post("/v1/reject", &body).await.status, 400, "{body}");
    }
}

// Scopes.

#[tokio::test]
async fn scopes_are_asked_for_by_flag_and_kept_apart() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("scopes = [\"demo:read\", \"demo:write\"]").await;
    let ask = async |args: &[&str]| {
        let output = daemon.run(&[&["token", "demo", "-o", "json"], args].concat()).await.expect_code(0);
        output.json()["scope"].as_str().map(str::to_owned)
    };
    assert_eq!(ask(&["--scope", "demo:read"]).await.as_deref(), Some("demo:read"));
    assert_eq!(ask(&["--scope", "demo:write", "--scope", "demo:read"]).await.as_deref(), Some("demo:read demo:write"));
    assert_eq!(scene.authorization_server.token_requests(), 2);
    failed(daemon.run(&["token", "demo", "--scope", "demo:admin"]).await, DENIED);
    failed(daemon.run(&["token", "demo", "--scope", "two words"]).await, ASKED_WRONGLY);
    assert_eq!(scene.authorization_server.token_requests(), 2);
}

// What goes wrong, by exit code.

#[tokio::test]
async fn the_exit_code_says_whose_turn_it_is_with_and_without_a_daemon() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("scopes = [\"demo:read\"]").await;
    let here = scene.configured("scopes = [\"demo:read\"]");
    for (world, more) in [(daemon.helper(), "--daemon-only"), (here, "--no-daemon")] {
        let run = async |args: &[&str]| world.run(&[&["token"], args, &[more]].concat()).await;
        assert!(failed(run(&["nope"]).await, ASKED_WRONGLY).contains("configured: demo"));
        failed(run(&["not a target"]).await, ASKED_WRONGLY);
        failed(run(&["demo", "--scope", "demo:write"]).await, DENIED);
        scene.authorization_server.always_token(TokenFault::OauthError {
            code: "invalid_target".to_owned(),
            description: Some("who is that".to_owned()),
            uri: None,
        });
        let words = failed(run(&["demo", "--timeout", "5s"]).await, REFUSED);
        assert!(words.contains("invalid_target") && words.contains("\"who is that\""), "{words}");
        assert!(words.contains("safeconduct: hint: "), "{words}");
        scene.authorization_server.heal();
    }
}

#[tokio::test]
async fn an_outage_is_temporary_and_bounded_by_the_time_out() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.set_down(true);
    let here = scene.configured("");
    // Shorter than the time-out that holds without the flag.
    let bounded = here.clone().limit(Duration::from_secs(20));
    failed(bounded.run(&["token", "demo", "--no-daemon", "--timeout", "2s"]).await, TEMPORARY);
    // Within its time-out a single run sits an outage out.
    let healed = async {
        pause(Duration::from_millis(700)).await;
        scene.authorization_server.heal();
    };
    let (output, ()) = tokio::join!(here.run(&["token", "demo", "--no-daemon", "--timeout", "20s"]), healed);
    line(&output);
    let daemon = scene.daemon("").await;
    scene.authorization_server.set_down(true);
    failed(daemon.run(&["token", "demo", "--timeout", "10s"]).await, TEMPORARY);
}

/// What another party says may neither move the cursor nor command the runner.
#[tokio::test]
async fn the_words_of_others_are_quoted_and_harmless_in_ci() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.always_token(TokenFault::ControlCharsInDescription);
    let daemon = scene.daemon("").await;
    let mut texts = vec![failed(scene.configured("").run(&["token", "demo", "--no-daemon"]).await, REFUSED)];
    texts.push(failed(daemon.helper().env("GITHUB_ACTIONS", "true").run(&["token", "demo"]).await, REFUSED));
    texts.push(daemon.log());
    let status = daemon.helper().env("GITHUB_ACTIONS", "true").run(&["status"]).await.expect_code(0);
    texts.push(status.stdout);
    for text in texts {
        assert!(text.contains("first line"), "{text}");
        let hostile = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!text.contains(hostile), "{text:?}");
        for command in ["::add-mask", "##vso[", "##["] {
            assert!(!text.contains(command), "{command:?} in\n{text}");
        }
    }
}

#[tokio::test]
async fn on_a_laptop_the_hint_names_the_file_and_the_quickstart() {
    let world = Safeconduct::new(binary());
    for command in
        [&["token", "https://mcp.example.com/mcp"][..], &["headers", "https://mcp.example.com/mcp"], &["whoami"]]
    {
        let words = failed(world.run(command).await, NO_IDENTITY);
        assert!(words.contains("--identity-file") && words.contains("quickstart"), "{words}");
    }
}

#[tokio::test]
async fn a_job_that_may_not_have_an_identity_is_told_how_to_get_one() {
    let world = Safeconduct::new(binary()).env("GITHUB_ACTIONS", "true");
    let words = failed(world.run(&["token", "https://mcp.example.com/mcp"]).await, NO_IDENTITY);
    assert!(words.contains("id-token: write"), "{words}");
}

// Zero configuration.

#[tokio::test]
async fn a_url_is_enough() {
    let scene = Scene::new(binary()).await;
    let world = scene.safeconduct.clone();
    let output = world.run(&["token", &scene.mcp.url(), "--insecure-loopback"]).await;
    let claims = keys::peek(line(&output));
    assert_eq!(
        (&claims["aud"], &claims["iss"]),
        (&json!(scene.mcp.url()), &json!(scene.authorization_server.issuer()))
    );
    assert_eq!(
        scene.platform.audiences(),
        [scene.authorization_server.issuer()],
        "made for the authorization server alone"
    );
    let plain = failed(world.run(&["token", &scene.mcp.url()]).await, DENIED);
    assert!(plain.contains("--insecure-loopback") || plain.contains("insecure_loopback"), "{plain}");
    assert_eq!(scene.platform.requests(), 1);
}

#[tokio::test]
async fn a_token_that_is_not_bound_to_the_server_needs_a_pin() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.script_token([TokenFault::IgnoreResource, TokenFault::IgnoreResource]);
    let run = async |more: &[&str]| {
        scene.safeconduct.run(&[&["token", &scene.mcp.url(), "--insecure-loopback"], more].concat()).await
    };
    let words = failed(run(&[]).await, REFUSED);
    assert!(words.contains("not bound") && words.contains("--issuer"), "{words}");
    line(&run(&["--issuer", &scene.authorization_server.issuer()]).await);
    let other = FakeAs::start(scene.platform.trust()).await;
    let elsewhere = failed(run(&["--issuer", &other.issuer()]).await, REFUSED);
    assert!(elsewhere.contains("not among those"), "{elsewhere}");
}

#[tokio::test]
async fn another_path_on_a_configured_origin_does_not_get_round_its_policy() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("");
    let beside = scene.mcp.url().replace("/mcp", "/other");
    let words = failed(world.run(&["token", &beside, "--no-daemon"]).await, DENIED);
    assert!(words.contains("configured server \"demo\""), "{words}");
    let daemon = scene.daemon("").await;
    failed(daemon.run(&["token", &beside]).await, DENIED);
    assert_eq!(scene.platform.requests(), 0);
}

// Identity files.

#[tokio::test]
async fn an_identity_file_is_enough_and_judged_before_it_is_sent() {
    let scene = Scene::new(binary()).await;
    let issuer = scene.authorization_server.issuer();
    let world = Safeconduct::new(binary());
    let file = world.private("identity.jwt");
    let run = async |text: &str| {
        std::fs::write(&file, text).expect("ours");
        let path = file.display().to_string();
        world.run(&["token", &scene.mcp.url(), "--insecure-loopback", "--identity-file", &path]).await
    };
    line(&run(&format!("{}\n", scene.platform.mint(&issuer, LIFE))).await);
    let long_ago = keys::now() as u64 - 1_000;
    for (text, words) in [
        (String::new(), "empty"),
        ("this is no token".to_owned(), "one JWT and nothing else"),
        ("x".repeat(70_000), "64 KiB"),
        (scene.platform.mint("https://somebody-else.example", LIFE), "not for"),
        (scene.platform.mint_with(&issuer, LIFE, &json!({"aud": [issuer, "https://other.example"]})), "audiences"),
        (scene.platform.mint_with(&issuer, LIFE, &json!({"exp": null})), "exp"),
        (
            scene.platform.mint_with(&issuer, LIFE, &json!({"iat": long_ago, "nbf": long_ago, "exp": long_ago + 300})),
            "expired",
        ),
    ] {
        let said = failed(run(&text).await, NO_IDENTITY);
        assert!(said.contains(words) && said.contains("safeconduct: hint: "), "{words}: {said}");
    }
    assert_eq!(scene.authorization_server.token_requests(), 1, "nothing unfit was sent");
    let missing = ["token", &scene.mcp.url(), "--insecure-loopback", "--identity-file", "/nowhere/jwt"];
    let missing = failed(world.run(&missing).await, NO_IDENTITY);
    assert!(missing.contains("cannot be read"), "{missing}");
    let unknown =
        failed(world.run(&["token", "https://mcp.example.com/mcp", "--identity", "nonsense"]).await, ASKED_WRONGLY);
    assert!(unknown.contains("github-actions"), "{unknown}");
}

#[tokio::test]
async fn whoami_tells_who_by_what_and_what_was_not_used() {
    let scene = Scene::new(binary()).await;
    let world = &scene.safeconduct;
    let text =
        world.run(&["whoami", "--insecure-loopback", "--audience", "https://as.example"]).await.expect_code(0).stdout;
    for words in [
        "source    github-actions",
        "evidence  GITHUB_ACTIONS=true",
        "sub       repo:octo-org/octo-repo:ref:refs/heads/main",
        "aud       https://as.example",
        "jti       yes",
        "other     file ",
        "took      detect ",
    ] {
        assert!(text.contains(words), "{words:?} in\n{text}");
    }
    let report = world.run(&["whoami", "--insecure-loopback", "--json"]).await.expect_code(0).json();
    assert_eq!(report["identity"]["source"], "github-actions");
    assert_eq!(report["identity"]["claims"]["iss"], scene.platform.issuer());
    assert_eq!(report["identity"]["claims"]["aud"], json!(["safeconduct:whoami"]));
    assert_eq!(
        report["sources"][0],
        json!({
            "source": "file", "tier": "named", "state": "absent", "about": report["sources"][0]["about"],
            "looked_for": report["sources"][0]["looked_for"],
        })
    );
    assert_eq!(scene.platform.audiences(), ["https://as.example", "safeconduct:whoami"]);
    let steps: Vec<&Value> = report["steps"].as_array().expect("steps").iter().map(|step| &step["step"]).collect();
    assert_eq!(steps, ["detect", "identity"]);

    let file = world.private("identity.jwt");
    std::fs::write(&file, scene.platform.mint("https://as.example", LIFE)).expect("ours");
    let path = file.display().to_string();
    let report = world.run(&["whoami", "--json", "--identity-file", &path]).await.expect_code(0).json();
    assert_eq!((&report["identity"]["source"], &report["identity"]["mints_anew"]), (&json!("file"), &json!(false)));
    let github = report["sources"].as_array().and_then(|all| all.iter().find(|one| one["source"] == "github-actions"));
    assert_eq!(github.expect("a row")["state"], "not_used");
}

#[tokio::test]
async fn whoami_says_which_exchange_will_follow_and_where_the_identity_goes() {
    let scene = Scene::new(binary()).await;
    let issuer = scene.authorization_server.issuer();
    let config = format!(
        "{}\n[servers.second]\nurl = \"https://second.example.com/mcp\"\nidentity = \"changed\"\n\
         [identities.changed]\nfrom = \"default\"\nexchange = \"token-exchange\"\nissuer = \"https://sts.example.com\"\n",
        scene.config("exchange = \"jwt-bearer\"")
    );
    let world = scene.safeconduct.clone().config(&config);
    let report = world.run(&["whoami", "--json"]).await.expect_code(0).json();
    let (first, second) = (&report["servers"][0], &report["servers"][1]);
    assert_eq!(
        (&first["exchange"], &first["issuer"], &first["audience"]),
        (&json!("jwt-bearer"), &json!(issuer), &json!(issuer))
    );
    assert_eq!(second["through"], json!([{ "exchange": "token-exchange", "issuer": "https://sts.example.com" }]));
    assert_eq!((&second["exchange"], &second["issuer"]), (&Value::Null, &Value::Null));
    let text = world.run(&["whoami"]).await.expect_code(0).stdout;
    let follows = "second: token-exchange at https://sts.example.com, then the exchange that its metadata allows";
    assert!(text.contains(follows), "{text}");
}

#[tokio::test]
async fn a_clients_helper_does_not_ask_the_machine_who_it_is() {
    let world = Safeconduct::new(binary()).config("[identity]\nprobe = true\n");
    let failed = world.run(&["headers", "https://mcp.example.com/mcp", "--no-daemon"]).await.expect_code(NO_IDENTITY);
    assert!(failed.stderr.contains("does not hold for a client's helper"), "{}", failed.stderr);
}

#[tokio::test]
async fn whoami_without_an_identity_says_what_was_looked_for() {
    let output = Safeconduct::new(binary()).run(&["whoami", "--json"]).await.expect_code(NO_IDENTITY);
    assert!(output.stdout.is_empty());
    let report: Value = serde_json::from_str(&output.stderr).expect("JSON on stderr");
    assert_eq!((&report["identity"], &report["error"]["class"]), (&Value::Null, &json!("no_identity")));
    assert!(report["sources"].as_array().is_some_and(|all| all.iter().all(|one| one["state"] == "absent")));
}

// Revocation and completions.

#[tokio::test]
async fn revoke_gives_back_what_is_held() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    assert_eq!(daemon.run(&["revoke"]).await.expect_code(0).stdout, "", "nothing is held");
    let first = daemon.token("demo").await;
    assert_eq!(daemon.run(&["revoke", "demo"]).await.expect_code(0).stdout, "demo: 1 revoked\n");
    assert!(scene.authorization_server.is_revoked(&first));
    let second = daemon.token("demo").await;
    assert_ne!(second, first);
    daemon.get("/v1/token?server=demo&scope=demo:read").await;
    assert_eq!(daemon.run(&["revoke"]).await.expect_code(0).stdout, "demo: 2 revoked\n");
    assert!(scene.authorization_server.is_revoked(&second));
    failed(daemon.run(&["revoke", "nope"]).await, ASKED_WRONGLY);
    failed(Safeconduct::new(binary()).run(&["revoke"]).await, TEMPORARY);
}

#[tokio::test]
async fn while_a_revocation_is_under_way_nobody_gets_the_token() {
    let scene = Scene::new(binary()).await;
    let sluice = Sluice::before(scene.authorization_server.base()).await;
    scene.authorization_server.set_metadata(json!({"revocation_endpoint": sluice.url("/revoke")}));
    let daemon = scene.daemon("").await;
    let first = daemon.token("demo").await;
    sluice.shut();
    let revoking = async { daemon.run(&["revoke", "demo"]).await.expect_code(0).stdout };
    let meanwhile = async {
        sluice.holds(1).await;
        let second = daemon.token("demo").await;
        sluice.open();
        second
    };
    let (revoked, second) = tokio::join!(revoking, meanwhile);
    assert_eq!(revoked, "demo: 1 revoked\n");
    assert_ne!(second, first);
    assert!(scene.authorization_server.is_revoked(&first));
}

#[tokio::test]
async fn after_a_lasting_refusal_the_documents_are_read_again() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    daemon.token("demo").await;
    let read = scene.authorization_server.metadata_requests();
    scene.authorization_server.script_token([TokenFault::oauth("invalid_target")]);
    assert_eq!(daemon.get("/v1/token?server=demo&scope=demo:read").await.status, 502);
    assert_eq!(scene.authorization_server.metadata_requests(), read, "until then what was discovered is good");
    assert_eq!(daemon.get("/v1/token?server=demo&scope=demo:write").await.status, 200);
    assert_eq!(scene.authorization_server.metadata_requests(), read + 1, "it may have moved");
}

#[tokio::test]
async fn where_nothing_can_be_revoked_the_token_is_forgotten_all_the_same() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.set_metadata(json!({"revocation_endpoint": null}));
    let daemon = scene.daemon("").await;
    let first = daemon.token("demo").await;
    let words = failed(daemon.run(&["revoke", "demo"]).await, REFUSED);
    assert!(words.contains("forgotten here"), "{words}");
    assert_ne!(daemon.token("demo").await, first);
}

#[tokio::test]
async fn an_outage_while_revoking_is_one_that_may_pass() {
    let scene = Scene::new(binary()).await;
    let elsewhere = FakeAs::start(scene.platform.trust()).await;
    elsewhere.always_token(Fault::Status(503));
    scene.authorization_server.set_metadata(json!({"revocation_endpoint": elsewhere.token_endpoint()}));
    let daemon = scene.daemon("").await;
    daemon.token("demo").await;
    let words = failed(daemon.run(&["revoke", "demo"]).await, TEMPORARY);
    assert!(words.contains("503") && words.contains("forgotten here"), "{words}");
}

#[tokio::test]
async fn completions_are_printed_for_every_shell() {
    let world = Safeconduct::new(binary());
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let text = world.run(&["completions", shell]).await.expect_code(0).stdout;
        assert!(text.contains("safeconduct") && text.contains("headers"), "{shell}");
        assert!(!text.contains("--detached"), "{shell}: what is ours alone is offered to nobody");
    }
    world.run(&["completions", "tcsh"]).await.expect_code(ASKED_WRONGLY);
}

// A second server, so that nothing works because there is but one.

#[tokio::test]
async fn each_server_has_its_own_token() {
    let scene = Scene::new(binary()).await;
    let other_as = FakeAs::start(scene.platform.trust()).await;
    let other = FakeMcp::start(&other_as, &["other:read"]).await;
    let more = format!("\n[servers.other]\nurl = \"{}\"\nissuer = \"{}\"", other.url(), other_as.issuer());
    let daemon: Daemon = scene.daemon(&more).await;
    let audience = async |target: &str| keys::peek(line(&daemon.run(&["token", target]).await))["aud"].clone();
    assert_eq!(audience("demo").await, json!(scene.mcp.url()));
    assert_eq!(audience("other").await, json!(other.url()));
    assert_eq!(audience(&other.url()).await, json!(other.url()));
    assert_eq!((scene.authorization_server.token_requests(), other_as.token_requests()), (1, 1));
    assert_eq!(scene.platform.audiences(), [scene.authorization_server.issuer(), other_as.issuer()]);
    leak::check("the daemon's log", &daemon.log());
}
