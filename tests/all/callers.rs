//! Rules about the connecting program or its unit, tested with real processes.
//!
//! The callers are copies of this test program. A copy gets a socket as standard input, connects it and does nothing more. The test
//! has a second descriptor of that socket and sends the request. So the rules must look at the process that connected.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getpeername, socket};
use nix::unistd::{getegid, geteuid};
use serde_json::{Value, json};
use support::safeconduct::Safeconduct;
use support::scene::Scene;
use support::unix_http;
use support::wait::until;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::{LIMIT, binary};

/// A user that is neither ours nor root.
const STRANGER: u32 = 65_534;

/// The variable that tells a copy of this program what to do.
const SOCKET: &str = "SAFECONDUCT_TEST_SOCKET";
const THEN: &str = "SAFECONDUCT_TEST_THEN";

/// The one test that a copy of this program runs.
const PART: &str = "callers::only_the_program_that_is_named_is_let_in";

/// Acts as a caller if this process is a copy.
fn played_the_caller() -> bool {
    let Some(socket) = std::env::var_os(SOCKET) else { return false };
    let address = UnixAddr::new(Path::new(&socket)).expect("a short path");
    connect(std::io::stdin().as_raw_fd(), &address).expect("it listens");
    match std::env::var_os(THEN) {
        None => {}
        Some(other) if other == "wait" => std::thread::sleep(3 * LIMIT),
        Some(program) => {
            let told = PathBuf::from(&program).with_extension("now");
            for _ in 0..2_000 {
                if told.exists() {
                    panic!("{}", Command::new(&program).arg("60").exec());
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
    true
}

/// Programs in a directory that every user can reach.
struct Programs(TempDir);

impl Programs {
    fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("scexe").tempdir_in("/tmp").expect("/tmp is writable");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("ours");
        Self(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn copy(&self, from: &Path, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::copy(from, &path).expect("there is room");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("ours");
        path
    }

    /// A copy of this program under another name.
    fn caller(&self, name: &str) -> PathBuf {
        self.copy(&std::env::current_exe().expect("it runs"), name)
    }
}

fn digest(path: &Path) -> String {
    let content = fs::read(path).expect("readable");
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &content);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A process that connected, with its connection.
struct Caller {
    process: Killed,
    stream: UnixStream,
}

impl Caller {
    async fn new(program: &Path, daemon: &Path) -> Self {
        Self::started(Command::new(program), daemon, Some("wait")).await
    }

    /// `command` must start a copy of this program.
    async fn started(mut command: Command, daemon: &Path, then: Option<&str>) -> Self {
        let ours = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
        let its: OwnedFd = ours.try_clone().expect("a descriptor");
        command.args(["--exact", PART, "--nocapture"]).env_clear().env(SOCKET, daemon).current_dir("/");
        command.envs(then.map(|then| (THEN, then))).stdin(its).stdout(Stdio::null()).stderr(Stdio::null());
        let process = Killed(command.spawn().expect("it starts"));
        until(LIMIT, "it connects", async || getpeername::<UnixAddr>(ours.as_raw_fd()).is_ok()).await;
        let stream = std::os::unix::net::UnixStream::from(ours);
        stream.set_nonblocking(true).expect("a socket can");
        Self { process, stream: UnixStream::from_std(stream).expect("in a runtime") }
    }

    /// Lets the process start the program that it was told of.
    async fn becomes(&self, program: &Path) {
        fs::write(program.with_extension("now"), "").expect("ours");
        let link = format!("/proc/{}/exe", self.process.0.id());
        until(LIMIT, "it starts the program", async || fs::read_link(&link).is_ok_and(|path| path == program)).await;
    }

    /// Status and body of one request on the kept connection.
    async fn request(&mut self, head: &str, body: &str) -> (u16, String) {
        self.request_with(head, "", body).await
    }

    async fn request_with(&mut self, head: &str, fields: &str, body: &str) -> (u16, String) {
        let request =
            format!("{head} HTTP/1.1\r\nhost: localhost\r\n{fields}content-length: {}\r\n\r\n{body}", body.len());
        let exchange = async {
            self.stream.write_all(request.as_bytes()).await.expect("the daemon reads");
            let mut answer = Vec::new();
            loop {
                if let Some(whole) = whole(&answer) {
                    return whole;
                }
                let length = self.stream.read_buf(&mut answer).await.expect("the daemon answers");
                assert_ne!(length, 0, "the daemon hung up after {:?}", String::from_utf8_lossy(&answer));
            }
        };
        tokio::time::timeout(LIMIT, exchange).await.expect("in time")
    }

    /// Whether the server is permitted for this caller; if not, the hint.
    async fn judged(&mut self, server: &str) -> Result<(), String> {
        let body = json!({"server": server, "access_token_sha256": "0".repeat(64)}).to_string();
        let (status, body) = self.request("POST /v1/reject", &body).await;
        if status == 204 {
            return Ok(());
        }
        let body: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!((status, body["error"].as_str()), (403, Some("access_denied")), "{body}");
        Err(body["hint"].as_str().expect("a refusal has its cure").to_owned())
    }

    #[track_caller]
    fn expect_hint(verdict: Result<(), String>, words: &str) {
        let hint = verdict.expect_err("no entry matches");
        assert!(hint.contains(words), "{words:?} is not in: {hint}");
    }
}

/// The answer, if it is complete.
fn whole(answer: &[u8]) -> Option<(u16, String)> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status: u16 = head.split(' ').nth(1)?.parse().ok()?;
    let length =
        head.to_ascii_lowercase().split("content-length: ").nth(1).map(|rest| rest.lines().next().map(str::parse));
    let length: usize = length.flatten().and_then(Result::ok).unwrap_or_default();
    (body.len() >= length).then(|| (status, body.to_owned()))
}

/// Servers with an `allow` entry each.
fn servers(entries: &[(&str, String)]) -> String {
    let one = |(name, entry): &(&str, String)| {
        format!("[servers.{name}]\nurl = \"https://{name}.example/mcp\"\nallow = [{{ {entry} }}]\n")
    };
    entries.iter().map(one).collect()
}

fn exe(path: &Path) -> String {
    format!("exe = \"{}\"", path.display())
}

fn with_digest(path: &Path, digest: &str) -> String {
    format!("{}, sha256 = \"{digest}\"", exe(path))
}

fn uid() -> u32 {
    geteuid().as_raw()
}

#[tokio::test]
async fn only_the_program_that_is_named_is_let_in() {
    if played_the_caller() {
        return;
    }
    let programs = Programs::new();
    let (agent, copy) = (programs.caller("agent"), programs.caller("copy"));
    symlink(&agent, programs.path("link")).expect("ours");
    let others = servers(&[
        ("link", exe(&programs.path("link"))),
        ("both", format!("uid = {}, gid = {}, {}", uid(), getegid(), exe(&agent))),
        ("other", format!("uid = {}, {}", uid() + 1, exe(&agent))),
    ]);
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon(&format!("allow = [{{ {} }}]\n{others}", exe(&agent))).await;

    let mut right = Caller::new(&agent, daemon.socket()).await;
    let (status, body) = right.request("GET /v1/token?server=demo", "").await;
    assert_eq!(status, 200, "{body}");
    assert_eq!((right.judged("link").await, right.judged("both").await), (Ok(()), Ok(())));
    Caller::expect_hint(right.judged("other").await, "run as a user that is named there");

    let mut wrong = Caller::new(&copy, daemon.socket()).await;
    Caller::expect_hint(wrong.judged("demo").await, &format!("`exe` is another than {copy:?}"));
    assert!(!wrong.judged("both").await.expect_err("another file").contains("agent"), "the right one is not told");
    let (status, _) = wrong.request("GET /v1/token?server=demo", "").await;
    assert_eq!(status, 403);
    daemon.stop().await.expect_code(0);
}

/// The connecting program is the helper, not the program that started it.
#[tokio::test]
async fn behind_a_helper_no_program_matches_and_the_hint_says_so() {
    let programs = Programs::new();
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon(&format!("allow = [{{ {} }}]", exe(&programs.caller("agent")))).await;
    let stderr = daemon.run(&["token", "demo"]).await.expect_code(77).stderr;
    // A helper protects its memory, so without CAP_SYS_PTRACE the daemon cannot see its program.
    let words = if geteuid().is_root() { "behind a helper only `uid`" } else { "safeconduct's own helpers" };
    assert!(stderr.contains("safeconduct: hint: ") && stderr.contains(words), "{stderr}");
    // Without a daemon the rules hold for the command itself.
    let own = scene.configured(&format!("allow = [{{ {} }}]", exe(Path::new(binary()))));
    own.run(&["token", "demo", "--no-daemon"]).await.expect_code(0);
    let other = scene.configured(&format!("allow = [{{ {} }}]", exe(&programs.path("agent"))));
    let stderr = other.run(&["token", "demo", "--no-daemon"]).await.expect_code(77).stderr;
    assert!(stderr.contains("behind a helper"), "{stderr}");
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn a_digest_is_that_of_the_file_that_runs_and_not_of_the_one_at_its_path() {
    let programs = Programs::new();
    let (agent, copy) = (programs.caller("agent"), programs.caller("copy"));
    let right = digest(&agent);
    let toml = servers(&[
        ("path", exe(&agent)),
        ("right", with_digest(&agent, &right)),
        ("wrong", with_digest(&agent, &"0".repeat(64))),
        ("anywhere", format!("sha256 = \"{}\"", right.to_uppercase())),
    ]);
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon(&toml).await;

    let mut old = Caller::new(&agent, daemon.socket()).await;
    for server in ["path", "right", "anywhere"] {
        assert_eq!(old.judged(server).await, Ok(()), "{server}");
    }
    Caller::expect_hint(old.judged("wrong").await, &format!("`sha256` is another than that of {agent:?}, {right}"));
    let mut elsewhere = Caller::new(&copy, daemon.socket()).await;
    assert_eq!(elsewhere.judged("anywhere").await, Ok(()));
    Caller::expect_hint(elsewhere.judged("right").await, "`exe` is another");

    // An upgrade: a new file replaces the running one at its path.
    let upgrade = programs.caller("upgrade");
    let mut longer = fs::read(&upgrade).expect("readable");
    longer.push(0);
    fs::write(&upgrade, longer).expect("ours");
    fs::rename(&upgrade, &agent).expect("one directory");
    assert_eq!((old.judged("right").await, old.judged("anywhere").await), (Ok(()), Ok(())));
    Caller::expect_hint(old.judged("path").await, "is not the one that stands at");
    let mut new = Caller::new(&agent, daemon.socket()).await;
    assert_eq!(new.judged("path").await, Ok(()));
    Caller::expect_hint(new.judged("right").await, "`sha256` is another");
    daemon.stop().await.expect_code(0);
}

/// The connection was passed to another process than the one that the kernel names.
#[tokio::test]
async fn a_process_that_connected_and_died_matches_no_rule_that_needs_it() {
    let programs = Programs::new();
    let agent = programs.caller("agent");
    let toml = servers(&[
        ("path", exe(&agent)),
        ("digest", format!("sha256 = \"{}\"", digest(&agent))),
        ("unit", "unit = \"agent.service\"".to_owned()),
        ("user", format!("uid = {}", uid())),
    ]);
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon(&toml).await;
    let mut caller = Caller::new(&agent, daemon.socket()).await;
    assert_eq!(caller.judged("path").await, Ok(()));
    caller.process.0.kill().expect("it is ours");
    // A zombie keeps its process id. After wait(2) another process can get the id. Neither matches.
    until(LIMIT, "it has ended", async || {
        fs::read_to_string(stat(&caller.process.0)).is_ok_and(|text| text.contains(") Z "))
    })
    .await;
    for waited in [false, true] {
        if waited {
            caller.process.0.wait().expect("it is ours");
        }
        for server in ["path", "digest", "unit"] {
            Caller::expect_hint(caller.judged(server).await, "the process that connected has ended");
        }
        assert_eq!(caller.judged("user").await, Ok(()), "its user is what it was when it connected");
    }
    // The same if the process died before the daemon looked.
    let mut gone = Caller::started(Command::new(&agent), daemon.socket(), None).await;
    gone.process.0.wait().expect("it is ours");
    Caller::expect_hint(gone.judged("path").await, "the process that connected has ended");
    daemon.stop().await.expect_code(0);
}

fn stat(child: &Child) -> String {
    format!("/proc/{}/stat", child.id())
}

/// A foreign program connects, gives the connection to an accomplice and becomes the program that the rule names.
#[tokio::test]
async fn a_process_that_became_the_named_program_after_it_connected_is_refused() {
    let programs = Programs::new();
    let foreign = programs.caller("foreign");
    let agent = programs.copy(&fs::canonicalize("/bin/sleep").expect("there is one"), "agent");
    let toml = servers(&[
        ("path", exe(&agent)),
        ("both", with_digest(&agent, &digest(&agent))),
        ("anywhere", format!("sha256 = \"{}\"", digest(&agent))),
        ("user", format!("uid = {}", uid())),
    ]);
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon(&toml).await;
    for asks_before in [true, false] {
        let mut caller = Caller::started(Command::new(&foreign), daemon.socket(), agent.to_str()).await;
        if asks_before {
            Caller::expect_hint(caller.judged("path").await, "`exe` is another");
        } else {
            // The daemon has accepted an older connection when it has answered on a newer one.
            assert_eq!(daemon.get("/healthz").await.status, 200);
        }
        caller.becomes(&agent).await;
        for server in ["path", "both", "anywhere"] {
            Caller::expect_hint(caller.judged(server).await, "connect again");
        }
        assert_eq!(caller.judged("user").await, Ok(()), "its user is still the same");
        fs::remove_file(agent.with_extension("now")).expect("ours");
    }
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn a_program_is_judged_anew_for_each_request() {
    let programs = Programs::new();
    let agent = programs.caller("agent");
    let next = programs.copy(&fs::canonicalize("/bin/sleep").expect("there is one"), "sleep");
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon(&servers(&[("path", exe(&agent))])).await;
    let then = next.to_str().expect("UTF-8");
    let mut caller = Caller::started(Command::new(&agent), daemon.socket(), Some(then)).await;
    assert_eq!(caller.judged("path").await, Ok(()));
    caller.becomes(&next).await;
    Caller::expect_hint(caller.judged("path").await, "connect again");
    daemon.stop().await.expect_code(0);
}

/// The daemon holds a descriptor for a connection only if a rule may need it.
#[tokio::test]
async fn without_such_a_rule_for_its_user_no_descriptor_of_a_caller_is_held() {
    // The daemon protects its memory, so only root sees its descriptors.
    if !geteuid().is_root() {
        return;
    }
    let programs = Programs::new();
    let agent = programs.caller("agent");
    let held = async |entry: String| {
        let scene = Scene::new(binary()).await;
        let daemon = scene.daemon(&servers(&[("demo2", entry)])).await;
        let mut caller = Caller::new(&agent, daemon.socket()).await;
        // After an answer the connection has been accepted and checked.
        drop(caller.judged("demo2").await);
        let of_proc = |path: PathBuf| path.starts_with("/proc") || path.to_string_lossy().contains("pidfd");
        let held = fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("we are root");
        held.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok()).filter(|path| of_proc(path.clone())).count()
    };
    assert_eq!(held("uid = 0".to_owned()).await, 0);
    assert_eq!(held(format!("uid = 1, {}", exe(&agent))).await, 0);
    assert_eq!(held(exe(&agent)).await, 1);
}

/// A control group with that name, in the hierarchy that determines the unit.
struct Group(PathBuf);

impl Group {
    /// `None` if the hierarchy is read-only: in most containers, and without root.
    fn new(name: &str) -> Option<Self> {
        let unified = Path::new("/sys/fs/cgroup");
        let is_unified = unified.join("cgroup.controllers").exists();
        let hybrid = ["unified", "systemd"].map(|name| unified.join(name)).into_iter().find(|path| path.exists());
        let path = if is_unified { unified.to_owned() } else { hybrid? }.join(name);
        fs::create_dir(&path).ok().map(|()| Self(path))
    }

    fn below(&self, name: &str) -> Self {
        let path = self.0.join(name);
        fs::create_dir(&path).expect("its parent could be made");
        Self(path)
    }

    fn put(&self, child: &Child) {
        fs::write(self.0.join("cgroup.procs"), child.id().to_string()).expect("its parent is ours");
    }

    /// A command that starts this program in the group.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("/bin/sh");
        let script = "echo $$ > \"$0\" && exec \"$@\"";
        command.args(["-c", script]).arg(self.0.join("cgroup.procs")).arg(program);
        command
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // After the last process ends, the kernel needs a moment.
        for _ in 0..200 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[tokio::test]
async fn a_unit_is_known_by_its_control_group_and_not_by_a_group_below_it() {
    let (unit, other) =
        (format!("sc-agent-{}.service", std::process::id()), format!("sc-x-{}.scope", std::process::id()));
    let (Some(group), Some(foreign)) = (Group::new(&unit), Group::new(&other)) else { return };
    let (inside, pretender) = (group.below("worker"), foreign.below(&unit));
    let programs = Programs::new();
    let agent = programs.caller("agent");
    let scene = Scene::new(binary()).await;
    let toml = servers(&[
        ("unit", format!("unit = \"{unit}\"")),
        ("both", format!("unit = \"{unit}\", {}", exe(&agent))),
        ("neither", format!("unit = \"{unit}\", {}", exe(&programs.path("other")))),
    ]);
    let daemon = scene.daemon(&toml).await;
    let mut outside = Caller::new(&agent, daemon.socket()).await;
    assert!(outside.judged("unit").await.is_err());
    // To be in the unit later does not help a process that connected before.
    group.put(&outside.process.0);
    Caller::expect_hint(outside.judged("unit").await, "connect again");
    drop(outside);
    for started_in in [&group, &inside] {
        let mut caller = Caller::started(started_in.command(&agent), daemon.socket(), Some("wait")).await;
        for group in [&group, &inside] {
            group.put(&caller.process.0);
            assert_eq!((caller.judged("unit").await, caller.judged("both").await), (Ok(()), Ok(())));
            Caller::expect_hint(caller.judged("neither").await, "`exe` is another");
        }
        foreign.put(&caller.process.0);
        Caller::expect_hint(caller.judged("unit").await, "connect again");
    }
    for group in [&foreign, &pretender] {
        let mut caller = Caller::started(group.command(&agent), daemon.socket(), Some("wait")).await;
        Caller::expect_hint(caller.judged("unit").await, &format!("`unit` is another than {other}"));
    }
    daemon.stop().await.expect_code(0);
}

/// Whether this process may create namespaces of this kind.
fn can_unshare(flags: &[&str]) -> bool {
    let tried = Command::new("unshare").args(flags).arg("true").stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
}

#[tokio::test]
async fn in_another_mount_namespace_a_path_counts_only_with_its_digest() {
    if !can_unshare(&["-m"]) {
        return;
    }
    let programs = Programs::new();
    let agent = programs.caller("agent");
    let scene = Scene::new(binary()).await;
    let toml = servers(&[("path", exe(&agent)), ("digest", with_digest(&agent, &digest(&agent)))]);
    let daemon = scene.daemon(&toml).await;
    let mut command = Command::new("unshare");
    command.arg("-m").arg(&agent);
    let mut caller = Caller::started(command, daemon.socket(), Some("wait")).await;
    Caller::expect_hint(caller.judged("path").await, "in another mount namespace than the daemon");
    assert_eq!(caller.judged("digest").await, Ok(()));
    daemon.stop().await.expect_code(0);
}

/// The kernel reports the path of a running file in the namespace where it was opened. There the path can be another file.
#[tokio::test]
async fn a_file_that_only_has_the_right_name_in_a_namespace_of_the_attackers_is_refused() {
    if !can_unshare(&["-m"]) {
        return;
    }
    let programs = Programs::new();
    let (agent, evil) = (programs.caller("agent"), programs.caller("evil"));
    let script = "mount --bind \"$1\" \"$2\" && : > \"$1.ready\" && exec sleep 60";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, "sh"]).arg(&evil).arg(&agent).stdin(Stdio::null());
    let mut attacker = Killed(command.spawn().expect("it was tried above"));
    let ready = evil.with_extension("ready");
    until(LIMIT, "it is mounted", async || ready.exists() || attacker.0.try_wait().is_ok_and(|ended| ended.is_some()))
        .await;
    assert!(ready.exists(), "the attacker could not mount");

    let scene = Scene::new(binary()).await;
    let toml = servers(&[("path", exe(&agent)), ("digest", with_digest(&agent, &"0".repeat(64)))]);
    let daemon = scene.daemon(&toml).await;
    let through = PathBuf::from(format!("/proc/{}/root{}", attacker.0.id(), agent.display()));
    let mut caller = Caller::new(&through, daemon.socket()).await;
    let link = fs::read_link(format!("/proc/{}/exe", caller.process.0.id())).expect("it runs");
    assert_eq!(link, agent, "the kernel calls it by the right name");
    Caller::expect_hint(caller.judged("path").await, "is not the one that stands at");
    Caller::expect_hint(caller.judged("digest").await, "`sha256` is another");
    daemon.stop().await.expect_code(0);
}

/// A process of the test's own that ends with it.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A daemon that is not our direct child; it ends when this is dropped.
struct Elsewhere {
    _child: Killed,
    socket: PathBuf,
}

impl Elsewhere {
    /// `prefix` is the command that starts the binary. The socket is in a directory of `owner`.
    async fn start(world: &Safeconduct, programs: &Programs, prefix: &[&str], owner: u32) -> Self {
        let binary = programs.copy(Path::new(binary()), "safeconduct");
        let directory = programs.path("run");
        fs::create_dir(&directory).expect("new");
        chown(&directory, Some(owner), Some(owner)).expect("we are root");
        let socket = directory.join("w.sock");
        let like = world.command(&["run", "--socket", &socket.display().to_string()]);
        let like = like.as_std();
        let words: Vec<_> = prefix.iter().map(std::ffi::OsStr::new).chain([binary.as_os_str()]).collect();
        let mut command = Command::new(words[0]);
        let log = fs::File::create(world.path().join("elsewhere.log")).expect("ours");
        command.args(&words[1..]).args(like.get_args()).env_clear().current_dir("/").stdin(Stdio::null());
        command.envs(like.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("HOME", "/nonexistent").stdout(Stdio::null()).stderr(log);
        if owner != 0 {
            command.gid(owner).uid(owner);
        }
        let mut child = Killed(command.spawn().expect("it starts"));
        let answers = async {
            while !unix_http::get(&socket, "/healthz").await.is_ok_and(|reply| reply.status == 200) {
                let log = || fs::read_to_string(world.path().join("elsewhere.log")).unwrap_or_default();
                assert!(matches!(child.0.try_wait(), Ok(None)), "it has ended: {}", log());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(LIMIT, answers).await.expect("it answers");
        Self { _child: child, socket }
    }
}

/// The configuration, readable for the daemon's user.
fn open_to_all(world: &Safeconduct) {
    fs::set_permissions(world.path(), fs::Permissions::from_mode(0o755)).expect("ours");
    let config = world.path().join("safeconduct.toml");
    fs::set_permissions(config, fs::Permissions::from_mode(0o644)).expect("ours");
}

#[tokio::test]
async fn a_daemon_without_privilege_sees_the_programs_of_its_own_user_and_says_what_it_lacks_for_others() {
    if !geteuid().is_root() {
        return;
    }
    let programs = Programs::new();
    let agent = programs.caller("agent");
    let scene = Scene::new(binary()).await;
    let toml = servers(&[("path", exe(&agent)), ("unit", "unit = \"no-such.service\"".to_owned())]);
    let world = scene.configured(&toml);
    open_to_all(&world);
    let daemon = Elsewhere::start(&world, &programs, &[], STRANGER).await;

    let mut root = Caller::new(&agent, &daemon.socket).await;
    Caller::expect_hint(root.judged("path").await, "`exe` cannot be told: the daemon may not look at that process");
    let unit = root.judged("unit").await.expect_err("there is no such unit");
    assert!(!unit.contains("CAP_SYS_PTRACE"), "a unit can be told of any process: {unit}");
    let mut command = Command::new(&agent);
    command.gid(STRANGER).uid(STRANGER);
    let mut own = Caller::started(command, &daemon.socket, Some("wait")).await;
    assert_eq!(own.judged("path").await, Ok(()));
}

#[tokio::test]
async fn another_users_session_looks_lost_and_its_requests_never_reach_the_server() {
    if !geteuid().is_root() {
        return;
    }
    let programs = Programs::new();
    let agent = programs.caller("agent");
    let scene = Scene::new(binary()).await;
    let world = scene.configured(&format!(
        "allow = [{{ uid = 0 }}, {{ uid = {STRANGER} }}]\n[listen]\nsocket_mode = \"0660\"\nsocket_group = \"{STRANGER}\"\n"
    ));
    open_to_all(&world);
    let daemon = world.daemon(&[]).await;
    let params =
        json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}).to_string();
    let media = "content-type: application/json\r\naccept: application/json, text/event-stream\r\n";
    let head = format!("POST /mcp/demo HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{media}");
    let begun = daemon.exchange(&format!("{head}content-length: {}\r\n\r\n{hello}", hello.len())).await;
    let session = begun.header("mcp-session-id").expect("a session").to_owned();

    let mut command = Command::new(&agent);
    command.gid(STRANGER).uid(STRANGER);
    let mut stranger = Caller::started(command, daemon.socket(), Some("wait")).await;
    let (status, _) = stranger.request_with("POST /mcp/demo", media, &hello).await;
    assert_eq!(status, 200, "it may use the server");
    let before = scene.mcp.seen().len();
    let of_session = format!("{media}mcp-session-id: {session}\r\nmcp-protocol-version: 2025-11-25\r\n");
    let list = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"}).to_string();
    for (head, body) in [("POST /mcp/demo", &*list), ("GET /mcp/demo", ""), ("DELETE /mcp/demo", "")] {
        let mut command = Command::new(&agent);
        command.gid(STRANGER).uid(STRANGER);
        let mut stranger = Caller::started(command, daemon.socket(), Some("wait")).await;
        let (status, said) = stranger.request_with(head, &of_session, body).await;
        assert!(status == 404 && said.contains("session_not_found") && !said.contains(&session), "{status} {said}");
    }
    assert_eq!(scene.mcp.seen().len(), before);
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn callers_in_another_pid_namespace_match_nothing_and_the_hint_names_the_cure() {
    if !geteuid().is_root() || !can_unshare(&["-pf", "--mount-proc", "--kill-child"]) {
        return;
    }
    let programs = Programs::new();
    let agent = programs.caller("agent");
    let scene = Scene::new(binary()).await;
    let world = scene.configured(&servers(&[("path", exe(&agent)), ("user", "uid = 0".to_owned())]));
    let prefix = ["unshare", "-pf", "--mount-proc", "--kill-child"];
    let daemon = Elsewhere::start(&world, &programs, &prefix, 0).await;
    let mut caller = Caller::new(&agent, &daemon.socket).await;
    Caller::expect_hint(caller.judged("path").await, "shareProcessNamespace");
    assert_eq!(caller.judged("user").await, Ok(()));
}

#[tokio::test]
async fn entries_stay_alternatives_and_ceilings_their_union() {
    let programs = Programs::new();
    let agent = programs.caller("agent");
    let allow = format!(
        "scopes = [\"demo:read\", \"demo:write\"]\nallow = [{{ uid = {}, scopes = [\"demo:read\"] }}, {{ {}, scopes = [\"demo:write\"] }}]",
        uid(),
        exe(&agent)
    );
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon(&allow).await;
    let scope = |body: &str| serde_json::from_str::<Value>(body).expect("JSON")["scope"].clone();
    let narrow = daemon.get("/v1/token?server=demo").await;
    assert_eq!(scope(&narrow.body), "demo:read");
    let mut caller = Caller::new(&agent, daemon.socket()).await;
    let (status, body) = caller.request("GET /v1/token?server=demo", "").await;
    assert_eq!((status, scope(&body)), (200, json!("demo:read demo:write")));
    daemon.stop().await.expect_code(0);
}
