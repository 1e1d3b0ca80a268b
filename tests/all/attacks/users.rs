//! Other users of the machine, and files that they put at our paths.

use super::*;

#[tokio::test]
async fn no_spelling_of_a_url_gets_round_allow() {
    let world = World::new().await;
    let daemon = world.job("allow = [{ uid = 61234 }]").daemon(&[]).await;
    let url = world.mcp.url();
    let port = world.mcp.base().rsplit(':').next().expect("a port").to_owned();
    let spellings = [
        url.clone(),
        format!("{url}/"),
        format!("{url}//"),
        format!("{url}?a=b"),
        format!("{url}/below"),
        url.replace("http://", "HTTP://"),
        format!("http://127.1:{port}/mcp"),
        format!("http://0x7f000001:{port}/mcp"),
        format!("http://2130706433:{port}/mcp"),
        format!("http://127.0.0.1:0{port}/mcp"),
    ];
    for spelling in spellings {
        let query = url::form_urlencoded::byte_serialize(spelling.as_bytes()).collect::<String>();
        failed(&daemon.get(&format!("/v1/token?server={query}")).await, 403, "denied", "access_denied");
        let output = daemon.run(&["token", &spelling]).await;
        refused(output, 77, "is not allowed to use this server");
    }
    let base = world.mcp.base();
    let refused_at_sight = [
        format!("{base}/mcp/../mcp"),
        format!("{base}/./mcp"),
        format!("{base}/mcp/%2e%2e/mcp"),
        format!("{base}/mcp/.%2E/mcp"),
        format!("{base}\\mcp"),
        format!("http://somebody@127.0.0.1:{port}/mcp"),
        format!("http://:@127.0.0.1:{port}/mcp"),
        format!("{url}#fragment"),
        format!("http://127.0.0.1%3a{port}/mcp"),
        format!("http://１２７.0.0.1:{port}/mcp"),
        format!(" {url}"),
        format!("{url}\t"),
    ];
    for spelling in refused_at_sight {
        let query = url::form_urlencoded::byte_serialize(spelling.as_bytes()).collect::<String>();
        failed(&daemon.get(&format!("/v1/token?server={query}")).await, 400, "bad_request", "invalid_request");
        refused(daemon.run(&["token", &spelling]).await, 64, "");
    }
    let not_served =
        [format!("{base}/"), format!("{base}/mcpx"), format!("{base}/%6dcp"), format!("http://localhost:{port}/mcp")];
    for spelling in not_served {
        let query = url::form_urlencoded::byte_serialize(spelling.as_bytes()).collect::<String>();
        failed(&daemon.get(&format!("/v1/token?server={query}")).await, 403, "denied", "server_not_configured");
        refused(daemon.run(&["token", &spelling]).await, 77, "is not a configured server");
    }
    assert_eq!((world.platform.requests(), world.mcp.seen().len()), (0, 0), "policy comes before everything");
}

#[tokio::test]
async fn the_narrowest_server_decides_however_the_wider_one_is_spelled() {
    let world = World::new().await;
    let url = world.mcp.url();
    let toml = format!(
        "[egress]\ninsecure_loopback = true\n[servers.wide]\nurl = \"{url}////////////\"\n[servers.narrow]\nurl = \"{url}/admin\"\nallow = [{{ uid = 61234 }}]\n"
    );
    let daemon = Safeconduct::new(binary()).envs(world.platform.env()).config(&toml).daemon(&[]).await;
    failed(&daemon.get(&format!("/v1/token?server={url}/admin")).await, 403, "denied", "access_denied");
    failed(&daemon.get(&format!("/v1/token?server={url}/admin/x")).await, 403, "denied", "access_denied");
}

#[tokio::test]
async fn a_url_beside_a_configured_one_is_not_taken_for_unconfigured() {
    let world = World::new().await;
    let beside = format!("{}/elsewhere", world.mcp.base());
    let job = world.job("allow = [{ uid = 61234 }]");
    refused(job.run(&["token", &beside]).await, 77, "on the origin of the configured server");
    refused(job.run(&["token", &beside.replace("127.0.0.1", "127.1")]).await, 77, "on the origin");
    assert_eq!(world.platform.requests(), 0);
}

#[tokio::test]
async fn a_user_that_no_rule_names_gets_nothing() {
    let world = World::new().await;
    let daemon = world.job("allow = [{ uid = 61234 }]").daemon(&[]).await;
    let mine = nix::unistd::geteuid().as_raw();
    for path in ["/v1/token?server=demo", "/v1/headers?server=demo"] {
        let reply = daemon.get(path).await;
        failed(&reply, 403, "denied", "access_denied");
        assert!(reply.json()["hint"].as_str().is_some_and(|hint| hint.contains(&format!("uid = {mine}"))));
    }
    let digest = "0".repeat(64);
    let body = json!({"server": "demo", "access_token_sha256": digest});
    failed(&daemon.post("/v1/reject", &body).await, 403, "denied", "access_denied");
    failed(&daemon.post("/v1/revoke", &json!({"server": "demo"})).await, 403, "denied", "access_denied");
    // A readiness request of a caller who may not have the token must not fetch it.
    daemon.get("/readyz?server=demo").await;
    assert_eq!((world.platform.requests(), world.mcp.seen().len()), (0, 0));
}

/// A real second user of the machine. It needs root, as in CI.
#[tokio::test]
async fn a_foreign_user_is_told_no_by_the_kernels_word() {
    let Some(copy) = as_root_only() else { return };
    let world = World::new().await;
    for (rule, code, words) in [
        ("", 77, "is not allowed to use this server"),
        ("allow = [{ uid = 0 }]", 77, "is not allowed to use this server"),
        ("allow = [{ uid = 65534, gid = 0 }]", 77, "is not allowed to use this server"),
        ("allow = [{ uid = 65534 }]", 0, ""),
        ("allow = [{ gid = 65534 }]", 0, ""),
    ] {
        let listen = "[listen]\nsocket_mode = \"0660\"\nsocket_group = \"65534\"\n";
        let job = world.job_with(&format!("{}\n{rule}\n{listen}", world.pin()), "");
        open_to_all(job.path());
        let daemon = job.daemon(&[]).await;
        let output = as_user(STRANGER, &daemon.helper(), &copy, &["token", "demo", "--daemon-only"]).await;
        match code {
            0 => drop(accepted(output)),
            _ => {
                let stderr = refused(output, code, words);
                assert!(stderr.contains("uid = 65534"), "the hint names the rule that would help: {stderr}");
            }
        }
    }
    assert_eq!(world.authorization_server.token_requests(), 2);
}

/// Two callers of one server with different scope limits: neither gets the token of the other.
#[tokio::test]
async fn a_narrow_caller_never_gets_a_wide_callers_token() {
    let Some(copy) = as_root_only() else { return };
    let world = World::new().await;
    let toml = format!(
        "[egress]\ninsecure_loopback = true\n[listen]\nsocket_mode = \"0660\"\nsocket_group = \"65534\"\n[servers.demo]\nurl = \"{}\"\n{}\nallow = [{{ uid = 65534 }}, {{ uid = 0, scopes = [\"demo:read\"] }}]\n[servers.hidden]\nurl = \"https://hidden.example\"\n",
        world.mcp.url(),
        world.pin()
    );
    let job = Safeconduct::new(binary()).envs(world.platform.env()).config(&toml);
    open_to_all(job.path());
    let daemon = job.daemon(&[]).await;
    let args = ["token", "demo", "-o", "json"];
    let wide = as_user(STRANGER, &daemon.helper(), &copy, &args).await.expect_code(0).json();
    assert_eq!(wide["scope"], "demo:read demo:write");
    for path in ["/v1/token?server=demo", "/v1/token?server=demo&scope=demo:read+demo:write"] {
        let narrow = daemon.get(path).await.json();
        assert_eq!(narrow["scope"], "demo:read");
        assert_ne!(narrow["access_token"], wide["access_token"]);
    }
    // An authorization server that grants more scopes than requested changes nothing.
    world.authorization_server.always_token(TokenFault::ScopeGranted(Some(SCOPES.join(" "))));
    // A token that was made within the last second counts as fresh.
    let mut reply = daemon.get("/v1/token?server=demo&fresh=1").await;
    until(LIMIT, "a new token is asked for", async || {
        reply = daemon.get("/v1/token?server=demo&fresh=1").await;
        reply.status != 200
    })
    .await;
    failed(&reply, 403, "denied", "scope_beyond_ceiling");
    // A caller sees only the servers that it may use.
    let status = as_user(STRANGER, &daemon.helper(), &copy, &["status", "--json"]).await.expect_code(0);
    assert!(status.stdout.contains("\"demo\"") && !status.stdout.contains("hidden"), "{}", status.stdout);
    leak::check("the status that another user sees", &status.stdout);
}

/// The line without the numbers of processes, which differ each time.
fn without_pid(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let is_pid = |at: &usize| *at > 0 && words[at - 1] == "pid";
    (0..words.len()).filter(|at| !is_pid(at)).map(|at| words[at]).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn nobody_is_told_of_servers_scopes_and_callers_that_are_not_its_own() {
    let Some(copy) = as_root_only() else { return };
    let world = World::new().await;
    let toml = format!(
        "[egress]\ninsecure_loopback = true\n[listen]\nsocket_mode = \"0660\"\nsocket_group = \"65534\"\n[servers.demo]\nurl = \"{}\"\n{}\nallow = [{{ uid = 0 }}, {{ uid = 65534, scopes = [\"demo:read\"] }}]\n[servers.hidden]\nurl = \"https://hidden.example/mcp\"\n",
        world.mcp.url(),
        world.pin()
    );
    let job = Safeconduct::new(binary()).envs(world.platform.env()).config(&toml);
    open_to_all(job.path());
    let daemon = job.daemon(&[]).await;
    assert_eq!(daemon.get("/v1/token?server=demo").await.json()["scope"], "demo:read demo:write");
    let stranger = async |words: &[&str]| as_user(STRANGER, &daemon.helper(), &copy, words).await;
    // What is configured for others and what is not configured at all get the same answer, by name and by URL.
    for (hidden, unknown) in [("hidden", "nosuch"), ("https://hidden.example/mcp", "https://nosuch.example/mcp")] {
        for words in [&["token", "", "--daemon-only"][..], &["headers", "", "--daemon-only"], &["revoke", ""]] {
            let ask = async |target| {
                let words: Vec<&str> = words.iter().map(|word| if word.is_empty() { target } else { *word }).collect();
                let told = refused(stranger(&words).await, 77, "is not allowed to use this server");
                assert!(told.contains("configured: demo"), "{told}");
                told.lines().map(without_pid).collect::<Vec<_>>()
            };
            let (of_hidden, of_unknown) = (ask(hidden).await, ask(unknown).await);
            assert_eq!(of_hidden, of_unknown, "{words:?}");
            assert!(!of_hidden.concat().contains("hidden"), "{of_hidden:?}");
        }
    }
    let status = stranger(&["status", "--json"]).await.expect_code(0).json();
    let servers = status["servers"].as_array().expect("a list");
    assert_eq!((servers.len(), &servers[0]["name"]), (1, &json!("demo")));
    assert_eq!((&servers[0]["tokens"], &servers[0]["callers"]), (&json!([]), &json!([])), "both are root's");
    accepted(stranger(&["token", "demo"]).await);
    let status = stranger(&["status", "--json"]).await.expect_code(0).json();
    let tokens = status["servers"][0]["tokens"].as_array().expect("a list").clone();
    assert_eq!((tokens.len(), &tokens[0]["scope"]), (1, &json!("demo:read")));
    let own = daemon.get("/v1/status").await.json();
    let demo = own["servers"].as_array().expect("a list").iter().find(|one| one["name"] == "demo").expect("there");
    assert_eq!((demo["tokens"].as_array().map(Vec::len), demo["callers"].as_array().map(Vec::len)), (Some(2), Some(2)));
    let all = daemon.get("/metrics").await.body;
    assert!(all.contains("server=\"hidden\""), "the daemon's own user sees all: {all}");
}

#[tokio::test]
async fn a_user_without_a_name_a_home_or_a_readable_file_is_told_what_is_missing() {
    let Some(copy) = as_root_only() else { return };
    let world = World::new().await;
    let job = Safeconduct::new(binary()).envs(world.platform.env()).without_env("HOME").without_env("TMPDIR");
    open_to_all(job.path());
    let url = world.mcp.url();
    let args = ["token", &url, "--no-daemon", "--insecure-loopback", "--timeout", "20s"];
    accepted(as_user(VICTIM, &job, &copy, &args).await);
    let file = job.private("subject.jwt");
    std::fs::write(&file, world.platform.mint(&world.authorization_server.issuer(), Duration::from_secs(300)))
        .expect("ours");
    let file = file.display().to_string();
    let stderr = refused(
        as_user(VICTIM, &job, &copy, &[&args[..], &["--identity-file", &file]].concat()).await,
        69,
        "ermission denied",
    );
    assert!(stderr.contains("let uid 61234 read it"), "{stderr}");
    // A configuration file controls what we do, so a file of another user is refused.
    let config = job.path().join("theirs.toml");
    std::fs::write(&config, "").expect("ours");
    std::os::unix::fs::chown(&config, Some(STRANGER), None).expect("we are root");
    let config = config.display().to_string();
    refused(job.run(&["config", "check", "--config", &config]).await, 78, "belongs to uid 65534");
}

#[tokio::test]
async fn a_socket_that_may_not_be_used_is_a_refusal_and_not_an_absent_daemon() {
    let Some(copy) = as_root_only() else { return };
    let world = World::new().await;
    let job = world.job(&world.pin());
    open_to_all(job.path());
    let daemon = job.daemon(&[]).await;
    let output = as_user(STRANGER, &daemon.helper(), &copy, &["token", &world.mcp.url(), "--insecure-loopback"]).await;
    refused(output, 77, "ermission denied");
    assert_eq!(world.platform.requests(), 0);
}

/// A daemon of another user listens at the path where a helper looks by default.
#[tokio::test]
async fn a_squatted_compiled_in_place_is_not_trusted() {
    let Some(copy) = as_root_only() else { return };
    let world = World::new().await;
    let place = PathBuf::from(format!("/tmp/safeconduct-{VICTIM}"));
    let _gone = Gone(place.clone());
    let _ = std::fs::remove_dir_all(&place);
    std::fs::create_dir(&place).expect("nobody has this uid");
    std::os::unix::fs::chown(&place, Some(STRANGER), Some(STRANGER)).expect("we are root");
    std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o755)).expect("we are root");
    let socket = place.join("safeconduct.sock");

    let safeconduct =
        Safeconduct::new(binary()).env("SAFECONDUCT_SOCKET", &socket.display().to_string()).envs(world.platform.env());
    open_to_all(safeconduct.path());
    let mut squatter = command_as(STRANGER, &safeconduct, &copy, &["run", "--identity-file", "/nonexistent"]);
    let squatter = squatter.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut squatter = squatter.spawn().expect("it starts");
    let there = async {
        while UnixStream::connect(&socket).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LIMIT, there).await.expect("the squatter listens");
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666)).expect("we are root");

    let victim = safeconduct.clone().without_env("SAFECONDUCT_SOCKET");
    let args = ["token", &world.mcp.url(), "--insecure-loopback"];
    // Nobody of ours listens in a directory of another user, so it is not dialled: the victim does the work itself.
    let output = as_user(VICTIM, &victim, &copy, &args).await;
    assert!(!output.stderr.contains("uid 65534"), "{}", output.stderr);
    let done = world.platform.requests();
    assert!(done > 0, "{}", output.stderr);
    let doctor = as_user(VICTIM, &victim, &copy, &["doctor", "--json"]).await;
    assert!(doctor.stdout.contains("directory belongs to another user"), "{}", doctor.stdout);
    // One that waits for ever in the backlog keeps nobody waiting either, unless it is named.
    let named = safeconduct.env("SAFECONDUCT_SOCKET", &socket.display().to_string());
    let output = as_user(VICTIM, &named, &copy, &["token", "demo"]).await;
    refused(output, 77, "is not allowed to use this server");
    assert_eq!(world.platform.requests(), done, "a named socket is the only one");
    squatter.kill().await.expect("it is ours");
}

#[tokio::test]
async fn a_file_at_the_socket_path_is_not_overwritten() {
    let world = World::new().await;
    let job = world.job(&world.pin());
    let (file, link) = (job.write("precious", "precious"), job.path().join("link"));
    std::os::unix::fs::symlink(&file, &link).expect("ours");
    let dangling = job.path().join("dangling");
    std::os::unix::fs::symlink(job.path().join("target"), &dangling).expect("ours");
    for place in [&file, &link, &dangling] {
        let place = place.display().to_string();
        let stderr = refused(job.run(&["run", "--socket", &place]).await, 78, "something else than a socket");
        assert!(stderr.contains("hint: "), "{stderr}");
    }
    assert_eq!(std::fs::read_to_string(&file).expect("still there"), "precious");
    assert!(!job.path().join("target").exists());
    // A link at the lock's path must not make us truncate a file.
    let socket = job.path().join("other.sock");
    std::os::unix::fs::symlink(&file, job.path().join("other.sock.lock")).expect("ours");
    refused(job.run(&["run", "--socket", &socket.display().to_string()]).await, 78, "other.sock.lock");
    assert_eq!(std::fs::read_to_string(&file).expect("still there"), "precious");
}

#[tokio::test]
async fn a_squatted_job_directory_is_refused() {
    let world = World::new().await;
    let job = world.job(&world.pin()).without_env("SAFECONDUCT_SOCKET");
    let temp = job.path().join("tmp");
    let elsewhere = job.path().join("home");
    std::os::unix::fs::symlink(&elsewhere, temp.join("safeconduct")).expect("ours");
    let job = job.env("RUNNER_TEMP", &temp.display().to_string());
    refused(job.run(&["run"]).await, 78, "is there and no directory");
    assert_eq!(std::fs::read_dir(&elsewhere).expect("ours").count(), 0, "nothing was put where the link points");
}

#[tokio::test]
async fn a_relative_home_lets_no_directory_configure_us() {
    let world = Safeconduct::new(binary());
    let checkout = tempfile::tempdir().expect("a directory");
    let planted = checkout.path().join(".config/safeconduct");
    std::fs::create_dir_all(&planted).expect("ours");
    std::fs::write(planted.join("safeconduct.toml"), "planted = 1\n").expect("ours");
    let mut command = world.command(&["config", "check"]);
    command.current_dir(checkout.path()).env("HOME", ".");
    let output = tokio::time::timeout(LIMIT, command.output()).await.expect("bounded").expect("it starts");
    let words = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && !words.contains("planted") && !words.contains(".config"), "{words}");
}
