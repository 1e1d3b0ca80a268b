//! What the command does not get: the variables of the identity, our descriptors, a look into our processes.

use std::process::Command;

use super::*;

#[tokio::test]
async fn the_variables_of_the_identity_are_not_in_the_environment_of_the_command_or_its_children() {
    let scene = Scene::new(binary()).await;
    let world = world(&scene).env("ACTIONS_RUNTIME_TOKEN", "same").env("KEPT", "yes").env("CI", "true");
    let script = "cat /proc/self/environ | tr '\\0' '\\n'; sh -c 'env; true'; tr '\\0' '\\n' </proc/$$/environ";
    let output = run(&world, &scene, &[], script).await.expect_code(0);
    assert!(!output.stdout.contains("ACTIONS_"), "{}", output.stdout);
    for stays in ["GITHUB_ACTIONS=true", "KEPT=yes", "CI=true"] {
        assert_eq!(output.stdout.matches(stays).count(), 3, "{stays}");
    }
    let kept = run(&world, &scene, &["--keep-identity"], script).await.expect_code(0);
    assert_eq!(kept.stdout.matches("ACTIONS_ID_TOKEN_REQUEST_TOKEN=").count(), 3);
    let kept = run(&world, &scene, &["--keep-identity=github-actions"], "env").await.expect_code(0);
    assert!(kept.stdout.contains("ACTIONS_ID_TOKEN_REQUEST_URL="));
    let other = run(&world, &scene, &["--keep-identity=aws"], "env").await.expect_code(0);
    assert!(!other.stdout.contains("ACTIONS_"), "{}", other.stdout);
    let wrong = run(&world, &scene, &["--keep-identity=nobody"], "echo ran").await.expect_code(ASKED_WRONGLY);
    assert!(wrong.stdout.is_empty() && wrong.stderr.contains("github-actions"), "{}", wrong.stderr);
}

/// In front of a daemon nothing of the configuration is read; what the environment says of the job counts all the same.
#[tokio::test]
async fn in_front_of_a_daemon_they_are_taken_out_too() {
    let scene = Scene::new(binary()).await;
    let daemon = world(&scene).config(&scene.config("")).daemon(&[]).await;
    let output = daemon.run(&["exec", "demo", "--", "env"]).await.expect_code(0);
    assert!(!output.stdout.contains("ACTIONS_") && output.stdout.contains("GITHUB_ACTIONS=true"), "{}", output.stdout);
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn a_secret_that_the_configuration_names_is_taken_out() {
    let scene = Scene::new(binary()).await;
    let server = "client_auth = \"secret\"\nexchange = \"client-credentials\"\nclient_id = \"c\"\nclient_secret_env = \"MY_SECRET\"";
    let world = world(&scene).config(&scene.config(server)).env("MY_SECRET", "s3cret");
    let output = world.run(&["exec", "demo", "--keep-identity", "--", "env"]).await.expect_code(0);
    assert!(!output.stdout.contains("MY_SECRET"), "{}", output.stdout);
}

#[tokio::test]
async fn no_descriptor_of_ours_reaches_the_command_and_those_of_the_caller_do() {
    let scene = Scene::new(binary()).await;
    let world = world(&scene);
    let listed = "ls -l /proc/self/fd | sed -n 's/.* \\([0-9]*\\) -> \\(.*\\)/\\1 \\2/p'";
    // Above standard error, and without the directory that ls reads.
    let above = |text: &str| -> Vec<String> {
        let is_above =
            |line: &&str| !matches!(line.split(' ').next(), Some("0" | "1" | "2")) && !line.contains("/proc/");
        text.lines().filter(is_above).map(str::to_owned).collect()
    };
    let plain = Command::new("sh").args(["-c", listed]).output().expect("there is a shell");
    let output = run(&world, &scene, &[], listed).await.expect_code(0);
    let wanted = above(&String::from_utf8_lossy(&plain.stdout));
    assert_eq!(above(&output.stdout), wanted, "what whoever runs the tests has left open");
    let through = format!(
        "exec 7</etc/hostname 9>&1; exec \"$0\" exec --no-daemon --insecure-loopback {} -- sh -c \"{}\"",
        scene.argument(),
        listed.replace('\\', "\\\\").replace('"', "\\\"")
    );
    let mut command = Command::new("sh");
    command.args(["-c", &through, binary()]).env_clear().env("PATH", "/usr/bin:/bin");
    command
        .envs(scene.platform.env())
        .env("RUNNER_TEMP", world.path().join("tmp"))
        .env("SAFECONDUCT_SOCKET", world.socket());
    let output =
        tokio::task::spawn_blocking(move || command.output()).await.expect("it ran").expect("there is a shell");
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("7 /etc/hostname") && text.contains("9 pipe:"), "{text}{errors}");
}

/// Root may read everything, so there the supervisor runs as another user.
#[tokio::test]
async fn the_command_cannot_read_the_environment_of_supervisor_and_endpoint() {
    let scene = Scene::new(binary()).await;
    let script = "for pid in $PPID $(cat /proc/$PPID/task/$PPID/children); do test $pid = $$ || { \
        cat /proc/$pid/environ >/dev/null 2>&1 && echo readable $pid || echo closed; }; done";
    let place =
        tempfile::Builder::new().prefix("sc").permissions(fs::Permissions::from_mode(0o1777)).tempdir_in("/tmp");
    let place = place.expect("a directory");
    let mut command = if geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", binary()]);
        command
    } else {
        Command::new(binary())
    };
    command.args(["exec", "--no-daemon", "--insecure-loopback", &scene.argument(), "--", "sh", "-c", script]);
    command.env_clear().env("PATH", "/usr/bin:/bin").envs(scene.platform.env());
    command
        .env("TMPDIR", place.path())
        .env("RUNNER_TEMP", place.path())
        .env("SAFECONDUCT_SOCKET", place.path().join("none"));
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("it ran").expect("it starts");
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!text.contains("readable") && text.matches("closed").count() >= 2, "{text}{errors}");
}
