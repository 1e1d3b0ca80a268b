//! The packages of a release, installed and used as `docs/install.md` says. The page is the test: each section's commands run in a fresh
//! place and must print what the page says. `SAFECONDUCT_ARTIFACTS` names the folder that `packaging/release/make` filled.
//!
//! `.ci/run` has a wheel and npm packages made and tries them here, in empty folders. `.ci/long` makes a whole release and runs
//! `long::packages`, which tries them in a fresh Debian system.
//!
//! | file | what |
//! |---|---|
//! | `page.rs` | the sections of the page, and how what a command printed is compared with them |
//! | `place.rs` | where the commands of a section run |

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use support::authorization_server::Profile;
use support::leak;
use support::scene::Scene;

use crate::process::{PYTHON, ROOT, Running, SAFECONDUCT};
pub(crate) use page::Section;
pub(crate) use place::Place;

mod page;
mod place;

/// Stands for an MCP client. A server ends with its input, so that is kept open until the answer is there.
const ASK: &str = r#"#!/bin/sh
rm -f answer
{
    echo '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"me","version":"1"}}}'
    for _ in $(seq 400); do [ ! -s answer ] || break; sleep 0.05; done
} | "$@" >answer
cat answer
"#;

/// The folder with the artifacts of a release.
pub(crate) fn artifacts() -> PathBuf {
    let named =
        std::env::var("SAFECONDUCT_ARTIFACTS").expect("SAFECONDUCT_ARTIFACTS names what packaging/release/make made");
    let folder = PathBuf::from(ROOT).join(named);
    assert!(folder.is_dir(), "{} is no folder", folder.display());
    folder
}

/// The artifact whose name begins and ends like this.
pub(crate) fn artifact(begin: &str, end: &str) -> PathBuf {
    let entries = fs::read_dir(artifacts()).expect("readable").map(|entry| entry.expect("readable").path());
    let is_it = |path: &PathBuf| {
        let name = path.file_name().expect("it has a name").to_string_lossy();
        name.starts_with(begin) && name.ends_with(end)
    };
    let found: Vec<_> = entries.filter(is_it).collect();
    assert!(found.len() == 1, "{begin}…{end}: {found:?}");
    found.into_iter().next().expect("one")
}

/// The commands of a section of the page print what it says.
pub(crate) async fn holds(title: &str, place: Place) {
    prints(&Section::of_page(title), place).await;
}

pub(crate) async fn prints(section: &Section, place: Place) {
    let scene = Scene::new(SAFECONDUCT).await;
    let real = [
        ("https://mcp.example.com/mcp", scene.mcp.url()),
        ("https://login.example.com/tenant1", scene.authorization_server.issuer()),
    ];
    // The JWT in a file is presented several times, so it has no `jti`.
    scene.authorization_server.set_profile(Profile { jti_optional: true, ..Profile::default() });
    let issuer = scene.authorization_server.issuer();
    let identity = scene.platform.mint_with(&issuer, Duration::from_secs(600), &serde_json::json!({"jti": null}));
    let mut files = vec![("ask", ASK.to_owned()), ("identity.jwt", identity)];
    if let Some(text) = &section.configuration {
        files.push(("safeconduct.toml", format!("{}\n[egress]\ninsecure_loopback = true\n", with(text, &real))));
    }
    let commands: Vec<String> = section.steps.iter().map(|step| with(&step.command, &real)).collect();
    // A unit and a container have no variables of a job.
    let job = if section.configuration.is_some() { Vec::new() } else { scene.platform.env() };
    let work = place::furnished(&files, &job);
    let outcomes = tokio::task::spawn_blocking(move || place.run(work.path(), &commands)).await.expect("it ends");
    for (step, outcome) in section.steps.iter().zip(&outcomes) {
        // The runner of the job takes these lines for itself, and nobody sees them.
        let seen: String = outcome.split_inclusive('\n').filter(|line| !line.starts_with("::add-mask::")).collect();
        let printed = real.iter().fold(seen, |text, (page, real)| text.replace(real.as_str(), page));
        assert!(
            page::fits(&step.prints, &printed),
            "$ {}\nshould print\n{}\nand printed\n{printed}",
            step.command,
            step.prints
        );
        if !step.prints.contains("eyJ[..]") {
            leak::check(&step.command, outcome);
        }
    }
    assert_eq!(outcomes.len(), section.steps.len(), "after it no command ran: {:?}", outcomes.last());
    assert!(scene.authorization_server.token_requests() >= 1, "nobody asked for a token");
}

fn with(text: &str, real: &[(&str, String)]) -> String {
    real.iter().fold(text.to_owned(), |text, (page, real)| text.replace(page, real))
}

#[tokio::test]
async fn the_wheel_installs_and_works_as_the_page_says() {
    holds("PyPI", Place::Folder).await;
}

#[tokio::test]
async fn the_npm_packages_install_and_work_as_the_page_says() {
    holds("npm", Place::Folder).await;
}

/// pip chooses by tags: each of these systems must take the one wheel, and no other system may.
#[test]
fn the_wheel_is_for_glibc_and_musl_systems_and_for_no_other() {
    let folder = artifacts();
    let takes = |platform: &str| {
        let target = tempfile::tempdir().expect("a temporary folder");
        let mut pip = Command::new(place::tools().join("python"));
        pip.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]);
        pip.args(["--only-binary=:all:", "--platform", platform, "--find-links"]).arg(&folder);
        pip.args(["safeconduct", "--dest"]).arg(target.path()).output().expect("pip starts").status.success()
    };
    for platform in ["manylinux_2_17_x86_64", "manylinux2014_x86_64", "musllinux_1_1_x86_64"] {
        assert!(takes(platform), "{platform} does not take it");
    }
    for platform in ["macosx_11_0_arm64", "win_amd64", "manylinux_2_17_aarch64", "linux_i686"] {
        assert!(!takes(platform), "{platform} takes it");
    }
}

#[test]
fn the_wheels_module_is_the_adapter() {
    let wheel = artifact("safeconduct-", ".whl");
    let code = "import sys; sys.path.insert(0, sys.argv[1]); import safeconduct; \
                print(safeconduct.__file__.startswith(sys.argv[1]), safeconduct.SafeconductAuth('deploy').requires_request_body)";
    let mut python = Command::new(PathBuf::from(ROOT).join(PYTHON));
    let output = python.args(["-c", code]).arg(&wheel).output().expect("python starts");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "True False\n", "{told}");
}

/// The launcher becomes the program: signals reach it, its exit code is the caller's, and no other process stays.
#[test]
fn the_npm_command_becomes_the_program() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let mut npm = Command::new("npm");
    npm.args(["install", "--silent", "--no-audit", "--no-fund", "--offline"])
        .current_dir(work.path())
        .env("HOME", work.path());
    npm.arg(artifact("safeconduct-0", ".tgz")).arg(artifact("safeconduct-linux-", ".tgz"));
    assert!(npm.status().expect("npm starts").success(), "npm install");
    let command = work.path().join("node_modules/.bin/safeconduct");
    let code = |args: &[&str]| Command::new(&command).args(args).output().expect("it starts").status.code();
    assert_eq!((code(&["--version"]), code(&["token"])), (Some(0), Some(64)));

    let mut bridge = Command::new(&command);
    bridge.args(["stdio", "https://mcp.example.com/mcp"]).stdin(std::process::Stdio::piped());
    let running = Running(bridge.spawn().expect("it starts"));
    let program =
        work.path().join("node_modules/@safeconduct/linux-x64/safeconduct").canonicalize().expect("it exists");
    let is_program = || fs::read_link(format!("/proc/{}/exe", running.0.id())).is_ok_and(|path| path == program);
    let end = std::time::Instant::now() + crate::process::LIMIT;
    while !is_program() && std::time::Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(is_program(), "another program runs as process {}", running.0.id());
    drop(running);

    fs::remove_dir_all(work.path().join("node_modules/@safeconduct")).expect("it is ours");
    let output = Command::new(&command).arg("--version").output().expect("it starts");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(70) && told.contains("hint: install it"),
        "without the platform's package: {told}"
    );
}

/// Nobody else may write what a package of ours installs.
#[test]
fn the_artifacts_are_readable_for_all_and_writable_for_their_owner_alone() {
    for entry in fs::read_dir(artifacts()).expect("readable") {
        let path = entry.expect("readable").path();
        let mode = fs::metadata(&path).expect("readable").permissions().mode() & 0o777;
        assert!(matches!(mode, 0o644 | 0o755), "{}: {mode:o}", path.display());
    }
}
