//! `run --detach`.

use support::authorization_server::TokenFault;

use super::*;

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
    assert_eq!(scene.authorization_server.token_requests(), 1, "its token is there");
    world.run(&["ready"]).await.expect_code(0);
    world.run(&["token", "demo", "--daemon-only"]).await.expect_code(0);

    kill(daemon.0, Signal::SIGTERM).expect("it lives");
    until(LIMIT, "it has ended", async || !daemon.lives() || is_zombie(daemon.0)).await;
    assert!(!world.socket().exists());
}

/// An orphan can stay a zombie, because nobody may wait for it.
fn is_zombie(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z'))
}

#[tokio::test]
async fn a_failed_start_detached_gives_the_daemons_code_and_last_words() {
    let scene = Scene::new(binary()).await;
    // The log has lines of an earlier daemon, which must not be printed again.
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
    assert!(output.stderr.contains(&format!("--socket '{socket}'")), "{}", output.stderr);
}

#[tokio::test]
async fn a_detached_start_ends_at_once_where_waiting_does_not_help_and_the_daemon_goes_on() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.always_token(TokenFault::oauth("invalid_grant"));
    let world = scene.safeconduct.clone().limit(Duration::from_secs(20));
    let arguments = ["run", "--detach", &scene.argument(), "--insecure-loopback", "--wait", "600s"];
    let output = world.run(&arguments).await.expect_code(REFUSED);
    assert!(output.stdout.is_empty() && output.stderr.contains("not ready: demo: "), "{}", output.stderr);
    assert!(output.stderr.contains("the daemon goes on: pid "), "{}", output.stderr);
    assert!(answers(&world.socket()).await, "it goes on");
    world.run(&["stop"]).await.expect_code(0);
}

#[tokio::test]
async fn a_detached_start_waits_for_what_passes_as_long_as_it_is_told() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.set_down(true);
    let world = scene.safeconduct.clone();
    let argument = scene.argument();
    let start =
        async |wait: &str| world.run(&["run", "--detach", &argument, "--insecure-loopback", "--wait", wait]).await;
    let output = start("300ms").await;
    assert_eq!(output.code, Some(ASKED_WRONGLY), "a time has s, m or h");
    let output = start("1s").await.expect_code(TEMPORARY);
    assert!(output.stdout.is_empty() && output.stderr.contains("the daemon goes on"), "{}", output.stderr);
    world.run(&["stop"]).await.expect_code(0);
    let output = start("0s").await.expect_code(0);
    assert_eq!(fields(&output.stdout)["socket"], world.socket().display().to_string());
    scene.authorization_server.heal();
    world.run(&["ready", "--wait", "20s"]).await.expect_code(0);
    world.run(&["stop"]).await.expect_code(0);
    let output = world.run(&["run", &argument, "--insecure-loopback", "--wait", "1s"]).await.expect_code(ASKED_WRONGLY);
    assert!(output.stderr.contains("--wait goes with --detach"), "{}", output.stderr);
}
