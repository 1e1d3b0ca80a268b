//! `[keyring]` without a working keyring: registered clients last as long as the process, every call ends after two seconds, the
//! log has one warning, and tokens are served. Tests with a real secret service: `others/keyring.rs`.

use support::bus::{FakeBus, Manners};
use support::safeconduct::{Daemon, Safeconduct};
use support::scene::Scene;

use crate::binary;

const WARNING: &str = "the keyring cannot be used";
const SILENT: &str = "it does not answer within 2 s";
const ABSENT: &str = "there is no secret service, or it fails";

fn keys(auth: &str) -> String {
    format!("exchange = \"client-credentials\"\nclient_auth = \"{auth}\"\nregister = true\n")
}

/// A world whose session bus has this address.
fn world(scene: &Scene, auth: &str, bus: &str) -> Safeconduct {
    scene.configured(&format!("{}[keyring]\nenabled = true\n", keys(auth))).env("DBUS_SESSION_BUS_ADDRESS", bus)
}

fn warnings(log: &str) -> usize {
    log.matches(WARNING).count()
}

/// Runs two exchanges in one daemon. Gives its log.
async fn two_exchanges(daemon: Daemon) -> String {
    daemon.token("demo").await;
    let reply = daemon.get("/v1/token?server=demo&scope=demo:read").await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let output = daemon.stop().await.expect_code(0);
    output.stderr
}

async fn lasts_as_long_as_the_process(auth: &str, bus: &str, why: &str) {
    let scene = Scene::new(binary()).await;
    let world = world(&scene, auth, bus);
    for run in 1..=2 {
        let log = two_exchanges(world.daemon(&[]).await).await;
        assert_eq!(scene.authorization_server.registrations(), run, "one registration for each process");
        assert_eq!(warnings(&log), 1, "{log}");
        assert!(log.contains(why), "{log}");
    }
}

#[tokio::test]
async fn without_a_session_bus_a_client_lasts_as_long_as_the_process() {
    for auth in ["secret", "private-key-jwt"] {
        lasts_as_long_as_the_process(auth, "unix:path=/nonexistent/bus", ABSENT).await;
    }
}

#[tokio::test]
async fn without_a_secret_service_on_the_bus_a_client_lasts_as_long_as_the_process() {
    let bus = FakeBus::start(Manners::Empty);
    lasts_as_long_as_the_process("secret", &bus.address(), ABSENT).await;
    assert_eq!(bus.connections(), 2, "each process asked once");
}

#[tokio::test]
async fn a_silent_secret_service_is_given_up_once() {
    let bus = FakeBus::start(Manners::Silent);
    lasts_as_long_as_the_process("private-key-jwt", &bus.address(), SILENT).await;
    assert_eq!(bus.connections(), 2);
}

#[tokio::test]
async fn a_silent_bus_is_given_up_once() {
    let bus = FakeBus::start(Manners::Mute);
    lasts_as_long_as_the_process("secret", &bus.address(), SILENT).await;
    assert_eq!(bus.connections(), 2);
}

/// The thread that calls the secret service never returns. The test proves that the program ends anyway.
#[tokio::test]
async fn a_command_is_not_held_by_a_silent_keyring() {
    let bus = FakeBus::start(Manners::Silent);
    let scene = Scene::new(binary()).await;
    let world = world(&scene, "secret", &bus.address());
    let output = world.run(&["token", "demo", "--no-daemon"]).await.expect_code(0);
    assert!(!output.stdout.is_empty() && warnings(&output.stderr) == 1, "{}", output.stderr);
    let output = world.run(&["token", "demo", "--no-daemon", "--timeout", "1s"]).await.expect_code(75);
    assert!(output.stderr.contains("no token within 1 s"), "{}", output.stderr);
}

#[tokio::test]
async fn a_daemon_that_waits_for_a_silent_keyring_ends_when_told_to() {
    let bus = FakeBus::start(Manners::Silent);
    let scene = Scene::new(binary()).await;
    let daemon = world(&scene, "secret", &bus.address()).daemon(&[]).await;
    let helper = daemon.helper();
    let asking = tokio::spawn(async move { helper.run(&["token", "demo"]).await });
    bus.is_waited_for().await;
    daemon.stop().await.expect_code(0);
    // The caller gets its token before the daemon ends, or an error. It does not hang.
    asking.await.expect("it ended");
}

#[tokio::test]
async fn without_being_asked_no_keyring_is_touched() {
    let bus = FakeBus::start(Manners::Silent);
    let scene = Scene::new(binary()).await;
    let world = scene.configured(&keys("secret")).env("DBUS_SESSION_BUS_ADDRESS", &bus.address());
    let log = two_exchanges(world.daemon(&[]).await).await;
    assert_eq!((warnings(&log), bus.connections()), (0, 0), "{log}");
}

/// The operator configured the client, so no client is registered and nothing is stored.
#[tokio::test]
async fn a_workload_that_registers_nothing_waits_for_no_keyring() {
    let bus = FakeBus::start(Manners::Silent);
    let scene = Scene::new(binary()).await;
    let world = scene.configured("[keyring]\nenabled = true\n").env("DBUS_SESSION_BUS_ADDRESS", &bus.address());
    world.run(&["token", "demo", "--no-daemon"]).await.expect_code(0);
    assert_eq!(bus.connections(), 0);
}
