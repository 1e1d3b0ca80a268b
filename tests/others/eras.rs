//! Official clients of the wire until 2025-11-25, over `safeconduct stdio`, before a server of the official TypeScript SDK that speaks
//! 2026-07-28 alone.

use serde_json::{Value, json};

use crate::peer::Peer;
use crate::process::{LIMIT, NODE, PYTHON, ROOT, SAFECONDUCT};
use crate::proxy::World;

const EVERYTHING: [&str; 3] = ["roots", "sampling", "elicitation"];

/// A client behind the bridge, the token check and the server.
struct Scene {
    client: Peer,
    server: Peer,
    world: World,
}

impl Scene {
    async fn new(is_python: bool) -> Self {
        let mut server = Peer::start(NODE, &["tests/others/modern-server.mjs"], &[]);
        let url = server.hear("url").as_str().expect("a URL").to_owned();
        let world = World::before(&url).await;
        let socket = world.daemon.socket().display().to_string();
        let bridge = [SAFECONDUCT, "--socket", &socket, "stdio", "target"];
        let client = match is_python {
            false => Peer::start(NODE, &[&["tests/others/stdio-client.mjs"], &bridge[..]].concat(), &[]),
            true => {
                let older = [("PYTHONPATH", format!("{ROOT}/target/others/python-sdk-1"))];
                Peer::start(PYTHON, &[&["tests/others/stdio_client.py"], &bridge[..]].concat(), &older)
            }
        };
        Self { client, server, world }
    }

    /// One step of the client: what came of it, or how it failed.
    fn step(&mut self, step: Value) -> Result<Value, Value> {
        match self.client.ask(&step, &["done", "failed"]) {
            (which, value) if which == "done" => Ok(value),
            (_, value) => Err(value),
        }
    }

    fn done(&mut self, step: Value) -> Value {
        self.step(step.clone()).unwrap_or_else(|failed| panic!("{step}: {failed}"))
    }

    /// Something happens at the server.
    fn happens(&mut self, what: Value) {
        self.server.ask(&what, &["done"]);
    }

    /// The notifications of the client so far, when there are so many.
    async fn told(&mut self, count: usize) -> Vec<Value> {
        let client = std::cell::RefCell::new(&mut self.client);
        support::wait::until(LIMIT, "the notifications", async || client.borrow_mut().heard("told").len() >= count)
            .await;
        let told = self.client.heard("told");
        self.client.forget();
        told
    }

    fn seen(&mut self, method: &str) -> Vec<Value> {
        self.happens(json!({}));
        self.server.heard("seen").into_iter().filter(|seen| seen["rpc"] == method).collect()
    }

    async fn end(self) {
        self.client.end();
        self.world.end([]).await;
        self.server.end();
    }
}

async fn converse(is_python: bool) {
    let mut scene = Scene::new(is_python).await;
    let hello = scene.done(json!({ "connect": EVERYTHING }));
    assert_eq!(hello["server"]["name"], "modern");
    assert_eq!(hello["capabilities"]["resources"], json!({"subscribe": true, "listChanged": true}));
    assert_eq!(scene.done(json!({"list": "tools"})), json!(["ask", "twice", "page", "log", "fields", "progress"]));
    let said = scene.done(json!({"call": {"name": "ask"}}));
    let said: Value = serde_json::from_str(said.as_str().expect("a text")).expect("JSON");
    assert_eq!(said["state"], "\u{e4}/\"\u{1}");
    assert_eq!(said["answers"]["form"], json!({"action": "accept", "content": {"sure": true}}));
    assert_eq!(said["answers"]["why"]["content"]["text"], "because");
    assert_eq!(said["answers"]["where"]["roots"][0]["uri"], "file:///work");
    let asked: Vec<Value> = scene.client.heard("asked").iter().map(|asked| asked["method"].clone()).collect();
    assert_eq!(asked, ["elicitation/create", "sampling/createMessage", "roots/list"]);
    assert_eq!(scene.done(json!({"call": {"name": "twice"}})), "roots");
    let page = scene.step(json!({"call": {"name": "page"}})).expect_err("nobody can be asked to open a page");
    assert_eq!((&page["code"], &page["data"]["error"]), (&json!(-31080), &json!("input_not_possible")));
    for seen in scene.seen("tools/call") {
        let declared: Vec<&String> = seen["capabilities"].as_object().expect("they are declared").keys().collect();
        assert_eq!(declared, ["elicitation", "roots", "sampling"], "exactly what the client declared");
    }
    let given = json!({"region": "d\u{fc}sseldorf", "to": {"dry": false}});
    let fields = scene.done(json!({"call": {"name": "fields", "arguments": given}}));
    assert_eq!(serde_json::from_str::<Value>(fields.as_str().expect("a text")).expect("JSON"), given);
    assert_eq!(scene.done(json!({"progress": {"name": "progress"}})), 2);
    assert_eq!(scene.done(json!({"prompt": "greet"})), "hello");
    assert_eq!(scene.done(json!({"read": "memo:///1"})), "remember");
    for step in [json!({"ping": true}), json!({"rooted": true})] {
        scene.done(step);
    }
    follows(&mut scene).await;
    let faults = scene.server.heard("fault");
    let refused = |fault: &&Value| !fault.as_str().is_some_and(|fault| fault.contains("2025-era"));
    assert_eq!(faults.iter().filter(refused).count(), 0, "only `initialize` is refused: {faults:?}");
    scene.end().await;
}

/// What the server sends by itself.
async fn follows(scene: &mut Scene) {
    scene.client.forget();
    assert_eq!(scene.done(json!({"call": {"name": "log"}})), "logged");
    scene.done(json!({"level": "warning"}));
    assert_eq!(scene.done(json!({"call": {"name": "log"}})), "logged");
    let told = scene.told(1).await;
    assert_eq!((told.len(), &told[0]["params"]["data"]), (1, &json!("loud")), "{told:?}");
    scene.done(json!({"subscribe": "memo:///1"}));
    scene.happens(json!({"changed": "tools"}));
    scene.happens(json!({"updated": "memo:///1"}));
    let told = scene.told(2).await;
    let methods: Vec<&Value> = told.iter().map(|told| &told["method"]).collect();
    assert_eq!(methods, ["notifications/tools/list_changed", "notifications/resources/updated"]);
    // The server ends the subscription; the next one has the same filter.
    scene.happens(json!({"end": true}));
    let mut changed: Vec<String> = scene.told(4).await.iter().map(|told| told["method"].to_string()).collect();
    changed.sort();
    let all = ["prompts/list_changed", "resources/list_changed", "resources/updated", "tools/list_changed"];
    assert_eq!(changed, all.map(|name| format!("\"notifications/{name}\"")), "everything may have");
    scene.happens(json!({"updated": "memo:///1"}));
    assert_eq!(scene.told(1).await[0]["params"]["uri"], "memo:///1");
    scene.done(json!({"unsubscribe": "memo:///1"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_typescript_client_of_2025_at_a_server_of_2026() {
    converse(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_client_of_2025_at_a_server_of_2026() {
    converse(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_has_not_declared_is_refused_by_the_server() {
    let mut scene = Scene::new(false).await;
    scene.done(json!({"connect": ["roots"]}));
    assert_eq!(scene.done(json!({"call": {"name": "twice"}})), "roots");
    let failed = scene.step(json!({"call": {"name": "ask"}})).expect_err("it has declared roots alone");
    assert_eq!(failed["code"], -32021, "{failed}");
    scene.end().await;
}
