//! A job on GitHub's runner, in real time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::fakes::mcp_server::FakeMcp;
use crate::fakes::safeconduct::Safeconduct;
use crate::fakes::scene::Scene;
use crate::fakes::wait::until;
use crate::process::SAFECONDUCT;

const MINUTE: Duration = Duration::from_secs(60);
const LIFE: Duration = Duration::from_secs(60);
/// With the two seconds between two looks it is shorter than what is left of a token at its latest renewal: 10 % of its life.
const OUTAGE: Duration = Duration::from_secs(3);
const SOON: Duration = Duration::from_secs(30);

/// Two targets, whose tokens live a minute. In the course of ten minutes the issuer is away for a while, a step fails and a step
/// is cancelled. At every time both tokens are there, and at the end nothing is left.
#[tokio::test]
async fn a_job_of_ten_minutes_has_its_tokens_all_the_time_and_leaves_nothing() {
    let scene = Scene::new(SAFECONDUCT).await;
    let other = FakeMcp::start(&scene.authorization_server, &["other:read"]).await;
    let (demo, named) = (scene.argument(), format!("other={}", other.url()));
    scene.authorization_server.set_token_life(LIFE);
    let temp = scene.safeconduct.path().join("runner");
    fs::create_dir(&temp).expect("ours");
    let job = step(&scene.safeconduct, &temp, "output");
    let begun = Instant::now();
    let first = job.run(&["ci", "--insecure-loopback", "--json", &demo, &named]).await.expect_code(0);
    let pid = first.json()["pid"].to_string();
    let (mut seen, mut newest) = (BTreeSet::new(), BTreeMap::new());
    for minute in 0..10 {
        // The first three minutes are quiet.
        match minute {
            3 => scene.authorization_server.set_down(true),
            5 => {
                // A token that cannot be had: this step fails, and the daemon of the other stays.
                let failing = step(&scene.safeconduct, &temp, "failed");
                let elsewhere = ["--allowed-issuer", "https://auth.example.com"];
                failing.run(&[&["ci", "--insecure-loopback", &demo][..], &elsewhere].concat()).await.expect_code(77);
                assert!(text(&failing.private("failed")).is_empty());
            }
            7 => cancelled(&scene, &temp, &demo).await,
            _ => {}
        }
        while begun.elapsed() < (minute + 1) * MINUTE {
            if minute == 3 && begun.elapsed() > 3 * MINUTE + OUTAGE {
                scene.authorization_server.set_down(false);
            }
            for target in ["demo", "other"] {
                let token = job.run(&["token", target, "--daemon-only", "--no-mask", "--timeout", "1s"]).await;
                let token = token.expect_code(0).stdout;
                newest.insert(target, token.clone());
                seen.insert(token);
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    }
    assert!(seen.len() > 20, "{} tokens of two targets", seen.len());
    assert_eq!(
        fs::read_dir(temp.join("safeconduct")).expect("there").count(),
        1,
        "of the steps that ended nothing stays"
    );
    job.run(&["stop"]).await.expect_code(0);
    assert!(!temp.join("safeconduct").exists() && !Path::new(&format!("/proc/{pid}/exe")).exists());
    for (target, token) in newest {
        assert!(scene.authorization_server.is_revoked(token.trim_end()), "what lived of {target} is revoked");
    }
}

fn step(world: &Safeconduct, temp: &Path, output: &str) -> Safeconduct {
    world
        .clone()
        .without_env("SAFECONDUCT_SOCKET")
        .env("RUNNER_TEMP", &temp.display().to_string())
        .env("GITHUB_OUTPUT", &world.private(output).display().to_string())
}

/// The runner interrupts a step while the issuer does not answer.
async fn cancelled(scene: &Scene, temp: &Path, demo: &str) {
    let sluice = scene.sluice().await;
    sluice.shut();
    let world = step(&scene.safeconduct, temp, "cancelled");
    let running = world.spawn(&["ci", "--insecure-loopback", demo]);
    sluice.holds(1).await;
    // The runner sends the second where the first does not help: what a shell starts in the background ignores it.
    running.signal(Signal::SIGINT);
    tokio::time::sleep(Duration::from_secs(1)).await;
    running.signal(Signal::SIGTERM);
    let steps = || fs::read_dir(temp.join("safeconduct")).map_or(0, Iterator::count);
    until(SOON, "nothing is left of the step", async || steps() == 1).await;
    assert!(text(&world.private("cancelled")).is_empty());
    sluice.open();
}

fn text(path: &PathBuf) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
