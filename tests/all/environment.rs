//! The environment that a process finds: variables that decide something and cannot be used, paths that are too long.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use support::platform::FakePlatform;
use support::safeconduct::Safeconduct;
use support::scene::Scene;

use crate::binary;
use crate::exit::{CONFIG, TEMPORARY};

#[tokio::test]
async fn a_variable_for_trusted_roots_that_names_none_is_an_error_and_nothing_is_asked() {
    let scene = Scene::new(binary()).await;
    let text = scene.safeconduct.write("text.pem", "no certificate");
    let text = text.to_str().expect("a plain path");
    for (name, value) in
        [("SSL_CERT_FILE", "/nonexistent/ca.pem"), ("SSL_CERT_DIR", "/nonexistent"), ("SSL_CERT_DIR", text)]
    {
        for command in [&["token", "demo"][..], &["run"], &["config", "check"]] {
            let output = scene.configured("").env(name, value).run(command).await.expect_code(CONFIG);
            assert!(output.stderr.contains(&format!("error: {name} names {value}")), "{}", output.stderr);
        }
    }
    assert_eq!((scene.mcp.probes(), scene.authorization_server.token_requests()), (0, 0));
}

/// An empty variable counts as unset: the roots are those of this machine, whether it has any or not.
#[tokio::test]
async fn an_empty_variable_for_trusted_roots_does_not_hide_those_of_the_machine() {
    let trusts = async |world: Safeconduct| {
        let target = ["--insecure-loopback", "--log", "info", "token", "https://127.0.0.1:9/mcp", "--timeout", "1s"];
        let output = world.envs(FakePlatform::start().await.env()).run(&target).await.expect_code(TEMPORARY);
        output.stderr.contains("using the bundled roots")
    };
    let as_the_machine_has_it = trusts(Safeconduct::new(binary())).await;
    let empty = Safeconduct::new(binary()).env("SSL_CERT_FILE", "").env("SSL_CERT_DIR", "");
    assert_eq!(trusts(empty).await, as_the_machine_has_it);
}

#[tokio::test]
async fn a_variable_that_is_not_utf_8_is_an_error_that_names_it_and_not_its_value() {
    let scene = Scene::new(binary()).await;
    let broken = OsStr::from_bytes(b"http://SECRET\xff.example:3128");
    let names =
        ["HTTPS_PROXY", "ALL_PROXY", "no_proxy", "SSL_CERT_FILE", "ACTIONS_ID_TOKEN_REQUEST_URL", "SAFECONDUCT_SOCKET"];
    for name in names {
        let output =
            scene.configured("").command(&["token", "demo"]).env(name, broken).output().await.expect("it runs");
        let words = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(CONFIG), "{name}: {words}");
        assert!(words.contains(&format!("safeconduct: error: {name} is not UTF-8")), "{words}");
        assert!(words.contains("safeconduct: hint: ") && !words.contains("SECRET"), "{words}");
    }
    assert_eq!((scene.mcp.probes(), scene.authorization_server.token_requests()), (0, 0));
    // What decides nothing here may be anything.
    let output =
        scene.configured("").command(&["token", "demo"]).env("LESSOPEN", broken).output().await.expect("it runs");
    assert_eq!(output.status.code(), Some(0));
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_is_said_to_be_so_where_it_was_named() {
    let path = format!("/tmp/{}/safeconduct.sock", "x".repeat(110));
    let world = Safeconduct::new(binary());
    for command in [&["--socket", &path, "token", "demo"][..], &["--socket", &path, "status"]] {
        let output = world.run(command).await.expect_code(CONFIG);
        assert!(output.stderr.contains("longer than"), "{}", output.stderr);
        assert!(output.stderr.contains("hint: choose a shorter path"), "{}", output.stderr);
    }
}

#[tokio::test]
async fn a_job_whose_directory_has_a_long_name_has_no_daemon_and_its_helpers_do_the_work() {
    let scene = Scene::new(binary()).await;
    let long = scene.safeconduct.path().join("x".repeat(110));
    std::fs::create_dir_all(&long).expect("made");
    let job = scene.configured("").without_env("SAFECONDUCT_SOCKET").env("RUNNER_TEMP", long.to_str().expect("plain"));
    job.run(&["token", "demo"]).await.expect_code(0);
    let output = job.run(&["run"]).await.expect_code(CONFIG);
    assert!(output.stderr.contains("longer than") && output.stderr.contains("--socket"), "{}", output.stderr);
}
