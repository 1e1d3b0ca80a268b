//! A whole release, tried in fresh Debian systems: `docs/install.md` section by section, an upgrade while a daemon is in use, and what a
//! scanner reads out of the released file. `SAFECONDUCT_ARTIFACTS` names the folder that `packaging/release/make` filled.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::packages::{Place, Section, artifact, artifacts, holds, prints};
use crate::process::ROOT;

#[tokio::test]
async fn the_wheel_works_in_a_fresh_system() {
    holds("PyPI", Place::Machine).await;
}

#[tokio::test]
async fn the_npm_packages_work_in_a_fresh_system() {
    holds("npm", Place::Machine).await;
}

#[tokio::test]
async fn the_debian_package_installs_upgrades_and_leaves_nothing() {
    holds("Debian", Place::Machine).await;
}

/// Another daemon serves after the upgrade, and no call fails while one ends and the other starts.
const UPGRADE: &str = r"
$ apt-get install --yes ./safeconduct_0.1.0-1_amd64.deb
...
$ install -m 640 -g safeconduct safeconduct.toml identity.jwt /etc/safeconduct/
$ systemctl enable --now --quiet safeconduct
$ systemctl show --value --property MainPID safeconduct >before
$ (while [ ! -e upgraded ]; do safeconduct token deploy || echo failed; done >calls 2>&1) & apt-get install --yes --reinstall ./safeconduct_0.1.0-1_amd64.deb; safeconduct token deploy; touch upgraded; wait
...
eyJ[..]
$ cut -c 1-3 calls | sort -u
eyJ
$ test $(wc -l <calls) -gt 20 || wc -l calls
$ systemctl show --value --property MainPID safeconduct | diff --brief - before || true
Files - and before differ
$ systemctl is-enabled safeconduct.socket safeconduct.service
enabled
enabled
$ apt-get remove --yes safeconduct
...
$ systemctl is-active safeconduct.socket safeconduct.service || true
inactive
inactive
$ ls /etc/safeconduct
identity.jwt
safeconduct.toml
";

#[tokio::test]
async fn an_upgrade_of_the_debian_package_fails_no_call() {
    let section = Section::of_page("Debian").with_steps(UPGRADE.trim_start());
    prints(&section, Place::Machine).await;
}

#[tokio::test]
async fn the_container_image_runs_as_its_own_user_without_an_engine() {
    holds("Container image", Place::Folder).await;
}

#[tokio::test]
async fn the_program_alone_works_in_a_fresh_system() {
    holds("The program alone", Place::Machine).await;
}

/// The list of crates is in the file, in the form that scanners of others read.
#[test]
fn scanners_find_the_crates_in_the_released_file() {
    let tools =
        Command::new(Path::new(ROOT).join("packaging/release/tools")).arg("reader").output().expect("it starts");
    let tools = String::from_utf8(tools.stdout).expect("a path");
    let mut reader = Command::new(Path::new(tools.trim()).join("bin/rust-audit-info"));
    let output = reader.arg(artifact("safeconduct-", "-linux")).output().expect("packaging/release/tools installs it");
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).expect("what the section holds");
    let packages = found["packages"].as_array().expect("a list");
    let named =
        |name: &str| packages.iter().find(|one| one["name"] == name).unwrap_or_else(|| panic!("{name} is not listed"));
    assert_eq!(named("safeconduct")["root"], true);
    // What is in the file itself has no `kind`.
    assert_eq!((named("rustls").get("kind"), &named("serde_derive")["kind"]), (None, &"build".into()));
    let bill: serde_json::Value =
        serde_json::from_slice(&fs::read(artifact("safeconduct-", ".cdx.json")).expect("readable")).expect("JSON");
    let crates = bill["components"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|one| one["purl"].as_str().is_some_and(|purl| purl.starts_with("pkg:cargo/")));
    assert_eq!(crates.count() + 1, packages.len(), "the bill of materials lists the same crates, and the program");
}

/// The page about verification says how to compare checksums, and that every package contains the same file.
#[test]
fn the_commands_of_the_page_about_verification_hold() {
    let page = fs::read_to_string(Path::new(ROOT).join("docs/verify.md")).expect("the page exists");
    let run = |title: &str| {
        let section = page.split("\n## ").find(|section| section.starts_with(title)).expect("a section of the page");
        let commands = section.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a block");
        let output = Command::new("bash").args(["-ec", commands]).current_dir(artifacts()).output().expect("it starts");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && told.is_empty(), "{title}: {told}");
        String::from_utf8(output.stdout).expect("text")
    };
    assert!(run("Checksums").lines().count() > 8, "all files are checked");
    let bill = run("Bill of materials");
    let sums: Vec<_> = bill.split_whitespace().collect();
    assert!(sums.len() == 3 && sums[0] == sums[1], "{bill}");
    assert_eq!(run("The same file in every package"), "wheel\nnpm\ndeb\n");
}
