//! What must not stop the daemon or a command: a log that nobody reads, callers that say nothing, a machine without threads or
//! descriptors, a socket file that is removed, a child that hangs, an input that stays open.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket};
use nix::unistd::{Pid, geteuid};
use support::leak;
use support::safeconduct::Safeconduct;
use support::scene::Scene;
use support::unix_http;
use support::wait::until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use crate::activated::{activated, ends};
use crate::exit::{ASKED_WRONGLY, CONFIG, TEMPORARY};
use crate::{LIMIT, binary};

const TOKEN: &str = "/v1/token?server=demo";

/// The command, started by a shell that first does `setup`. The shell replaces itself, so the process is the command's own.
fn prepared(world: &Safeconduct, setup: &str, args: &[&str]) -> Command {
    let command = world.command(args);
    let given = command.as_std();
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &format!("{setup}\nexec \"$@\""), "sh"]).arg(given.get_program()).args(given.get_args());
    shell.env_clear().envs(given.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    shell
}

async fn answers(socket: &Path) -> bool {
    unix_http::get(socket, "/healthz").await.is_ok_and(|reply| reply.status == 200)
}

async fn answering(world: &Safeconduct) {
    until(LIMIT, "it answers", async || answers(&world.socket()).await).await;
}

async fn token(world: &Safeconduct) -> u16 {
    let asked = tokio::time::timeout(LIMIT, unix_http::get(&world.socket(), TOKEN)).await;
    asked.expect("in time").expect("an answer").status
}

/// Sends SIGTERM and gives the exit code.
async fn stopped(mut child: Child) -> Option<i32> {
    kill(pid_of(&child), Signal::SIGTERM).expect("it lives");
    tokio::time::timeout(LIMIT, child.wait()).await.expect("in time").expect("waited for").code()
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(child.id().and_then(|id| i32::try_from(id).ok()).expect("it runs"))
}

/// Does a process of this id run? A zombie does not.
fn runs(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

/// The process ids that a script has written, when there are so many.
async fn pids(file: &Path, count: usize) -> Vec<Pid> {
    let read = || {
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).map(Pid::from_raw).collect::<Vec<_>>()
    };
    until(LIMIT, "the program runs", async || read().len() == count).await;
    read()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_nobody_reads_stops_no_answer_and_what_was_lost_is_told_later() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("");
    let mut command = world.command(&["run"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("started");
    answering(&world).await;
    // Each token is a line or more at this level. A pipe holds 64 KiB, and the queue 1,024 lines.
    for _ in 0..3_000 {
        assert_eq!(token(&world).await, 200);
    }
    assert!(answers(&world.socket()).await);
    assert_eq!(token(&world).await, 200);
    let metrics = unix_http::get(&world.socket(), "/metrics").await.expect("an answer").body;
    let dropped = metrics.lines().find_map(|line| line.strip_prefix("safeconduct_log_lines_dropped_total "));
    assert!(dropped.is_some_and(|count| count.parse::<u64>().is_ok_and(|count| count > 0)), "{metrics}");

    let mut log = child.stderr.take().expect("piped");
    let mut text = Vec::new();
    let told = async {
        let mut chunk = [0; 16 * 1024];
        while !String::from_utf8_lossy(&text).contains("log lines were dropped") {
            let length = log.read(&mut chunk).await.expect("readable");
            assert!(length > 0, "the log has ended");
            text.extend_from_slice(&chunk[..length]);
        }
    };
    tokio::time::timeout(LIMIT, told).await.expect("in time");
    leak::check("the log", &String::from_utf8_lossy(&text));
    let rest = tokio::spawn(async move {
        let mut text = String::new();
        log.read_to_string(&mut text).await.map(|_| text)
    });
    assert_eq!(stopped(child).await, Some(0));
    let rest = rest.await.expect("it ran").expect("UTF-8");
    assert!(rest.contains("stopping"), "the last lines are written before the end: {rest}");
}

#[tokio::test]
async fn a_log_that_nobody_reads_does_not_delay_the_end() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("");
    let mut command = world.command(&["run"]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("started");
    answering(&world).await;
    for _ in 0..1_000 {
        assert_eq!(token(&world).await, 200);
    }
    assert_eq!(stopped(child).await, Some(0));
}

/// A configuration whose identity is a script that never ends by itself. It writes its process id, and that of its own child, to
/// the file `pids`.
fn hanging(scene: &Scene) -> (Safeconduct, PathBuf) {
    let file = scene.safeconduct.path().join("pids");
    let script = format!("#!/bin/sh\nsleep 300 &\necho $! >> {0}\necho $$ >> {0}\nwait\n", file.display());
    let program = scene.safeconduct.write("identity-program", &script);
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).expect("ours");
    let identity = format!("[identity]\nsource = \"command\"\ncommand = [\"{}\"]\n", program.display());
    (scene.configured(&format!("\n{identity}")), file)
}

#[tokio::test]
async fn an_identity_program_and_its_children_end_with_the_daemon_however_it_ends() {
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let scene = Scene::new(binary()).await;
        let (world, file) = hanging(&scene);
        let daemon = world.daemon(&[]).await;
        let socket = world.socket();
        let asked = tokio::spawn(async move { unix_http::get(&socket, TOKEN).await.map(|reply| reply.status) });
        let running = pids(&file, 2).await;
        daemon.signal(signal);
        until(LIMIT, "all have ended", async || !running.iter().any(|pid| runs(*pid))).await;
        asked.abort();
    }
}

#[tokio::test]
async fn an_identity_program_and_its_children_end_with_a_command_however_it_ends() {
    for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGINT] {
        let scene = Scene::new(binary()).await;
        let (world, file) = hanging(&scene);
        let running = world.spawn(&["token", "demo", "--no-daemon"]);
        let program = pids(&file, 2).await;
        running.signal(signal);
        until(LIMIT, "all have ended", async || !program.iter().any(|pid| runs(*pid))).await;
    }
}

#[tokio::test]
async fn an_identity_program_and_its_children_end_with_the_time_limit_of_a_command() {
    let scene = Scene::new(binary()).await;
    let (world, file) = hanging(&scene);
    world.run(&["token", "demo", "--no-daemon", "--timeout", "1s"]).await.expect_code(TEMPORARY);
    for pid in pids(&file, 2).await {
        until(LIMIT, "it has ended", async || !runs(pid)).await;
    }
}

#[tokio::test]
async fn as_pid_1_a_command_obeys_sigterm_and_sigint() {
    let isolated = |args: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork"]).args(args).stdin(Stdio::piped()).kill_on_drop(true);
        command
    };
    if !isolated(&["true"]).status().await.is_ok_and(|status| status.success()) {
        // This user may not make a process namespace.
        return;
    }
    for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130)] {
        let mut outer = isolated(&[binary(), "get", "--timeout", "60s"]).spawn().expect("started");
        let _open = outer.stdin.take();
        let children = format!("/proc/{0}/task/{0}/children", pid_of(&outer));
        let inner = || fs::read_to_string(&children).ok()?.trim().parse().ok().map(Pid::from_raw);
        // Its second thread waits for the signals.
        let waits = |pid: Pid| fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|threads| threads.count() == 2);
        until(LIMIT, "it waits for its input", async || inner().is_some_and(waits)).await;
        kill(inner().expect("it runs"), signal).expect("it runs");
        let ended = tokio::time::timeout(LIMIT, outer.wait()).await.expect("in time").expect("waited for");
        assert_eq!(ended.code(), Some(code));
    }
}

#[tokio::test]
async fn children_that_the_daemon_did_not_start_do_not_stay_zombies() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("");
    let file = world.path().join("pids");
    // They end before and after the daemon has begun to wait for them.
    let setup = format!("for time in 0 0.3 1; do sleep $time & echo $! >> {}; done", file.display());
    let child = prepared(&world, &setup, &["run"]).stderr(Stdio::null()).spawn().expect("started");
    for pid in pids(&file, 3).await {
        let is_gone = async || !Path::new(&format!("/proc/{pid}")).exists();
        until(LIMIT, "nothing of it is left", is_gone).await;
    }
    assert_eq!(token(&world).await, 200);
    assert_eq!(stopped(child).await, Some(0));
}

#[tokio::test]
async fn silent_callers_never_take_the_descriptors_that_a_renewal_needs() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("");
    let child = prepared(&world, "ulimit -n 64", &["run"]).stderr(Stdio::null()).spawn().expect("started");
    answering(&world).await;
    let silent: Vec<io::Result<UnixStream>> = (0..100).map(|_| UnixStream::connect(world.socket())).collect();
    assert_eq!(token(&world).await, 200, "a token that nobody has asked for before");
    assert!(answers(&world.socket()).await);
    drop(silent);
    assert_eq!(stopped(child).await, Some(0));
}

#[tokio::test]
async fn an_inherited_socket_that_does_not_listen_is_an_error_and_not_ready() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("");
    let path = world.path().join("activated.sock");
    let silent: OwnedFd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::empty(), None).expect("a socket");
    bind(silent.as_raw_fd(), &UnixAddr::new(&path).expect("short")).expect("bound");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("ours");
    let (child, log) = activated(&world, silent, None);
    let (code, text) = ends(child, &log).await;
    assert_eq!(code, Some(CONFIG), "{text}");
    assert!(text.contains("is not listening") && text.contains("safeconduct: hint: "), "{text}");
    assert!(!text.contains("cannot accept"), "{text}");
}

#[tokio::test]
async fn with_too_few_descriptors_a_start_is_a_temporary_error_with_its_cure() {
    let world = Safeconduct::new(binary()).config("");
    for limit in 4..16 {
        for args in [&["run"][..], &["token", "https://mcp.example.com/mcp", "--no-daemon"]] {
            let mut command = prepared(&world, &format!("ulimit -n {limit}"), args);
            let output = tokio::time::timeout(LIMIT, command.stderr(Stdio::piped()).output()).await.expect("in time");
            let output = output.expect("it ran");
            let text = String::from_utf8_lossy(&output.stderr);
            // With fewer the loader of a dynamic binary fails by itself.
            let is_ours = text.contains("safeconduct: ");
            assert!(!is_ours || output.status.code() == Some(TEMPORARY), "{limit} {:?} {text}", output.status);
            assert!(!is_ours || text.contains("ulimit -n"), "{limit} {text}");
            assert!(is_ours || limit < 6, "{limit} {text}");
        }
    }
}

/// A shell command that leaves the process no thread. Shells name that limit differently.
const NO_THREADS: &str = "ulimit -p 1 2>/dev/null || ulimit -u 1";

/// Another user than root, whom no limit of threads binds, with everything of this world.
fn limited(world: &Safeconduct, args: &[&str]) -> Command {
    const NOBODY: u32 = 54_321;
    let mut command = prepared(world, NO_THREADS, args);
    if geteuid().is_root() {
        let mut pending = vec![world.path().to_owned()];
        while let Some(path) = pending.pop() {
            chown(&path, Some(NOBODY), Some(NOBODY)).expect("we are root");
            if path.is_dir() {
                // A daemon in another test may have set the umask of this process while the directory was made.
                fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("ours");
                pending.extend(fs::read_dir(&path).expect("ours").flatten().map(|entry| entry.path()));
            }
        }
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

#[tokio::test]
async fn without_threads_a_daemon_says_so_and_a_command_does_not_crash() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("");
    // The binary lies where only its builder may go, so the limited user gets a copy.
    let directory = world.path().join("bin");
    fs::create_dir(&directory).expect("new");
    let copy = directory.join("safeconduct");
    fs::copy(binary(), &copy).expect("copied");
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("ours");
    let world = world.with_binary(&copy);
    let ended = async |args: &[&str]| {
        let output = tokio::time::timeout(LIMIT, limited(&world, args).stderr(Stdio::piped()).output()).await;
        let output = output.expect("in time").expect("it ran");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, text) = ended(&["run"]).await;
    assert_eq!(code, Some(TEMPORARY), "{text}");
    assert!(text.contains("no thread can be started") && text.contains("TasksMax="), "{text}");
    let (code, text) = ended(&["token", "demo", "--no-daemon"]).await;
    assert!(matches!(code, Some(0 | TEMPORARY)), "{code:?} {text}");
}

#[tokio::test]
async fn a_socket_file_that_is_removed_is_made_again() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("");
    let daemon = world.daemon(&[]).await;
    fs::remove_file(world.socket()).expect("it is there");
    answering(&world).await;
    daemon.logged("the socket's file was removed").await;
    assert_eq!(token(&world).await, 200);
    daemon.stop().await.expect_code(0);
    assert!(!world.socket().exists());
}

#[tokio::test]
async fn a_daemon_whose_socket_cannot_be_made_again_ends_and_says_why() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("");
    let directory = world.path().join("sockets");
    fs::create_dir(&directory).expect("new");
    let socket = directory.join("safeconduct.sock");
    let daemon = world.daemon(&["--socket", &socket.display().to_string()]).await;
    fs::remove_dir_all(&directory).expect("ours");
    let output = daemon.wait().await.expect_code(CONFIG);
    assert!(output.stderr.contains(&directory.display().to_string()), "{}", output.stderr);
}

#[tokio::test]
async fn a_detached_daemon_keeps_nothing_open_of_its_caller() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("");
    let told = world.path().join("told");
    // Descriptor 9 is a pipe to this test, which sees its end when nobody has it open any more.
    let setup = format!("exec 9>&1 >{}", told.display());
    let mut command = prepared(&world, &setup, &["run", "--detach"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("started");
    let mut pipe = child.stdout.take().expect("piped");
    let started = tokio::time::timeout(LIMIT, child.wait()).await.expect("in time");
    let end = tokio::time::timeout(LIMIT, pipe.read_to_end(&mut Vec::new())).await;
    let told = fs::read_to_string(&told).expect("ours");
    assert!(started.is_ok_and(|status| status.success()), "{told}");
    let pid = told.lines().find_map(|line| line.strip_prefix("pid")).and_then(|pid| pid.trim().parse().ok());
    let lived = kill(Pid::from_raw(pid.expect("it is told")), Signal::SIGTERM);
    assert!(end.is_ok(), "the daemon has the pipe");
    assert_eq!(lived, Ok(()));
}

#[tokio::test]
async fn get_answers_a_request_on_an_input_that_stays_open() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    let mut running = daemon.helper().spawn(&["get"]);
    let mut stdin = running.stdin();
    stdin.write_all(format!("{{\"uri\":\"{}\"}}\n", scene.mcp.url()).as_bytes()).await.expect("it reads");
    let mut text = String::new();
    let answered = tokio::time::timeout(LIMIT, running.stdout().read_to_string(&mut text)).await;
    answered.expect("in time").expect("UTF-8");
    assert!(text.contains("Authorization"), "an answer");
    drop(stdin);
}

#[tokio::test]
async fn the_time_limit_of_get_holds_for_its_input_too() {
    for written in ["", "{\"uri\":"] {
        let world = Safeconduct::new(binary());
        let mut running = world.spawn(&["get", "--timeout", "1s"]);
        let mut stdin = running.stdin();
        stdin.write_all(written.as_bytes()).await.expect("it reads");
        let output = running.wait().await.expect_code(TEMPORARY);
        assert!(output.stderr.contains("stdin"), "{}", output.stderr);
        drop(stdin);
    }
}

#[tokio::test]
async fn a_daemon_that_is_killed_under_a_helper_is_a_temporary_failure() {
    let scene = Scene::new(binary()).await;
    let sluice = scene.sluice().await;
    let world = scene.configured("");
    let daemon = world.daemon(&[]).await;
    sluice.shut();
    let mut helper = daemon.helper().spawn(&["token", "demo"]);
    sluice.holds(1).await;
    daemon.signal(Signal::SIGKILL);
    let output = helper.wait().await.expect_code(TEMPORARY);
    assert!(output.stderr.contains("ended the connection"), "{}", output.stderr);
}

#[tokio::test]
async fn who_asks_for_a_server_of_a_daemon_that_is_away_is_told_that_there_is_none() {
    let world = Safeconduct::new(binary());
    let job = world.path().join("tmp").display().to_string();
    let unnamed = world.clone().without_env("SAFECONDUCT_SOCKET").env("RUNNER_TEMP", &job);
    // On this machine a daemon may answer at a compiled-in place; it has no such server either.
    let output = unnamed.run(&["token", "deploy-nowhere"]).await.expect_code(ASKED_WRONGLY);
    assert!(output.stderr.contains("no server is called"), "{}", output.stderr);
    let is_named =
        ["no daemon is running; looked at", "says the daemon at"].iter().any(|part| output.stderr.contains(part));
    assert!(is_named, "{}", output.stderr);
    let output = world.run(&["token", "deploy-nowhere", "--no-daemon"]).await.expect_code(ASKED_WRONGLY);
    assert!(!output.stderr.contains("no daemon"), "none was looked for: {}", output.stderr);
}
