//! Where the daemon listens: the socket, its directory, its path in a CI job.

use super::*;

#[tokio::test]
async fn a_stale_socket_is_replaced() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("");
    let killed = world.daemon(&[]).await;
    killed.signal(Signal::SIGKILL);
    assert_eq!(killed.wait().await.code, None);
    assert!(world.socket().exists(), "a killed daemon leaves its socket");
    let daemon = world.daemon(&[]).await;
    daemon.token("demo").await;
    daemon.stop().await.expect_code(0);
    assert!(!world.socket().exists());
}

#[tokio::test]
async fn a_second_daemon_is_refused_and_the_first_is_not_disturbed() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("");
    let first = world.daemon(&[]).await;
    let output = fails(&world, &[]).await.expect_code(CONFIG);
    assert!(output.stderr.contains("another daemon already serves"), "{}", output.stderr);
    assert!(output.stderr.contains("safeconduct: hint: "), "{}", output.stderr);
    first.token("demo").await;
}

#[tokio::test]
async fn of_daemons_that_start_at_once_exactly_one_wins() {
    let scene = Scene::new(binary()).await;
    for round in 0..3 {
        let socket = scene.safeconduct.path().join(format!("{round}.sock"));
        let world = scene.configured("").env("SAFECONDUCT_SOCKET", &socket.display().to_string());
        let mut all: Vec<Running> = (0..4).map(|_| world.spawn(&["run"])).collect();
        until(LIMIT, "all but one have ended", async || {
            all.iter_mut().filter_map(|one| (!one.has_ended()).then_some(())).count() == 1
        })
        .await;
        until(LIMIT, "the one answers", async || answers(&socket).await).await;
        for one in &mut all {
            if one.has_ended() {
                let output = one.wait().await.expect_code(CONFIG);
                assert!(output.stderr.contains("another daemon already serves"), "{}", output.stderr);
            } else {
                one.signal(Signal::SIGTERM);
                one.wait().await.expect_code(0);
            }
        }
    }
}

#[tokio::test]
async fn an_explicit_path_must_lie_where_nobody_else_can_write() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("");
    let open = directory(&world, "open", 0o777);
    let sticky = directory(&world, "sticky", 0o1777);
    let group = directory(&world, "group", 0o775);
    let missing = world.path().join("missing");
    for place in [&open, &sticky, &group, &missing] {
        let socket = place.join("safeconduct.sock").display().to_string();
        let output = fails(&world, &["--socket", &socket]).await.expect_code(CONFIG);
        assert!(output.stderr.contains("safeconduct: hint: "), "{}: {}", place.display(), output.stderr);
        assert!(!Path::new(&socket).exists());
    }
    let readable = directory(&world, "readable", 0o755);
    let socket = readable.join("safeconduct.sock").display().to_string();
    world.daemon(&["--socket", &socket]).await.stop().await.expect_code(0);
    assert_eq!(mode(&readable), 0o755, "an explicit directory is used as it is");
}

#[tokio::test]
async fn a_file_at_the_path_that_is_not_a_socket_stays() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("");
    let precious = world.write("precious", "data");
    let link = world.path().join("link.sock");
    symlink(&precious, &link).expect("linked");
    for path in [&precious, &link] {
        fails(&world, &["--socket", &path.display().to_string()]).await.expect_code(CONFIG);
    }
    assert_eq!(fs::read_to_string(&precious).expect("still there"), "data");
    let long = world.path().join("x".repeat(120)).display().to_string();
    let output = fails(&world, &["--socket", &long]).await.expect_code(CONFIG);
    assert!(output.stderr.contains("shorter"), "{}", output.stderr);
}

#[tokio::test]
async fn a_group_may_be_let_in() {
    let scene = Scene::new(binary()).await;
    let group = getegid().as_raw();
    let listen = format!("[listen]\nsocket_mode = \"0660\"\nsocket_group = \"{group}\"");
    let daemon = scene.daemon(&listen).await;
    let found = fs::metadata(daemon.socket()).expect("it is there");
    assert_eq!((found.mode() & 0o777, found.gid()), (0o660, group));
}

// The path in a CI job.

#[tokio::test]
async fn in_a_job_the_place_is_the_jobs_own_and_its_end_is_the_daemons() {
    let scene = Scene::new(binary()).await;
    for variable in ["RUNNER_TEMP", "AGENT_TEMPDIRECTORY"] {
        let job = directory(&scene.safeconduct, variable, 0o1777);
        let world = scene.configured("").without_env("SAFECONDUCT_SOCKET").env(variable, &job.display().to_string());
        let mut running = world.spawn(&["run"]);
        let socket = job.join("safeconduct/safeconduct.sock");
        until(LIMIT, "it listens in the job's directory", async || answers(&socket).await).await;
        assert_eq!((mode(&job.join("safeconduct")), mode(&socket)), (0o700, 0o600));
        // A later step of the same job finds the daemon by the same variable.
        let helper =
            Safeconduct::new(binary()).without_env("SAFECONDUCT_SOCKET").env(variable, &job.display().to_string());
        helper.run(&["token", "demo", "--daemon-only"]).await.expect_code(0);

        fs::remove_dir_all(&job).expect("it is ours");
        let output = running.wait().await.expect_code(0);
        assert!(output.stderr.contains("the job has ended"), "{}", output.stderr);
    }
}

/// The next job on this machine creates the same directory, perhaps before the last job's daemon checks it.
#[tokio::test]
async fn a_daemon_of_the_last_job_leaves_the_place_of_the_next_alone() {
    let scene = Scene::new(binary()).await;
    let job = directory(&scene.safeconduct, "job", 0o700);
    let world = scene.configured("").without_env("SAFECONDUCT_SOCKET").env("RUNNER_TEMP", &job.display().to_string());
    let mut last = world.spawn(&["run"]);
    let socket = job.join("safeconduct/safeconduct.sock");
    until(LIMIT, "the last job's daemon listens", async || answers(&socket).await).await;
    fs::remove_dir_all(job.join("safeconduct")).expect("it is ours");
    let mut next = world.spawn(&["run"]);
    until(LIMIT, "the next job's daemon listens", async || answers(&socket).await).await;
    last.wait().await.expect_code(0);
    assert!(answers(&socket).await, "its end took the socket of the next away");
    next.signal(Signal::SIGTERM);
    next.wait().await.expect_code(0);
}

#[tokio::test]
async fn a_squatted_place_is_refused() {
    let scene = Scene::new(binary()).await;
    let elsewhere = directory(&scene.safeconduct, "elsewhere", 0o700);
    let job = directory(&scene.safeconduct, "job", 0o1777);
    symlink(&elsewhere, job.join("safeconduct")).expect("linked");
    let world = scene.configured("").without_env("SAFECONDUCT_SOCKET").env("RUNNER_TEMP", &job.display().to_string());
    let output = fails(&world, &[]).await.expect_code(CONFIG);
    assert!(output.stderr.contains("no directory"), "{}", output.stderr);
    assert_eq!(fs::read_dir(&elsewhere).expect("it is there").count(), 0, "nothing was put behind the link");
    fs::remove_file(job.join("safeconduct")).expect("removed");
    let wide = job.join("safeconduct");
    fs::create_dir(&wide).expect("made");
    set_mode(&wide, 0o777);
    let mut running = world.spawn(&["run"]);
    until(LIMIT, "it listens", async || answers(&wide.join("safeconduct.sock")).await).await;
    assert_eq!(mode(&wide), 0o700, "a directory of ours is made private");
    running.signal(Signal::SIGTERM);
    running.wait().await.expect_code(0);
}
