//! The program of a release: pinned by its digest, kept in the tool cache, downloaded from the releases of the action's repository.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;

use aws_lc_rs::digest::{SHA256, digest};

use super::nothing_is_left;
use crate::action::job::Job;
use crate::fakes::scene::Scene;
use crate::process::SAFECONDUCT;

const ASSET: &str = "/acme/safeconduct/releases/download/v0.1.0/safeconduct-0.1.0-x86_64-linux";

/// Has the release 0.1.0, and counts what it is asked for.
struct Releases {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
    /// Answers for the next requests, before the right one: a status.
    faults: Arc<Mutex<Vec<u16>>>,
}

/// A small file that runs the real program, which is larger in a debug build than any release.
fn program() -> Vec<u8> {
    format!("#!/bin/sh\nexec {SAFECONDUCT} \"$@\"\n").into_bytes()
}

fn hex(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Releases {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
        let url = format!("http://{}", listener.local_addr().expect("a bound socket has an address"));
        let (asked, faults) = (Arc::default(), Arc::default());
        let there = Self { url, asked: Arc::clone(&asked), faults: Arc::clone(&faults) };
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut head = BufReader::new(stream.try_clone().expect("a descriptor is left")).lines();
                let line = head.next().and_then(Result::ok).unwrap_or_default();
                while head.next().and_then(Result::ok).is_some_and(|line| !line.is_empty()) {}
                let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
                let fault = faults.lock().expect("never held over a panic").pop();
                let (status, body) = match fault {
                    Some(status) => (status, Vec::new()),
                    None if path == ASSET => (200, program()),
                    None => (404, Vec::new()),
                };
                asked.lock().expect("never held over a panic").push(path);
                let head =
                    format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                // A client that hangs up does not affect the next one.
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
            }
        });
        there
    }

    /// A job that names this release, or whatever `version` and `sha256` say.
    fn job(&self, scene: &Scene, version: &str, sha256: &str) -> Job {
        let job = Job::of(scene).input("path", "").input("version", version).input("sha256", sha256);
        job.env("GITHUB_SERVER_URL", &self.url).env("GITHUB_ACTION_REPOSITORY", "acme/safeconduct")
    }

    fn take_asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().expect("never held over a panic"))
    }

    fn fail_with(&self, statuses: &[u16]) {
        self.faults.lock().expect("never held over a panic").extend(statuses);
    }
}

fn cached(job: &Job, sha256: &str) -> PathBuf {
    job.path(&format!("cache/safeconduct/{sha256}/x64/safeconduct"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_program_is_downloaded_once_and_kept_by_its_digest() {
    let scene = Scene::new(SAFECONDUCT).await;
    let releases = Releases::start();
    let pinned = hex(&program());
    let job = releases.job(&scene, "v0.1.0", &pinned.to_uppercase());
    let main = job.main().expect_success();
    assert_eq!(releases.take_asked(), [ASSET]);
    // Later steps find it by its name, and what they run is what was checked: not the file that other jobs can reach.
    let program_there = PathBuf::from(main.path.trim()).join("safeconduct");
    assert_eq!(main.state["program"], program_there.display().to_string());
    assert!(program_there.starts_with(job.path("temp")));
    assert_eq!(program_there.metadata().expect("there").permissions().mode() & 0o777, 0o700);
    assert_eq!(job.post(&main.state).log, [""; 0]);

    let main = job.main().expect_success();
    assert_eq!(releases.take_asked(), [""; 0], "the cache has it");
    job.post(&main.state);

    // A damaged or foreign file in the cache is not run, and is replaced.
    fs::write(cached(&job, &pinned), "#!/bin/sh\ntouch /tmp/never\n").expect("ours");
    let main = job.main().expect_success();
    assert_eq!(releases.take_asked(), [ASSET]);
    assert_eq!(fs::read(cached(&job, &pinned)).expect("there"), program());
    job.post(&main.state);
    nothing_is_left(&scene, &job).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_with_another_digest_is_neither_run_nor_kept() {
    let scene = Scene::new(SAFECONDUCT).await;
    let releases = Releases::start();
    let other = hex(b"another file");
    let job = releases.job(&scene, "0.1.0", &other);
    let main = job.main().expect_failure(&["not what `sha256` names", &hex(&program())]);
    assert!(!main.state.contains_key("program") && !cached(&job, &other).exists());
    assert_eq!(fs::read_dir(job.path("temp")).expect("there").count(), 0, "nothing is written");
    // The same for an installed one.
    let job = Job::of(&scene).input("sha256", &other);
    job.main().expect_failure(&["not what `sha256` names"]);
    assert_eq!(scene.platform.requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_has_pinned_is_not_asked_for() {
    let scene = Scene::new(SAFECONDUCT).await;
    let releases = Releases::start();
    let pinned = hex(&program());
    for (version, sha256, said) in [
        ("", "", "nothing says which program"),
        ("0.1.0", "", "without `sha256`"),
        ("", pinned.as_str(), "without `version`"),
        ("0.1.0", &pinned[1..], "64 hexadecimal digits"),
        ("0.1.0", "sha256:0", "64 hexadecimal digits"),
        ("latest", pinned.as_str(), "not one of a release"),
        ("0.1.0/../../../evil", pinned.as_str(), "not one of a release"),
    ] {
        releases.job(&scene, version, sha256).main().expect_failure(&[said]);
    }
    for repository in ["", "acme", "acme/safeconduct/../evil", "acme/safeconduct?x"] {
        let job = releases.job(&scene, "0.1.0", &pinned).env("GITHUB_ACTION_REPOSITORY", repository);
        job.main().expect_failure(&["not run from a repository", "`path`"]);
    }
    Job::of(&scene).input("path", "no-such-program").main().expect_failure(&["`path` names no program"]);
    assert_eq!(releases.take_asked(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_is_tried_again_only_where_that_can_help() {
    let scene = Scene::new(SAFECONDUCT).await;
    let releases = Releases::start();
    let pinned = hex(&program());
    releases.fail_with(&[503, 429]);
    let job = releases.job(&scene, "0.1.0", &pinned);
    let main = job.main().expect_success();
    assert_eq!(releases.take_asked().len(), 3);
    job.post(&main.state);
    let job = releases.job(&scene, "0.2.0", &pinned);
    job.main().expect_failure(&["HTTP status 404", "HTTPS_PROXY"]);
    assert_eq!(releases.take_asked().len(), 1, "it will not be there a second later");
    // A cache that cannot be written costs the next job a download, no more.
    let job = releases.job(&scene, "0.1.0", &pinned).env("RUNNER_TOOL_CACHE", "/proc/nowhere");
    let main = job.main().expect_success();
    assert!(main.said().contains("the tool cache cannot be written"), "{}", main.said());
    job.post(&main.state);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_runners_forward_proxy_is_used() {
    let scene = Scene::new(SAFECONDUCT).await;
    let proxy = Releases::start();
    let job = proxy.job(&scene, "0.1.0", &hex(&program())).env("GITHUB_SERVER_URL", "https://releases.invalid");
    job.env("HTTPS_PROXY", &proxy.url).main().expect_failure(&["Proxy response (404)"]);
    assert!(proxy.take_asked().iter().all(|asked| asked == "releases.invalid:443"));
}
