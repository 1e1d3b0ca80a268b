//! A narrow identity always wins: on a cloud machine with a metadata service and `probe = true`, the narrow identity is used, or the
//! run stops with the cure. The metadata service gets no request.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use support::fault;
use support::google::{FakeGoogle, INSTANCE};
use support::listener::{Bound, Listener};
use support::safeconduct::Safeconduct;
use support::scene::Scene;

use crate::binary;
use crate::exit::NO_IDENTITY;

const PROBE: &str = "[identity]\nprobe = true\n";

/// The metadata service of any cloud. It counts the requests.
struct Machine {
    asked: Arc<AtomicUsize>,
    host: String,
    _listener: Listener,
}

impl Machine {
    async fn start() -> Self {
        let bound = Bound::new(None).await;
        let (asked, host) = (Arc::new(AtomicUsize::new(0)), bound.base().trim_start_matches("http://").to_owned());
        let counter = Arc::clone(&asked);
        let listener = bound.serve(move |_| {
            counter.fetch_add(1, Ordering::SeqCst);
            async { Ok(fault::json(404, "{}")) }
        });
        Self { asked, host, _listener: listener }
    }

    /// A world on a machine of that cloud, with `probe = true`.
    fn world(&self) -> Safeconduct {
        let base = format!("http://{}", self.host);
        let world = Safeconduct::new(binary()).config(PROBE).env("GCE_METADATA_HOST", &self.host);
        world.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", &base).env("AZURE_POD_IDENTITY_AUTHORITY_HOST", &base)
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn whoami(world: &Safeconduct) -> (Option<i32>, Value) {
    let output = world.run(&["whoami", "--json"]).await;
    // On stderr it is one line among the log lines.
    let failed = || output.stderr.lines().find(|line| line.starts_with('{')).unwrap_or_default();
    let told = if output.code == Some(0) { &output.stdout } else { failed() };
    (output.code, serde_json::from_str(told).unwrap_or_else(|_| panic!("no report but {output:?}")))
}

#[tokio::test]
async fn where_nothing_narrower_is_here_the_machine_is_asked() {
    let machine = Machine::start().await;
    let (code, report) = whoami(&machine.world()).await;
    assert_eq!(code, Some(NO_IDENTITY), "{report}");
    assert_eq!(machine.asked(), 3, "each cloud's question once");
}

#[tokio::test]
async fn a_machine_of_google_is_found_and_known_from_then_on() {
    let scene = Scene::new(binary()).await;
    let google = FakeGoogle::start(scene.platform.trust()).await;
    let nobody = Machine::start().await;
    let world = nobody.world().env("GCE_METADATA_HOST", google.metadata_host());
    let (code, report) = whoami(&world.clone().config(PROBE)).await;
    assert_eq!((code, &report["identity"]["source"]), (Some(0), &json!("gcp")), "{report}");
    let evidence = report["identity"]["evidence"].as_str().unwrap_or_default();
    assert!(evidence.contains("probe = true") && evidence.contains("metadata address"), "{evidence}");
    // A daemon detects its identity once.
    scene.authorization_server.also_trust(google.trust());
    support::profiles::of_google(&scene);
    let daemon = world.config(&format!("{}\n{PROBE}", scene.config(""))).daemon(&[]).await;
    daemon.token("demo").await;
    assert_eq!(scene.authorization_server.last_request().assertion["email"], json!(INSTANCE));
    daemon.run(&["token", "demo", "--fresh"]).await.expect_code(0);
    let looks = google.paths().iter().filter(|path| *path == "/").count();
    assert_eq!(looks, 2, "once for `whoami`, once for the daemon: {:?}", google.paths());
}

#[tokio::test]
async fn a_github_runner_on_a_machine_of_google_is_the_job() {
    let (scene, machine) = (Scene::new(binary()).await, Machine::start().await);
    let config = format!("{}\n{PROBE}", scene.config(""));
    let world = machine.world().envs(scene.platform.env()).config(&config);
    world.run(&["token", "demo"]).await.expect_code(0);
    let (_, report) = whoami(&world).await;
    assert_eq!(report["identity"]["source"], "github-actions");
    assert_eq!(machine.asked(), 0);
}

#[tokio::test]
async fn a_job_without_its_permission_on_a_machine_of_azure_stops_with_the_cure() {
    let machine = Machine::start().await;
    let (code, report) = whoami(&machine.world().env("GITHUB_ACTIONS", "true")).await;
    assert_eq!(code, Some(NO_IDENTITY), "{report}");
    assert!(report["error"]["hint"].as_str().unwrap_or_default().contains("id-token: write"), "{report}");
    assert_eq!(machine.asked(), 0);
}

#[tokio::test]
async fn a_pod_with_a_role_of_its_own_on_an_instance_with_another_is_the_pod() {
    let machine = Machine::start().await;
    let pod = machine.world().env("KUBERNETES_SERVICE_HOST", "10.0.0.1").env("AWS_REGION", "eu-central-1");
    // A missing file, a token that is not a JWT, a missing variable: each is an error.
    let role = "arn:aws:iam::123456789012:role/agent";
    let named = pod.clone().env("AWS_ROLE_ARN", role);
    let broken = named.write("token", "no JWT");
    for world in [
        named.clone(),
        named.clone().env("AWS_WEB_IDENTITY_TOKEN_FILE", "/nonexistent/token"),
        named.clone().env("AWS_WEB_IDENTITY_TOKEN_FILE", &broken.display().to_string()),
        pod.env("AWS_WEB_IDENTITY_TOKEN_FILE", &broken.display().to_string()),
    ] {
        let (code, report) = whoami(&world).await;
        assert_eq!(code, Some(NO_IDENTITY), "{report}");
        assert!(report["error"]["hint"].is_string(), "{report}");
    }
    assert_eq!(machine.asked(), 0);
}

#[tokio::test]
async fn a_helper_that_was_started_without_the_jobs_variables_asks_nobody() {
    let machine = Machine::start().await;
    let output = machine.world().run(&["headers", "https://mcp.example.com/mcp", "--no-daemon"]).await;
    let output = output.expect_code(NO_IDENTITY);
    assert!(output.stderr.contains("safeconduct run") && output.stderr.contains("source"), "{}", output.stderr);
    assert_eq!(machine.asked(), 0);
}
