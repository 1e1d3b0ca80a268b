//! With a daemon and without one.

use super::*;

#[tokio::test]
async fn only_an_absent_daemon_lets_the_helper_do_the_work() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("");
    let temp = world.path().join("tmp").display().to_string();
    let unnamed = world.clone().without_env("SAFECONDUCT_SOCKET").env("RUNNER_TEMP", &temp);
    line(&unnamed.run(&["token", &scene.argument()]).await);
    let words = failed(world.run(&["token", "demo", "--daemon-only"]).await, TEMPORARY);
    assert!(words.contains("nobody listens at") && words.contains("safeconduct run"), "{words}");

    // A killed daemon left its socket: nobody answers, so the daemon counts as absent. If the socket is named, that is an error.
    drop(UnixListener::bind(world.socket()).expect("bound"));
    let socket = world.socket().display().to_string();
    let words = failed(world.run(&["--socket", &socket, "token", "demo"]).await, TEMPORARY);
    assert!(words.contains("nobody listens at"), "{words}");
    let job = world.path().join("tmp/safeconduct");
    std::fs::create_dir(&job).expect("ours");
    drop(UnixListener::bind(job.join("safeconduct.sock")).expect("bound"));
    line(&unnamed.run(&["token", &scene.argument()]).await);

    // If a socket accepts the request and never answers, the helper must not use its own identity instead.
    std::fs::remove_file(world.socket()).expect("ours");
    let silent = UnixListener::bind(world.socket()).expect("bound");
    let asked = scene.authorization_server.token_requests();
    let words = failed(scene.safeconduct.run(&["token", &scene.mcp.url(), "--timeout", "1s"]).await, TEMPORARY);
    assert!(words.contains("no answer within 1 s"), "{words}");
    drop(silent);
    assert_eq!(scene.authorization_server.token_requests(), asked);
}

/// A time limit of zero must not mean no limit.
#[tokio::test]
async fn every_wait_is_bounded_even_by_zero() {
    let world = Safeconduct::new(binary()).limit(Duration::from_secs(20));
    let _silent = UnixListener::bind(world.socket()).expect("bound");
    let output = world.run(&["token", "demo", "--timeout", "0s"]).await;
    assert!(matches!(output.code, Some(ASKED_WRONGLY | TEMPORARY)), "{output:?}");
}

#[tokio::test]
async fn another_program_at_the_socket_is_told_from_a_daemon() {
    let world = Safeconduct::new(binary());
    let listener = tokio::net::UnixListener::bind(world.socket()).expect("bound");
    let answers = ["SSH-2.0-x\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"];
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
async fn options_that_a_daemon_cannot_honour_are_refused() {
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

/// The daemon has read the configuration. A helper does not need the file, so a broken file must not stop it.
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

/// A request needs one socket and one thread. It opens no file: `strace -f -e trace=openat` shows only the loader's libraries and
/// `/proc/self/maps` of the Rust runtime. strace is not installed everywhere, so this test reads /proc while a helper waits.
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
