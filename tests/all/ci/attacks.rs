//! Attacks on outputs, masks, summaries and the job's directory.

use super::*;
use std::os::unix::fs::symlink;

#[tokio::test]
async fn an_output_file_that_is_a_link_or_no_plain_file_is_refused() {
    let job = Job::new().await;
    let victim = job.world.private("victim");
    fs::write(&victim, "untouched").expect("ours");
    let link = job.world.private("link");
    symlink(&victim, &link).expect("linked");
    let second = job.world.private("second");
    fs::hard_link(&victim, &second).expect("linked");
    let pipe = job.world.private("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("made");
    for variable in ["GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"] {
        for bad in [&link, &second, &pipe, &job.temp, &PathBuf::from("/dev/null")] {
            let world = job.world.clone().env(variable, &bad.display().to_string());
            let output = world.run(&["ci", &job.demo(), "--insecure-loopback"]).await.expect_code(CONFIG);
            assert!(output.stderr.contains(variable), "{}", output.stderr);
            assert!(job.is_clean() && job.scene.platform.requests() == 0, "nothing has begun");
        }
    }
    assert_eq!(fs::read_to_string(&victim).expect("there"), "untouched");
    let world = job.world.clone().without_env("GITHUB_OUTPUT");
    world.run(&["ci", &job.demo(), "--insecure-loopback"]).await.expect_code(CONFIG);
}

#[tokio::test]
async fn an_output_file_of_another_user_is_written() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let job = Job::new().await;
    let file = job.world.private("output");
    fs::write(&file, "earlier=1").expect("ours");
    std::os::unix::fs::chown(&file, Some(4711), Some(4711)).expect("we are root");
    let good = job.ci(&[&job.demo(), "--json"]).await.expect_code(0);
    let outputs = job.outputs();
    assert_eq!(outputs["earlier"], "1", "a line that was not ended stays a line of its own");
    assert!(outputs.contains_key("token_demo"));
    assert_eq!(fs::metadata(&file).expect("there").uid(), 4711);
    Daemon::of(&good).end().await;
}

#[tokio::test]
async fn delimiters_are_random_and_no_word_of_another_is_a_key_a_command_or_markup() {
    let job = Job::new().await;
    let hostile = "demo:read ::set-output%0A##vso[task.setvariable]x ](https://evil.example) <img/src=x> `a`";
    let scope = support::authorization_server::TokenFault::ScopeGranted(Some(hostile.to_owned()));
    job.scene.authorization_server.script_token([scope.clone(), scope]);
    let mut delimiters = std::collections::BTreeSet::new();
    for _ in 0..2 {
        let _ = fs::remove_file(job.world.private("output"));
        let ran = job.ci(&[&job.demo(), "--json"]).await.expect_code(0);
        let daemon = Daemon::of(&ran);
        let text = job.output();
        delimiters.extend(text.lines().filter_map(|line| line.split_once("<<")).map(|(_, end)| end.to_owned()));
        assert_eq!(job.outputs().len(), 3, "{text}");
        let people = ran.stderr_for_people();
        assert!(people.lines().all(|line| !line.starts_with("::")) && !people.contains("##vso"), "{people}");
        assert!(ran.stdout.lines().count() == 1 && !ran.stdout.contains("##vso"), "{}", ran.stdout);
        daemon.end().await;
    }
    assert_eq!(delimiters.len(), 2, "one for each step: {delimiters:?}");
    assert!(delimiters.iter().all(|one| one.len() >= 32));
    let summary = job.summary();
    assert!(!summary.contains("](") && !summary.contains("<img") && summary.contains("&#60;img&#47;src"), "{summary}");
}

#[tokio::test]
async fn the_next_job_on_the_machine_finds_nothing() {
    let job = Job::new().await;
    let good = job.ci(&[&job.demo(), "--json"]).await.expect_code(0);
    let _daemon = Daemon::of(&good);
    let next = Safeconduct::new(binary()).without_env("SAFECONDUCT_SOCKET");
    let temp = directory(&next.path().join("runner"));
    let next = next.env("RUNNER_TEMP", temp.to_str().expect("plain"));
    let output = next.run(&["token", "demo", "--daemon-only"]).await.expect_code(TEMPORARY);
    assert!(output.stderr.contains("no daemon is running"), "{}", output.stderr);
}

#[tokio::test]
async fn a_squatted_directory_of_the_job_is_passed_by_or_refused() {
    let job = Job::new().await;
    let elsewhere = directory(&job.scene.safeconduct.path().join("elsewhere"));
    symlink(&elsewhere, job.temp.join("safeconduct")).expect("linked");
    let good = job.ci(&[&job.demo(), "--json"]).await.expect_code(0);
    let socket = good.json()["socket"].as_str().expect("a path").to_owned();
    assert!(socket.contains("/safeconduct-uid-"), "{socket}");
    assert_eq!(fs::read_dir(&elsewhere).expect("ours").count(), 0, "nothing was put behind the link");
    Daemon::of(&good).end().await;
    symlink(&elsewhere, job.temp.join(format!("safeconduct-uid-{}", nix::unistd::geteuid()))).expect("linked");
    let output = job.ci(&[&job.demo()]).await.expect_code(CONFIG);
    assert!(output.stderr.contains("no directory"), "{}", output.stderr);
}
