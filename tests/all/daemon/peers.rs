//! Slow and silent clients, and closed standard streams.

use super::*;

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

// Closed standard streams.

#[tokio::test]
async fn a_daemon_outlives_the_reader_of_its_log() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("");
    let mut command = world.command(&["run"]);
    let mut daemon =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
    until(LIMIT, "it listens", async || answers(&world.socket()).await).await;
    drop(daemon.stderr.take());
    // It logs a refusal, but nobody reads its log.
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
