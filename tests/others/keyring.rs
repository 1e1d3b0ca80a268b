//! `[keyring]` with GNOME Keyring on its own bus: registered clients survive a restart, stay with their issuer, and are removed if
//! the server does not know them any more. The authorization server is our fake, because it must forget clients on command.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::fakes::authorization_server::FakeAs;
use crate::fakes::leak;
use crate::fakes::safeconduct::Safeconduct;
use crate::fakes::scene::Scene;
use crate::process::{LIMIT, Running, SAFECONDUCT};

/// A bus on which no service starts by itself.
const BUS: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type><listen>unix:path=SOCKET</listen><auth>EXTERNAL</auth>
  <policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/></policy>
</busconfig>"#;

struct Keyring {
    home: TempDir,
    _bus: Running,
    service: Option<Running>,
}

impl Keyring {
    /// Unlocks it with the owner's password, as at a login.
    fn unlocked() -> Self {
        let mut keyring = Self::on_a_bus();
        keyring.start();
        keyring
    }

    fn on_a_bus() -> Self {
        let home = tempfile::Builder::new().prefix("sck").tempdir_in("/tmp").expect("/tmp is writable");
        fs::write(home.path().join("bus.conf"), BUS.replace("SOCKET", &shown(&home.path().join("bus")))).expect("ours");
        let mut command = command(&home, "dbus-daemon");
        command
            .arg(format!("--config-file={}", shown(&home.path().join("bus.conf"))))
            .args(["--nofork", "--nopidfile"]);
        let bus = started(command.stdin(Stdio::null()).stderr(Stdio::null()));
        let keyring = Self { home, _bus: bus, service: None };
        until("the bus listens", || keyring.socket().exists());
        keyring
    }

    fn start(&mut self) {
        let mut command = command(&self.home, "gnome-keyring-daemon");
        command.args(["--foreground", "--unlock", "--components=secrets"]);
        let mut service = started(command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()));
        // The password ends with the input.
        let mut stdin = service.0.stdin.take().expect("stdin is piped");
        stdin.write_all(b"the password of a login").expect("it reads");
        drop(stdin);
        self.service = Some(service);
        until("the secret service has a default collection", || {
            self.call("ReadAlias", "string:default").contains("/collection/")
        });
    }

    fn lock(&self) {
        let collection = "/org/freedesktop/secrets/collection/login";
        let locked = self.call("Lock", &format!("array:objpath:{collection}"));
        assert!(locked.contains(collection), "{locked}");
    }

    /// The answer of the service to one of its own calls; `None` while it is not running.
    fn call(&self, method: &str, argument: &str) -> String {
        let mut command = self.command("dbus-send");
        command.args(["--session", "--print-reply", "--dest=org.freedesktop.secrets", "/org/freedesktop/secrets"]);
        command.args([&format!("org.freedesktop.Secret.Service.{method}"), argument]);
        let output = command.output().expect("dbus-send is there: run tests/others/install-packages");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Simulates a restart of the machine: only the files of the keyring remain.
    fn restart(&mut self) {
        self.service = None;
        self.start();
    }

    fn socket(&self) -> PathBuf {
        self.home.path().join("bus")
    }

    fn command(&self, program: &str) -> Command {
        command(&self.home, program)
    }

    /// Our entries in it: attributes and secrets, from `secret-tool`.
    fn held(&self) -> Vec<Item> {
        let output = self.command("secret-tool").args(["search", "--all", "service", "safeconduct"]).output();
        let output = output.expect("secret-tool is there: run tests/others/install-packages");
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let values = |key: &str| -> Vec<String> {
            text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix(" = ")).map(str::to_owned).collect()
        };
        let (names, secrets) = (values("attribute.username"), values("secret"));
        assert_eq!(names.len(), secrets.len(), "each has both");
        names.into_iter().zip(secrets).map(|(name, secret)| Item { name, secret }).collect()
    }

    /// Replaces the entry with this name.
    fn spoil(&self, name: &str, secret: &[u8]) {
        let clear = self.command("secret-tool").args(["clear", "service", "safeconduct", "username", name]).status();
        assert!(clear.is_ok_and(|status| status.success()));
        let mut store = self.command("secret-tool");
        store.args(["store", "--label=spoilt", "service", "safeconduct", "username", name]).stdin(Stdio::piped());
        let mut store = started(&mut store);
        store.0.stdin.take().expect("stdin is piped").write_all(secret).expect("it reads");
        assert!(store.wait(LIMIT).is_some_and(|status| status.success()));
    }
}

struct Item {
    name: String,
    secret: String,
}

impl Item {
    /// From now on a log that contains the client's secret fails the test.
    fn is_in_no_log(&self) {
        let kept: serde_json::Value = serde_json::from_str(&self.secret).expect("what we keep is JSON");
        let proofs: Vec<&str> = ["client_secret", "key"].iter().filter_map(|name| kept[*name].as_str()).collect();
        assert_eq!(proofs.len(), 1, "a client proves itself in one way");
        leak::minted(proofs[0]);
    }
}

/// In an environment with only this home and this bus.
fn command(home: &TempDir, program: &str) -> Command {
    let mut command = Command::new(program);
    let place = home.path();
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").envs([("HOME", place), ("XDG_RUNTIME_DIR", place)]);
    command.env("DBUS_SESSION_BUS_ADDRESS", format!("unix:path={}", shown(&place.join("bus"))));
    command
}

fn started(command: &mut Command) -> Running {
    let child = command.spawn();
    Running(child.unwrap_or_else(|error| panic!("{command:?}: {error}: run tests/others/install-packages")))
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < end, "not within {LIMIT:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn shown(path: &Path) -> String {
    path.to_str().expect("temporary paths are text").to_owned()
}

fn keys(auth: &str) -> String {
    format!("exchange = \"client-credentials\"\nclient_auth = \"{auth}\"\nregister = true\n[keyring]\nenabled = true\n")
}

fn on(keyring: &Keyring, world: Safeconduct) -> Safeconduct {
    world.env("DBUS_SESSION_BUS_ADDRESS", &format!("unix:path={}", shown(&keyring.socket())))
}

/// Runs a daemon from start to end: one exchange, and no warning about the keyring.
async fn life(world: &Safeconduct) -> String {
    let daemon = world.daemon(&[]).await;
    let token = daemon.token("demo").await;
    let log = daemon.stop().await.expect_code(0).stderr;
    assert!(!log.contains("keyring"), "{log}");
    token
}

#[tokio::test]
async fn registered_clients_survive_a_restart_of_the_daemon_and_of_the_keyring() {
    for auth in ["secret", "private-key-jwt"] {
        let mut keyring = Keyring::unlocked();
        let scene = Scene::new(SAFECONDUCT).await;
        let world = on(&keyring, scene.configured(&keys(auth)));
        let token = life(&world).await;
        let held = keyring.held();
        assert_eq!(held.len(), 1, "{auth}");
        assert!(held[0].secret.contains("registered-"), "the client is kept");
        assert!(!held[0].secret.contains(&token), "and never a token");
        held[0].is_in_no_log();
        life(&world).await;
        keyring.restart();
        life(&world).await;
        world.run(&["token", "demo", "--no-daemon"]).await.expect_code(0);
        assert_eq!(scene.authorization_server.registrations(), 1, "{auth}");
        assert_eq!(keyring.held().len(), 1);
    }
}

#[tokio::test]
async fn a_client_stays_with_the_issuer_and_the_proof_it_was_registered_for() {
    let keyring = Keyring::unlocked();
    let scene = Scene::new(SAFECONDUCT).await;
    let world = on(&keyring, scene.configured(&keys("secret")));
    life(&world).await;
    let other = FakeAs::start(scene.platform.trust()).await;
    other.register(&scene.mcp.url(), &["demo:read", "demo:write"]);
    scene.mcp.set_metadata(
        serde_json::json!({"authorization_servers": [other.issuer(), scene.authorization_server.issuer()]}),
    );
    let elsewhere = scene.config(&keys("secret")).replace(&scene.authorization_server.issuer(), &other.issuer());
    // The other issuer gets another client and never sees the first one.
    let moved = on(&keyring, scene.safeconduct.clone().config(&elsewhere));
    life(&moved).await;
    assert_eq!((other.registrations(), scene.authorization_server.registrations()), (1, 1));
    let kept = keyring.held();
    assert_eq!(kept.len(), 2);
    // Another client proof needs another client.
    life(&on(&keyring, scene.configured(&keys("private-key-jwt")))).await;
    assert_eq!(scene.authorization_server.registrations(), 2);
    // With the first configuration again, the first client is still there.
    life(&on(&keyring, scene.configured(&keys("secret")))).await;
    assert_eq!((other.registrations(), scene.authorization_server.registrations()), (1, 2));
}

#[tokio::test]
async fn a_spoilt_registration_is_registered_again_and_stored() {
    let keyring = Keyring::unlocked();
    let scene = Scene::new(SAFECONDUCT).await;
    let world = on(&keyring, scene.configured(&keys("secret")));
    life(&world).await;
    let name = keyring.held().pop().expect("one").name;
    let mut registered = 1;
    for spoilt in [&b"no JSON"[..], b"{\"client_id\":\"somebody\"}", b"\xff\xfe no text"] {
        keyring.spoil(&name, spoilt);
        life(&world).await;
        registered += 1;
        assert_eq!(scene.authorization_server.registrations(), registered, "{}", String::from_utf8_lossy(spoilt));
        life(&world).await;
        assert_eq!(scene.authorization_server.registrations(), registered, "it is whole again");
        assert_eq!(keyring.held().len(), 1);
    }
}

#[tokio::test]
async fn a_client_that_the_server_forgot_is_taken_out() {
    let keyring = Keyring::unlocked();
    let scene = Scene::new(SAFECONDUCT).await;
    let world = on(&keyring, scene.configured(&keys("secret")));
    life(&world).await;
    scene.authorization_server.forget_clients();
    let refused = world.run(&["token", "demo", "--no-daemon"]).await.expect_code(76);
    assert!(refused.stderr.contains("invalid_client"), "{}", refused.stderr);
    assert!(keyring.held().is_empty(), "the next process does not find it");
    life(&world).await;
    assert_eq!((scene.authorization_server.registrations(), keyring.held().len()), (2, 1));
}

/// No person is there to type the password.
#[tokio::test]
async fn a_locked_keyring_costs_one_warning_and_no_token() {
    let keyring = Keyring::unlocked();
    let scene = Scene::new(SAFECONDUCT).await;
    let world = on(&keyring, scene.configured(&keys("secret")));
    life(&world).await;
    keyring.lock();
    let daemon = world.daemon(&[]).await;
    daemon.token("demo").await;
    assert_eq!(daemon.get("/v1/token?server=demo&scope=demo:read").await.status, 200);
    let log = daemon.stop().await.expect_code(0).stderr;
    assert_eq!(log.matches("the keyring cannot be used").count(), 1, "{log}");
    assert_eq!(scene.authorization_server.registrations(), 2, "one more registration, and no more than one");
}
