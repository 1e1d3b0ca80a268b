//! Signals, exit codes and process groups.

use std::process::{Command, Stdio};

use super::*;

/// Counts each signal that it gets, and ends when it is told to.
const COUNTS: &str = "for s in HUP INT QUIT USR1 USR2 TERM WINCH; do trap \"echo got $s\" $s; done; \
    trap 'exit 9' ALRM; echo command $$; echo ready; while :; do sleep 0.05; done";

#[tokio::test]
async fn each_signal_is_passed_on_once() {
    let scene = Scene::new(binary()).await;
    let world = world(&scene);
    let mut beside = Beside::start(&world, &scene, COUNTS).await;
    let names = ["HUP", "INT", "QUIT", "USR1", "USR2", "TERM", "WINCH"];
    for name in names {
        let signal = format!("SIG{name}").parse().expect("a signal");
        beside.exec.signal(signal);
        assert_eq!(beside.line_with("got ").await, name);
    }
    beside.exec.signal(Signal::SIGALRM);
    assert!(beside.rest().await.is_empty(), "each was passed on once");
    beside.exec.wait().await.expect_code(9);
    assert!(places(&world).is_empty());
}

/// Without a terminal the command has a group of its own, so that what is sent to ours reaches it once.
#[tokio::test]
async fn a_signal_to_the_whole_group_is_passed_on_once() {
    if fs::File::open("/dev/tty").is_ok() {
        skipped("there is a terminal here, so the command shares our group");
        return;
    }
    let scene = Scene::new(binary()).await;
    let mut beside = Beside::start(&world(&scene), &scene, COUNTS).await;
    nix::sys::signal::killpg(beside.supervisor(), Signal::SIGTERM).expect("our group");
    assert_eq!(beside.line_with("got ").await, "TERM");
    nix::sys::signal::killpg(beside.supervisor(), Signal::SIGALRM).expect("our group");
    assert!(beside.rest().await.is_empty());
    beside.exec.wait().await.expect_code(9);
}

/// What the terminal sends reaches the whole foreground group, and is not passed on once more.
#[tokio::test]
async fn an_interrupt_at_the_terminal_reaches_the_command_once() {
    let scene = Scene::new(binary()).await;
    let world = world(&scene);
    let counts =
        "trap 'echo got INT' INT; echo ready; i=0; while [ $i -lt 40 ]; do sleep 0.05; i=$((i+1)); done; echo over";
    // In a variable: the shell of script(1) must not replace what is in it.
    let line = format!("{} exec --no-daemon --insecure-loopback {} -- sh -c \"$COUNTS\"", binary(), scene.argument());
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
        .envs(scene.platform.env())
        .env("RUNNER_TEMP", world.path().join("tmp"))
        .env("SAFECONDUCT_SOCKET", world.socket())
        .env("COUNTS", counts);
    let Ok(mut child) = command.spawn() else {
        skipped("there is no script(1) here");
        return;
    };
    let told = tokio::task::spawn_blocking(move || {
        use std::io::{Read, Write};
        let (mut input, mut output) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let (mut text, mut piece, mut sent) = (String::new(), [0; 512], false);
        while let Ok(read @ 1..) = output.read(&mut piece) {
            text.push_str(&String::from_utf8_lossy(&piece[..read]));
            if !sent && text.contains("ready") {
                sent = true;
                input.write_all(b"\x03").expect("a terminal");
            }
        }
        drop((input, child.wait()));
        text
    });
    let told = told.await.expect("it ran");
    assert_eq!(told.matches("got INT").count(), 1, "{told:?}");
    assert!(told.contains("over"), "{told:?}");
}

#[tokio::test]
async fn it_ends_as_the_command_ends() {
    let scene = Scene::new(binary()).await;
    let world = world(&scene);
    for code in [0, 1, 64, 127, 255] {
        run(&world, &scene, &[], &format!("exit {code}")).await.expect_code(code);
    }
    // By a signal, as a shell sees it.
    for (signal, seen) in [("TERM", 143), ("KILL", 137), ("INT", 130)] {
        let script =
            format!("\"$0\" exec --insecure-loopback {} -- sh -c 'kill -{signal} $$'; echo $?", scene.argument());
        let output = run(&world, &scene, &["--keep-identity"], &script).await.expect_code(0);
        assert_eq!(output.stdout.trim(), seen.to_string(), "{signal}: {}", output.stderr);
    }
    assert!(places(&world).is_empty());
}

#[tokio::test]
async fn a_command_that_cannot_be_run_has_the_codes_of_env() {
    let scene = Scene::new(binary()).await;
    let world = world(&scene);
    let plain = world.write("plain", "text").display().to_string();
    let target = scene.argument();
    for (command, code) in [("no-such-command", 127), ("/no/such/command", 127), (&*plain, 126), ("/tmp", 126)] {
        let output = world.run(&["exec", "--insecure-loopback", &target, "--", command]).await.expect_code(code);
        assert!(output.stderr.contains(&format!("safeconduct: error: {command}: ")), "{}", output.stderr);
    }
    assert!(places(&world).is_empty());
}

#[tokio::test]
async fn a_command_that_ignores_the_request_to_end_goes_on_until_it_is_killed() {
    let scene = Scene::new(binary()).await;
    let world = world(&scene);
    let script = "trap '' TERM; echo command $$; echo ready; \"$0\" token demo >/dev/null && echo served; while :; do sleep 0.1; done";
    let target = scene.argument();
    let mut exec = world.spawn(&["exec", "--insecure-loopback", &target, "--", "sh", "-c", script, binary()]);
    let lines = BufReader::new(exec.stdout()).lines();
    let mut beside = Beside { exec, lines };
    let command = beside.line_with("command ").await;
    beside.exec.signal(Signal::SIGTERM);
    beside.line_with("served").await;
    assert!(runs(&command));
    kill(Pid::from_raw(command.parse().expect("a number")), Signal::SIGKILL).expect("it runs");
    let output = beside.exec.wait().await;
    assert_eq!(output.code, None, "by the same signal");
    assert!(places(&world).is_empty());
}

#[tokio::test]
async fn the_limit_of_core_files_is_what_it_was() {
    let scene = Scene::new(binary()).await;
    let wanted =
        Command::new("sh").args(["-c", "ulimit -S -c; ulimit -H -c"]).output().expect("there is a shell").stdout;
    let output = run(&world(&scene), &scene, &[], "ulimit -S -c; ulimit -H -c").await.expect_code(0);
    assert_eq!(output.stdout, String::from_utf8_lossy(&wanted));
}

/// As PID 1 of a container it waits for orphans.
#[tokio::test]
async fn as_pid_1_it_waits_for_a_thousand_orphans() {
    let scene = Scene::new(binary()).await;
    let world = world(&scene);
    let script = "i=0; while [ $i -lt 1000 ]; do (true &) ; i=$((i+1)); done; sleep 0.3; \
        cat /proc/[0-9]*/stat 2>/dev/null | grep -c ') Z '; echo parent $PPID";
    let mut command = Command::new("unshare");
    command.args([
        "--user",
        "--map-root-user",
        "--pid",
        "--fork",
        "--mount-proc",
        binary(),
        "exec",
        "--no-daemon",
        "--insecure-loopback",
    ]);
    command.args([&scene.argument(), "--", "sh", "-c", script]);
    command
        .envs(scene.platform.env())
        .env("RUNNER_TEMP", world.path().join("tmp"))
        .env("SAFECONDUCT_SOCKET", world.socket());
    let output =
        tokio::task::spawn_blocking(move || command.output()).await.expect("it ran").expect("util-linux is there");
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if errors.contains("unshare") {
        skipped("no PID namespace can be made here");
        return;
    }
    assert!(output.status.success() && text == "0\nparent 1\n", "{text}{errors}");
}
