//! The example of a production daemon.

use super::*;

#[tokio::test]
async fn a_daemon_in_production() {
    let scene = Scene::new(binary()).await;
    let place = scene.safeconduct.path().display().to_string();
    let example = Example::new(&scene, "production-daemon", LOGIN)
        .with("/run/safeconduct/safeconduct.sock", &scene.safeconduct.socket().display().to_string())
        .with("/var/log/safeconduct", &place)
        .with("127.0.0.1:9464", "127.0.0.1:0")
        .with("\"2000\"", &quoted(&getegid().to_string()))
        .with("linger = \"10s\"", "linger = \"0s\"");
    // In this test no caller is the agent.
    let stranger = example.world().daemon(&[]).await;
    let reply = stranger.get("/v1/token?server=demo").await;
    assert_eq!((reply.status, &reply.json()["class"]), (403, &json!("denied")), "{}", reply.body);
    assert!(reply.json()["hint"].as_str().is_some_and(|hint| hint.contains("`exe` is another than")), "{}", reply.body);
    stranger.stop().await;
    let own = std::env::current_exe().expect("it runs").display().to_string();
    let daemon = example.with("/usr/bin/deploy-agent", &own).world().daemon(&[]).await;
    daemon.token("demo").await;
    let record = fs::read_to_string(format!("{place}/audit.jsonl")).expect("it is there");
    let outcomes: Vec<Value> = record.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(outcomes.len() >= 2, "the refusal and the token: {record}");
}
