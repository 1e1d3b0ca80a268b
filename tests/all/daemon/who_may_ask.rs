//! Which callers are served.

use super::*;

#[tokio::test]
async fn only_callers_that_the_policy_names_are_served() {
    let scene = Scene::new(binary()).await;
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    for (allow, served) in [
        (format!("[{{ uid = {uid} }}]"), true),
        (format!("[{{ gid = {gid} }}]"), true),
        (format!("[{{ uid = {} }}, {{ gid = {gid} }}]", uid + 1), true),
        (format!("[{{ uid = {uid}, gid = {} }}]", gid + 1), false),
        (format!("[{{ uid = {} }}]", uid + 1), false),
    ] {
        let daemon = scene.daemon(&format!("allow = {allow}")).await;
        let reply = daemon.get("/v1/token?server=demo").await;
        assert_eq!(reply.status == 200, served, "{allow}");
        let output = daemon.run(&["token", "demo"]).await;
        if !served {
            assert_eq!((reply.status, reply.json()["class"].as_str()), (403, Some("denied")));
            assert!(
                output.expect_code(DENIED).stderr.contains("safeconduct: hint: "),
                "a refusal is no reason to work here"
            );
            assert_eq!(daemon.post("/v1/revoke", &json!({"server": "demo"})).await.status, 403);
        }
        daemon.stop().await.expect_code(0);
    }
}

#[tokio::test]
async fn callers_have_their_own_ceilings_within_the_servers() {
    let scene = Scene::new(binary()).await;
    let uid = geteuid().as_raw();
    let allow = format!(
        "scopes = [\"demo:read\", \"demo:write\"]\nallow = [{{ uid = {uid}, scopes = [\"demo:read\"] }}, {{ uid = {} }}]",
        uid + 1
    );
    let daemon = scene.daemon(&allow).await;
    assert_eq!(daemon.get("/v1/token?server=demo").await.json()["scope"], "demo:read");
    let reply = daemon.get("/v1/token?server=demo&scope=demo:write").await;
    assert_eq!((reply.status, reply.json()["error"].as_str()), (403, Some("invalid_scope")));
    assert_eq!(scene.authorization_server.token_requests(), 1);
}

/// A command of another user. Only root can start it.
async fn as_somebody(binary: &Path, socket: &Path, args: &[&str]) -> std::process::Output {
    let mut command = std::process::Command::new(binary);
    command.args(args).env_clear().env("SAFECONDUCT_SOCKET", socket).current_dir("/");
    std::os::unix::process::CommandExt::gid(&mut command, SOMEBODY);
    std::os::unix::process::CommandExt::uid(&mut command, SOMEBODY);
    let output = tokio::process::Command::from(command).output();
    let output = tokio::time::timeout(LIMIT, output).await.expect("in time").expect("it runs");
    leak::check("stderr of another user's command", &String::from_utf8_lossy(&output.stderr));
    output
}

const SOMEBODY: u32 = 54_321;

/// As root this runs as another user. Without root it checks only that the kernel identifies us.
#[tokio::test]
async fn the_kernel_says_who_asks() {
    let scene = Scene::new(binary()).await;
    if !geteuid().is_root() {
        return only_callers_of(&scene).await;
    }
    let world = &scene.safeconduct;
    // The other user must be able to reach the binary and the socket, so that only the policy decides.
    set_mode(world.path(), 0o755);
    let others = tempfile::tempdir_in("/tmp").expect("/tmp is writable");
    set_mode(others.path(), 0o755);
    let copy = others.path().join("safeconduct");
    fs::copy(binary(), &copy).expect("copied");
    set_mode(&copy, 0o755);
    let listen = format!("[listen]\nsocket_mode = \"0660\"\nsocket_group = \"{SOMEBODY}\"");
    for (allow, code) in
        [(format!("allow = [{{ uid = {SOMEBODY} }}]"), 0), ("allow = [{ uid = 0 }]".to_owned(), DENIED)]
    {
        let daemon = scene.daemon(&format!("{allow}\n{listen}")).await;
        let ask = async |args: &[&str]| as_somebody(&copy, daemon.socket(), args).await;
        let output = ask(&["token", "demo", "--daemon-only"]).await;
        assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
        let own = daemon.run(&["token", "demo"]).await;
        assert_eq!(own.code, Some(if code == 0 { DENIED } else { 0 }), "root is not implied: {}", own.stderr);
        // A caller does not see servers that it may not use.
        let status = ask(&["status", "--json"]).await;
        assert_eq!(status.status.code(), Some(code));
        assert_eq!(String::from_utf8_lossy(&status.stdout).contains("demo"), code == 0);
        let ready = ask(&["ready", "demo", "--wait", "20s"]).await;
        assert_eq!(ready.status.code(), Some(code), "{}", String::from_utf8_lossy(&ready.stderr));
        daemon.stop().await.expect_code(0);
    }
    // Without the group the mode refuses them. The helper must not do the work in its own process instead.
    let daemon = scene.daemon(&format!("allow = [{{ uid = {SOMEBODY} }}]")).await;
    let output = as_somebody(&copy, daemon.socket(), &["token", &scene.mcp.url()]).await;
    assert_eq!(output.status.code(), Some(DENIED), "{}", String::from_utf8_lossy(&output.stderr));
}

async fn only_callers_of(scene: &Scene) {
    let daemon = scene.daemon("").await;
    daemon.token("demo").await;
    let callers = daemon.get("/v1/status").await.json()["servers"][0]["callers"].clone();
    assert_eq!(callers, json!([{"uid": geteuid().as_raw(), "served": 1}]));
}
