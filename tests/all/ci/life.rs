//! The daemon in the background: it renews, it outlives its step, and it ends with the job.

use super::*;

#[tokio::test]
async fn tokens_are_renewed_whoever_asks_or_nobody() {
    let job = Job::new().await;
    job.scene.authorization_server.set_token_life(Duration::from_secs(6));
    let good = job.ci(&[&job.demo(), "--json"]).await.expect_code(0);
    let daemon = Daemon::of(&good);
    let first = job.outputs()["token_demo"].clone();
    let mints = job.scene.authorization_server.token_requests();
    until(LIMIT, "nobody asks and it is renewed twice", async || {
        job.scene.authorization_server.token_requests() >= mints + 2
    })
    .await;
    let helper = job.world.run(&["token", "demo", "--daemon-only", "--no-mask"]).await.expect_code(0);
    assert_ne!(helper.stdout.trim_end(), first);
    // Renewed once more, the one before still lives, and whoever got it may have it still.
    job.scene.authorization_server.set_token_life(Duration::from_secs(3_600));
    let long = until_another(&job, helper.stdout.trim_end()).await;
    let fresh = job.world.run(&["token", "demo", "--fresh", "--no-mask"]).await.expect_code(0).stdout;
    assert_ne!(fresh.trim_end(), long);
    daemon.end().await;
    let server = &job.scene.authorization_server;
    assert!(server.is_revoked(&long) && server.is_revoked(fresh.trim_end()), "what lives is revoked");
    assert!(job.is_clean());
}

/// The token that takes the place of this one.
async fn until_another(job: &Job, before: &str) -> String {
    let mut token = before.to_owned();
    until(LIMIT, "it is renewed", async || {
        let helper = job.world.run(&["token", "demo", "--daemon-only", "--no-mask"]).await.expect_code(0);
        token = helper.stdout.trim_end().to_owned();
        // That of an hour, minted more than a second ago.
        token != before && job.scene.authorization_server.issued().last().is_some_and(|(from, to)| to - from > 1_000.0)
    })
    .await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    token
}

#[tokio::test]
async fn a_step_that_is_cancelled_or_killed_leaves_no_daemon() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
        let job = Job::new().await;
        let sluice = job.scene.sluice().await;
        sluice.shut();
        let running = job.world.spawn(&["ci", "--insecure-loopback", &job.demo()]);
        sluice.holds(1).await;
        let log = job.temp.join("safeconduct/1/daemon.log");
        until(LIMIT, "the daemon is there", async || log.exists()).await;
        running.signal(signal);
        until(LIMIT, "nothing is left of it", async || job.is_clean()).await;
        assert!(job.output().is_empty());
        sluice.open();
    }
}

#[tokio::test]
async fn it_ends_and_revokes_when_the_runner_removes_the_jobs_directory() {
    let job = Job::new().await;
    let good = job.ci(&[&job.demo(), "--json"]).await.expect_code(0);
    let (daemon, token) = (Daemon::of(&good), job.outputs()["token_demo"].clone());
    assert!(daemon.lives(), "it outlives its step");
    fs::remove_dir_all(&job.temp).expect("the runner's");
    until(LIMIT, "it has ended", async || !daemon.lives()).await;
    assert!(job.scene.authorization_server.is_revoked(&token));
}

#[tokio::test]
async fn it_ends_with_what_the_runner_removes_at_the_end_of_the_job_and_after_its_longest_time() {
    let job = Job::new().await;
    let jwt = job.scene.platform.mint(&job.scene.authorization_server.issuer(), Duration::from_secs(300));
    let identity = job.world.private("identity.jwt");
    fs::write(&identity, &jwt).expect("ours");
    fs::set_permissions(&identity, fs::Permissions::from_mode(0o600)).expect("ours");
    let identity = identity.display().to_string();
    let plain = Safeconduct::new(binary()).without_env("SAFECONDUCT_SOCKET").env("CI", "true");
    let api = plain.private("job-api");
    let buildkite = plain
        .clone()
        .env("BUILDKITE", "true")
        .env("BUILDKITE_JOB_ID", "a1")
        .env("BUILDKITE_AGENT_JOB_API_SOCKET", &api.display().to_string());
    let gitlab = plain.clone().env("GITLAB_CI", "true").env("CI_JOB_ID", "7").env("CI_JOB_TIMEOUT", "2");
    for world in [gitlab, buildkite] {
        let demo = job.demo();
        let words = ["ci", "--json", "--insecure-loopback", "--identity-file", &identity, &demo];
        let jwt = job.scene.platform.mint(&job.scene.authorization_server.issuer(), Duration::from_secs(300));
        fs::write(&identity, &jwt).expect("ours");
        fs::write(&api, "").expect("ours");
        let daemon = Daemon::of(&world.run(&words).await.expect_code(0));
        fs::remove_file(&api).expect("it is there");
        until(LIMIT, "it has ended", async || !daemon.lives()).await;
    }
}

/// Killed daemons cannot clean up: their tokens lie in files, and the next job on the machine may be of the same user.
#[tokio::test]
async fn what_a_killed_daemon_of_another_job_has_left_is_removed_by_the_next_step() {
    let job = Job::new().await;
    let temp = directory(&job.world.private("scratch"));
    let plain = Safeconduct::new(binary()).without_env("SAFECONDUCT_SOCKET").env("CI", "true").env("GITLAB_CI", "true");
    let plain = plain.env("TMPDIR", &temp.display().to_string());
    let identity = job.world.private("identity.jwt").display().to_string();
    let begin = async |id: &str| {
        let jwt = job.scene.platform.mint(&job.scene.authorization_server.issuer(), Duration::from_secs(300));
        fs::write(&identity, &jwt).expect("ours");
        fs::set_permissions(&identity, fs::Permissions::from_mode(0o600)).expect("ours");
        let words = ["ci", "--json", "--insecure-loopback", "--identity-file", &identity, &job.demo()];
        Daemon::of(&plain.clone().env("CI_JOB_ID", id).run(&words).await.expect_code(0))
    };
    let present = || {
        let entries = fs::read_dir(&temp).expect("ours").map(|entry| entry.expect("ours").file_name());
        let jobs = entries.filter_map(|name| Some(name.to_str()?.split_once("-job-")?.1.to_owned()));
        jobs.collect::<std::collections::BTreeSet<String>>()
    };
    let (killed, living) = (begin("7").await, begin("8").await);
    kill(killed.0, Signal::SIGKILL).expect("it lives");
    until(LIMIT, "it is dead", async || !killed.lives()).await;
    assert_eq!(present(), ["7", "8"].map(str::to_owned).into(), "nobody could clean up");
    let next = begin("9").await;
    assert_eq!(present(), ["8", "9"].map(str::to_owned).into());
    assert!(living.lives() && next.lives());
    living.end().await;
    next.end().await;
}

#[tokio::test]
async fn who_asks_after_the_daemon_of_the_job_was_killed_is_told_so() {
    let job = Job::new().await;
    let daemon = Daemon::of(&job.ci(&[&job.demo(), "--json"]).await.expect_code(0));
    kill(daemon.0, Signal::SIGKILL).expect("it lives");
    until(LIMIT, "it is dead", async || !daemon.lives()).await;
    let output = job.world.run(&["token", "demo"]).await;
    assert!(!output.succeeded() && output.stderr.contains("run `safeconduct ci` again"), "{}", output.stderr);
}
