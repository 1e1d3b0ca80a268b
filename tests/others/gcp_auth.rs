//! Google's metadata server, used by the crate `gcp_auth` with its real name, address and port, in a network namespace with its own
//! hosts file. The server answers correctly, is silent, sends an endless body, refuses, or is another server.

use std::fs;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;

use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::fakes::fault::Fault;
use crate::fakes::google::{AGENT, FakeGoogle, INSTANCE};
use crate::fakes::memory::memory;
use crate::fakes::profiles;
use crate::fakes::safeconduct::{Output, Safeconduct};
use crate::fakes::scene::Scene;
use crate::process::{LIMIT, SAFECONDUCT};

const NO_IDENTITY: i32 = 69;
const TEMPORARY: i32 = 75;
const METADATA: &str = "169.254.169.254:80";

const ROOT: &str = "/";
const TOKEN: &str = "/computeMetadata/v1/instance/service-accounts/default/token";
/// Only the crate requests this path, so it shows that the crate got the token.
const PROJECT: &str = "/computeMetadata/v1/project/project-id";

/// Starts this test again in namespaces where the metadata address and the hosts file are ours.
#[tokio::test]
async fn the_crate_gets_the_token_and_nobody_can_make_it_wait_or_grow() {
    if std::env::var_os(INSIDE).is_some() {
        return inside().await;
    }
    let place = tempfile::tempdir().expect("a temporary directory");
    fs::write(place.path().join("hosts"), HOSTS).expect("ours");
    let script = "set -e; ip link set lo up; ip address add 169.254.169.254/32 dev lo; mount --bind hosts /etc/hosts; \
        exec \"$0\" --exact \"$1\" --nocapture";
    let (_, path) = module_path!().split_once("::").expect("a module of the crate");
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--net", "--mount", "sh", "-c", script]);
    command.arg(std::env::current_exe().expect("this test")).arg(format!("{path}::{NAME}"));
    command.env(INSIDE, "1").current_dir(place.path()).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(LIMIT, command.output()).await.expect("it ends").expect("unshare is here");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(told.contains("1 passed"), "nothing ran: {told}");
}

const NAME: &str = "the_crate_gets_the_token_and_nobody_can_make_it_wait_or_grow";
/// Set inside these namespaces.
const INSIDE: &str = "INSIDE_THE_NAMESPACES";
const HOSTS: &str = "127.0.0.1 localhost\n169.254.169.254 metadata.google.internal\n";

/// An instance of Google Cloud that acts as another account. For that it needs its own access token.
struct Instance {
    google: FakeGoogle,
    scene: Scene,
    world: Safeconduct,
    _port: JoinSet<()>,
}

/// Port 80 of the metadata address, bound once. It forwards to one instance after the other.
type Port = Arc<TcpListener>;

impl Instance {
    async fn new(port: &Port) -> Self {
        let scene = Scene::new(SAFECONDUCT).await;
        let google = FakeGoogle::start(scene.platform.trust()).await;
        google.grant(INSTANCE, AGENT);
        profiles::of_google(&scene);
        scene.authorization_server.also_trust(google.trust());
        let config = scene.config("").replace("[egress]\n", &format!("[egress]\n{}", google.egress()));
        let identity = format!("\n[identity]\nsource = \"gcp\"\nservice_account = \"{AGENT}\"\nimpersonate = true\n");
        let world = Safeconduct::new(SAFECONDUCT).config(&format!("{config}{identity}"));
        let there = before(Arc::clone(port), google.metadata_host().parse().expect("an address"));
        Self { google, scene, world, _port: there }
    }

    /// Runs one command, with this fault at that path.
    async fn command(&self, fault: Option<(&str, Fault)>) -> Output {
        self.google.fail(fault);
        self.world.run(&["token", "demo", "--timeout", "4s"]).await
    }

    /// The number of requests for a path.
    fn asked(&self, path: &str) -> usize {
        self.google.paths().iter().filter(|asked| *asked == path).count()
    }
}

/// Forwards every connection to the fake, until the returned value is dropped.
fn before(port: Port, fake: SocketAddr) -> JoinSet<()> {
    let mut connections = JoinSet::new();
    connections.spawn(async move {
        let mut open = JoinSet::new();
        while let Ok((mut near, _)) = port.accept().await {
            open.spawn(async move {
                let mut far = TcpStream::connect(fake).await.expect("it is served");
                // Errors at the end of a connection do not matter.
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    connections
}

async fn inside() {
    let port = Arc::new(TcpListener::bind(METADATA).await.expect("the address is ours in here"));
    the_token_comes_through_the_crate(&port).await;
    another_server_keeps_the_crate_out(&port).await;
    a_name_that_leads_elsewhere_is_not_followed(&port).await;
    a_silent_or_endless_token_costs_one_attempt(&port).await;
    a_refusal_is_told_in_our_words_and_nobody_elses(&port).await;
    an_endless_token_does_not_fill_the_daemons_memory(&port).await;
}

async fn the_token_comes_through_the_crate(port: &Port) {
    let instance = Instance::new(port).await;
    instance.command(None).await.expect_code(0);
    assert_eq!(instance.scene.authorization_server.last_request().assertion["email"], json!(AGENT));
    let paths = instance.google.paths();
    assert_eq!(paths[..3], [ROOT, TOKEN, PROJECT], "the check is first, and the crate asks for the rest");
    assert_eq!(instance.asked(TOKEN), 1);
}

async fn another_server_keeps_the_crate_out(port: &Port) {
    let away = Fault::Redirect("http://127.0.0.1:1/".to_owned());
    for (fault, code, words) in [
        (Fault::Html, NO_IDENTITY, "is not Google's metadata server"),
        (away, NO_IDENTITY, "redirect"),
        (Fault::Endless, NO_IDENTITY, "more than 64 KiB"),
        (Fault::Stall, TEMPORARY, "gives no answer within"),
    ] {
        let instance = Instance::new(port).await;
        let output = instance.command(Some((ROOT, fault.clone()))).await;
        assert_eq!(output.code, Some(code), "{fault:?}: {}", output.stderr);
        assert!(output.stderr.contains(words), "{fault:?}: {}", output.stderr);
        assert_eq!((instance.asked(TOKEN), instance.asked(PROJECT)), (0, 0), "{fault:?}");
    }
}

/// If the name has another address or none, our own client dials the fixed address.
async fn a_name_that_leads_elsewhere_is_not_followed(port: &Port) {
    for hosts in ["127.0.0.1 localhost\n", "127.0.0.1 localhost metadata.google.internal\n"] {
        fs::write("/etc/hosts", hosts).expect("it is ours in here");
        let instance = Instance::new(port).await;
        instance.command(None).await.expect_code(0);
        assert_eq!((instance.asked(TOKEN), instance.asked(PROJECT)), (1, 0), "{hosts}");
    }
    fs::write("/etc/hosts", HOSTS).expect("it is ours in here");
}

async fn a_silent_or_endless_token_costs_one_attempt(port: &Port) {
    for (fault, code, words) in
        [(Fault::Stall, TEMPORARY, "gives no access token within"), (Fault::Endless, NO_IDENTITY, "does not end")]
    {
        let instance = Instance::new(port).await;
        let output = instance.command(Some((TOKEN, fault.clone()))).await;
        assert_eq!(output.code, Some(code), "{fault:?}: {}", output.stderr);
        assert!(output.stderr.contains(words), "{fault:?}: {}", output.stderr);
        assert_eq!((instance.asked(TOKEN), instance.asked(PROJECT)), (1, 0), "{fault:?}");
    }
}

async fn a_refusal_is_told_in_our_words_and_nobody_elses(port: &Port) {
    for (fault, code, words) in [
        (Fault::Status(404), NO_IDENTITY, "gives no access token (status 404)"),
        // The last attempt may have had no time left.
        (Fault::Status(500), TEMPORARY, "gives no access token"),
        (Fault::Html, NO_IDENTITY, "is not application/json"),
    ] {
        let instance = Instance::new(port).await;
        let output = instance.command(Some((TOKEN, fault.clone()))).await;
        assert_eq!(output.code, Some(code), "{fault:?}: {}", output.stderr);
        assert!(output.stderr.contains(words), "{fault:?}: {}", output.stderr);
        // It runs with its log at trace.
        for theirs in ["scripted failure", "sign in", "requesting token", "token request failed"] {
            assert!(!output.stderr.contains(theirs), "{fault:?}: {}", output.stderr);
        }
        assert_eq!(instance.asked(PROJECT), 0, "{fault:?}");
    }
}

async fn an_endless_token_does_not_fill_the_daemons_memory(port: &Port) {
    // 32 polls of 408 KiB, and half as much for the allocator.
    const MORE: u64 = 20 * 1024;
    let instance = Instance::new(port).await;
    let daemon = instance.world.daemon(&[]).await;
    daemon.token("demo").await;
    let usual = memory(daemon.pid(), "VmHWM");
    daemon.stop().await.expect_code(0);
    instance.google.fail(Some((TOKEN, Fault::Endless)));
    let daemon = instance.world.daemon(&[]).await;
    daemon.run(&["token", "demo"]).await.expect_code(NO_IDENTITY);
    let most = memory(daemon.pid(), "VmHWM");
    assert!(most < usual + MORE, "{usual} kB became {most} kB");
}
