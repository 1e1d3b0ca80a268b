//! A client of the wire until 2025-11-25 before a server that speaks 2026-07-28 alone, and the other pairs of the two wires. The
//! server verifies what the official ones do, and keeps what breaks a rule.

use support::modern_server::{FakeModern, Got};

use super::*;

const EVERYTHING: &str = r#"{"roots":{"listChanged":true},"sampling":{},"elicitation":{"form":{},"url":{}}}"#;

/// A client before a server without sessions; nothing is said yet.
fn before_modern(args: &[&str]) -> (Client, FakeModern) {
    let world = Safeconduct::new(binary());
    let server = FakeModern::start(&world.socket());
    let client = Client::start(&world, &[args, &["demo"]].concat());
    (client, server)
}

/// The same, greeted. The capabilities are JSON.
async fn greeted(capabilities: &str) -> (Client, FakeModern) {
    let (mut client, server) = before_modern(&[]);
    greet(&mut client, capabilities).await;
    support::wait::until(LIMIT, "the subscription", async || server.filters().len() == 1).await;
    (client, server)
}

async fn greet(client: &mut Client, capabilities: &str) -> Value {
    client
        .write(format!(
            r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{{"protocolVersion":"2025-06-18","capabilities":{capabilities},"clientInfo":{{"name":"t","version":"1"}}}}}}{}"#,
            "\n"
        ))
        .await;
    let hello = client.message().await;
    client.send(&notification("notifications/initialized", json!({}))).await;
    hello
}

/// Nothing that the server got broke a rule.
#[track_caller]
fn sound(server: &FakeModern) {
    assert_eq!(server.faults(), Vec::<String>::new());
}

fn text(message: &Value) -> &str {
    message["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{message}"))
}

#[tokio::test]
async fn wire_63_initialize_goes_out_as_it_came_and_a_modern_error_leads_to_the_other_wire() {
    for refusal in [(400, -32022), (400, -32020), (404, -32601), (400, -32602)] {
        let (mut client, server) = before_modern(&[]);
        server.knobs().refusal = refusal;
        let capabilities = r#"{ "roots" : {} }"#;
        let hello = greet(&mut client, capabilities).await;
        let expected = json!({
            "protocolVersion": "2025-06-18", "instructions": "be kind", "serverInfo": {"name": "modern", "version": "7"},
            "capabilities": server.knobs().capabilities.clone(),
        });
        assert_eq!((&hello["id"], &hello["result"]), (&json!(0), &expected), "{refusal:?}");
        let came = &server.got("initialize")[0];
        assert!(came.body.contains(capabilities) && came.field("mcp-method").is_none(), "{came:?}");
        let asked = &server.got("server/discover")[0];
        assert!(
            asked.body.contains(&format!(r#""io.modelcontextprotocol/clientCapabilities":{capabilities}"#)),
            "exactly"
        );
        assert_eq!(asked.meta("clientInfo"), &json!({"name": "t", "version": "1"}));
        client.ask(1, "tools/list", json!({})).await;
        assert!(client.message().await["result"]["tools"].is_array());
        sound(&server);
        // It is remembered: the next session begins with the other wire.
        assert_eq!(greet(&mut client, "{}").await["result"]["protocolVersion"], "2025-06-18");
        assert_eq!(server.got("initialize").len(), 1, "{refusal:?}");
        // Until the server is another one.
        server.knobs().is_legacy = true;
        assert_eq!(greet(&mut client, "{}").await["result"]["serverInfo"]["name"], "old");
        client.end().await.expect_code(0);
    }
}

#[tokio::test]
async fn wire_63_every_other_answer_to_initialize_passes_and_nothing_is_probed() {
    for (status, code) in [(200, -32022), (400, -32000), (404, -32001), (403, -32022), (500, -32601)] {
        let (mut client, server) = before_modern(&[]);
        server.knobs().refusal = (status, code);
        client.send(&initialize(0)).await;
        assert_eq!(client.message().await["error"]["code"], code);
        assert_eq!(server.got("server/discover").len(), 0, "{status} {code}");
    }
    // A server that refuses for another reason, and does not know the other wire.
    let (mut client, mut daemon) = scripted().await;
    for answer in [
        ("application/json", r#"{"jsonrpc":"2.0","id":"x","error":{"code":-32601,"message":"no"}}"#),
        ("text/plain", "no"),
    ] {
        client.send(&initialize(0)).await;
        let refused = r#"{"jsonrpc":"2.0","id":0,"error":{"code":-32602,"message":"bad"}}"#;
        daemon.expect("initialize").await.status(400, "content-type: application/json\r\n", refused).await;
        let probe = daemon.expect("server/discover").await;
        probe.status(404, &format!("content-type: {}\r\n", answer.0), answer.1).await;
        assert_eq!(client.line().await, refused);
    }
    // What is ours, and passes, is no answer of the server.
    client.send(&initialize(0)).await;
    daemon
        .expect("initialize")
        .await
        .status(400, "content-type: application/json\r\n", r#"{"id":0,"error":{"code":-32022}}"#)
        .await;
    let probe = daemon.expect("server/discover").await;
    let error = json!({"code": -31080, "message": "m", "data": {"by": "safeconduct", "class": "temporary"}});
    probe.json_body("", &json!({"jsonrpc": "2.0", "id": probe.json()["id"], "error": error}).to_string()).await;
    assert_eq!(ours(&client.message().await, json!(0))["class"], "temporary");
}

#[tokio::test]
async fn an_initialize_without_capabilities_goes_out_as_it_came_whatever_was_before() {
    let (mut client, server) = greeted("{}").await;
    client.ask(1, "initialize", json!({"protocolVersion": "2025-11-25"})).await;
    assert_eq!(client.message().await["error"]["code"], -32022);
    assert_eq!((server.got("initialize").len(), server.got("server/discover").len()), (2, 1));
}

#[tokio::test]
async fn pass_translates_nothing() {
    let (mut client, server) = before_modern(&["--protocol", "pass"]);
    client.send(&initialize(0)).await;
    assert_eq!(client.message().await["error"]["code"], -32022);
    assert_eq!(server.got("server/discover").len(), 0);
    client.send(&with_capabilities(1, "tools/list", json!({}))).await;
    let tools = client.message().await;
    assert_eq!(tools["result"]["tools"].as_array().map(Vec::len), Some(3), "nothing is taken out of the list");
    assert_eq!(tools["result"]["resultType"], "complete");
}

/// A request of the wire since 2026-07-28 as the official server wants it.
fn with_capabilities(id: u64, method: &str, params: Value) -> Value {
    let mut request = stateless(id, method, params);
    request["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({});
    request
}

#[tokio::test]
async fn wire_43_input_is_asked_of_the_client_and_carried_up_byte_for_byte() {
    let (mut client, server) = greeted(EVERYTHING).await;
    let params =
        json!({"name": "ask", "arguments": {"kinds": ["roots", "sampling", "form"]}, "_meta": {"progressToken": 9}});
    client.send(&request(7, "tools/call", params)).await;
    let mut asked = Vec::new();
    for _ in 0..3 {
        asked.push(client.message().await);
    }
    let methods: Vec<&str> = asked.iter().filter_map(|one| one["method"].as_str()).collect();
    assert_eq!(methods, ["elicitation/create", "roots/list", "sampling/createMessage"]);
    assert_eq!(asked[0]["params"]["message"], "sure?");
    // The answers come in any order, and are passed as they are.
    for (at, answer) in [
        (2, r#"{"role": "assistant","model":"m" ,"content":{}}"#),
        (0, r#"{"action":"accept","content":{"a":1.0}}"#),
        (1, r#"{"roots":[ ]}"#),
    ] {
        client.write(format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"result\":{answer}}}\n", asked[at]["id"])).await;
    }
    let done = client.message().await;
    assert_eq!(done["id"], 7);
    let said: Value = serde_json::from_str(text(&done)).expect("JSON");
    assert_eq!(said["state"], "\u{e4}/\"\u{1}");
    assert_eq!(said["answers"]["q-roots"], json!({"roots": []}));
    let [first, second] = &server.got("tools/call")[..] else { panic!("two rounds") };
    assert_ne!(first.message["id"], second.message["id"], "a new id each");
    assert!(second.body.contains(r#"{"role": "assistant","model":"m" ,"content":{}}"#), "{}", second.body);
    assert_eq!(second.message["params"]["_meta"]["progressToken"], 9);
    sound(&server);
    // A second answer to the same question is nobody's.
    client.send(&json!({"jsonrpc": "2.0", "id": asked[0]["id"], "result": {}})).await;
    client.ask(8, "ping", json!({})).await;
    assert_eq!(client.message().await["result"], json!({}));
    sound(&server);
}

#[tokio::test]
async fn what_the_client_has_not_declared_is_never_asked() {
    for (capabilities, kind) in [
        ("{}", "roots"),
        (r#"{"roots":{}}"#, "sampling"),
        (r#"{"elicitation":{"url":{}}}"#, "form"),
        (EVERYTHING, "url"),
        (EVERYTHING, "tasks/list"),
    ] {
        let (mut client, server) = greeted(capabilities).await;
        server.knobs().is_greedy = true;
        client.ask(1, "tools/call", json!({"name": "ask", "arguments": {"kinds": [kind]}})).await;
        assert_eq!(ours(&client.message().await, json!(1))["error"], "input_not_possible", "{kind}");
        assert_eq!(server.got("tools/call").len(), 1);
    }
    // Nor does the server ask, because exactly this is declared.
    let (mut client, server) = greeted("{}").await;
    client.ask(1, "tools/call", json!({"name": "ask", "arguments": {"kinds": ["roots"]}})).await;
    assert_eq!(client.message().await["error"]["code"], -32021);
    sound(&server);
}

#[tokio::test]
async fn an_error_of_the_client_ends_the_request_and_takes_the_other_questions_back() {
    let (mut client, server) = greeted(EVERYTHING).await;
    client.ask(1, "tools/call", json!({"name": "ask", "arguments": {"kinds": ["form", "roots"]}})).await;
    let (form, roots) = (client.message().await, client.message().await);
    client.send(&json!({"jsonrpc": "2.0", "id": form["id"], "error": {"code": -1, "message": "rejected"}})).await;
    let (mut told, mut failed) = (client.message().await, client.message().await);
    if told["method"].is_null() {
        std::mem::swap(&mut told, &mut failed);
    }
    assert_eq!((&told["method"], &told["params"]["requestId"]), (&json!("notifications/cancelled"), &roots["id"]));
    assert_eq!(ours(&failed, json!(1))["error"], "input_refused");
    assert_eq!(server.got("tools/call").len(), 1);
}

#[tokio::test]
async fn input_is_taken_for_three_methods_alone_and_ten_times() {
    let (mut client, server) = greeted("{}").await;
    client.ask(1, "prompts/get", json!({"name": "p"})).await;
    assert_eq!(client.message().await["result"]["messages"], json!([]));
    client.ask(2, "completion/complete", json!({})).await;
    assert_eq!(ours(&client.message().await, json!(2))["error"], "input_not_possible");
    client.ask(3, "tools/call", json!({"name": "busy", "arguments": {"times": 2}})).await;
    assert_eq!(text(&client.message().await), "done");
    let ids: Vec<Value> = server.got("tools/call").iter().map(|got| got.message["id"].clone()).collect();
    assert!(ids.len() == 3 && ids[0] == 3 && ids[1] != ids[2], "{ids:?}");
    client.ask(4, "tools/call", json!({"name": "busy", "arguments": {"times": 99}})).await;
    assert_eq!(ours(&client.message().await, json!(4))["error"], "too_many_rounds");
    assert_eq!(server.got("tools/call").len(), 3 + 11);
    for kind in [json!("task"), json!(1)] {
        client.ask(5, "tools/call", json!({"name": "odd", "arguments": {"type": kind}})).await;
        assert_eq!(ours(&client.message().await, json!(5))["error"], "unknown_result");
    }
    sound(&server);
}

#[tokio::test]
async fn wire_43_log_and_progress_reach_the_client_and_a_request_of_the_server_does_not() {
    let (mut client, server) = greeted("{}").await;
    let log = json!({"name": "log", "_meta": {"progressToken": "p"}});
    client.ask(1, "tools/call", log.clone()).await;
    assert_eq!(client.message().await["params"]["progressToken"], "p");
    assert_eq!(text(&client.message().await), "logged", "no log before a level is set");
    client.ask(2, "logging/setLevel", json!({"level": "warning"})).await;
    assert_eq!(client.message().await["result"], json!({}));
    client.ask(3, "logging/setLevel", json!({"level": "loud"})).await;
    assert_eq!(client.message().await["error"]["code"], -32602);
    client.ask(4, "tools/call", log).await;
    assert_eq!(client.message().await["method"], "notifications/progress");
    assert_eq!(client.message().await["params"], json!({"level": "warning", "data": "x"}));
    let done = client.message().await;
    assert_eq!(text(&done), "logged");
    assert!(done["result"].get("resultType").is_none(), "{done}");
    sound(&server);
}

#[tokio::test]
async fn wire_67_what_the_server_does_not_know_ends_in_the_bridge() {
    let (mut client, server) = greeted("{}").await;
    for method in ["notifications/roots/list_changed", "notifications/progress", "notifications/initialized"] {
        client.send(&notification(method, json!({}))).await;
    }
    client.send(&json!({"jsonrpc": "2.0", "id": "nobody asked", "result": {}})).await;
    client.ask(1, "ping", json!({})).await;
    assert_eq!(client.message().await["result"], json!({}));
    // What is not known here is the server's to refuse.
    client.ask(2, "tasks/list", json!({})).await;
    assert_eq!(client.message().await["error"]["code"], -32601, "wire 62");
    client.ask(3, "tools/call", json!([])).await;
    assert_eq!(ours(&client.message().await, json!(3))["error"], "ambiguous_request");
    client.end().await.expect_code(0);
    assert!(server.faults() == ["tasks/list: unknown"], "no DELETE, no GET, no notification: {:?}", server.faults());
}

#[tokio::test]
async fn wire_64_lists_and_resources_are_followed_with_one_subscription() {
    let (mut client, server) = greeted("{}").await;
    let lists = json!({"toolsListChanged": true, "resourcesListChanged": true});
    assert_eq!(server.filters(), [lists], "what the server has, and nothing else");
    server.changed("tools");
    let changed = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"});
    assert_eq!(client.message().await, changed, "without the subscription that the client does not know");
    for (id, uri) in [(1, "file:///a"), (2, "file:///b")] {
        client.ask(id, "resources/subscribe", json!({"uri": uri})).await;
        assert_eq!(client.message().await["result"], json!({}));
        // The update is not missed, because the answer came after the acknowledgement.
        server.updated(uri);
        assert_eq!(client.message().await["params"], json!({"uri": uri}));
    }
    support::wait::until(LIMIT, "one subscription", async || server.filters().len() == 1).await;
    assert_eq!(server.filters()[0]["resourceSubscriptions"], json!(["file:///a", "file:///b"]));
    client.ask(3, "resources/unsubscribe", json!({"uri": "file:///a"})).await;
    assert_eq!(client.message().await["result"], json!({}));
    support::wait::until(LIMIT, "the other filter", async || {
        let filters = server.filters();
        filters.len() == 1 && filters[0]["resourceSubscriptions"] == json!(["file:///b"])
    })
    .await;
    // The words of a subscription are for the bridge.
    server.say(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}));
    server.changed("resources");
    assert_eq!(client.message().await["method"], "notifications/resources/list_changed");
    sound(&server);
    client.end().await.expect_code(0);
    support::wait::until(LIMIT, "the end", async || server.filters().is_empty()).await;
}

#[tokio::test]
async fn a_subscription_that_the_server_does_not_take_is_an_error() {
    let (mut client, server) = before_modern(&[]);
    server.knobs().capabilities = json!({"resources": {"subscribe": true}});
    greet(&mut client, "{}").await;
    assert_eq!(server.got("subscriptions/listen").len(), 0, "there is nothing to listen to");
    server.knobs().refuse_listen = (1, 400);
    client.ask(1, "resources/subscribe", json!({"uri": "file:///a"})).await;
    assert_eq!(ours(&client.message().await, json!(1))["error"], "not_subscribed");
    client.ask(2, "resources/subscribe", json!({"uri": "file:///a"})).await;
    assert_eq!(client.message().await["result"], json!({}), "later it does");
    client.ask(3, "resources/subscribe", json!({})).await;
    assert_eq!(client.message().await["error"]["code"], -32602);
    client.ask(4, "logging/setLevel", json!({"level": "info"})).await;
    assert_eq!(client.message().await["error"]["code"], -32601, "it has no log");
    sound(&server);
}

#[tokio::test]
async fn wire_64_a_subscription_that_ends_is_opened_again_and_the_client_looks_again() {
    let (mut client, server) = greeted("{}").await;
    client.ask(1, "resources/subscribe", json!({"uri": "file:///a"})).await;
    client.message().await;
    support::wait::until(LIMIT, "one subscription", async || server.filters().len() == 1).await;
    for is_graceful in [false, true] {
        server.knobs().refuse_listen = (1, 503);
        if is_graceful {
            server.end_subscriptions();
        } else {
            server.break_subscriptions();
        }
        let mut changes = Vec::new();
        for _ in 0..3 {
            changes.push(client.message().await["method"].as_str().expect("a method").to_owned());
        }
        let expected = ["tools/list_changed", "resources/list_changed", "resources/updated"];
        assert_eq!(changes, expected.map(|name| format!("notifications/{name}")));
        server.updated("file:///a");
        assert_eq!(client.message().await["params"]["uri"], "file:///a");
        assert_eq!(server.filters().len(), 1);
    }
    sound(&server);
}

#[tokio::test]
async fn wire_49_and_50_a_cancellation_closes_the_stream_and_takes_questions_back() {
    let (mut client, server) = greeted(EVERYTHING).await;
    let cancelled = |id: u64| notification("notifications/cancelled", json!({"requestId": id}));
    client.ask(1, "tools/call", json!({"name": "wait"})).await;
    support::wait::until(LIMIT, "the call", async || server.waiting() == 1).await;
    client.send(&cancelled(1)).await;
    support::wait::until(LIMIT, "the end of the stream", async || server.waiting() == 0).await;
    client.ask(2, "tools/call", json!({"name": "ask", "arguments": {"kinds": ["form"]}})).await;
    let form = client.message().await;
    client.send(&cancelled(2)).await;
    let told = client.message().await;
    assert_eq!((&told["method"], &told["params"]["requestId"]), (&json!("notifications/cancelled"), &form["id"]));
    // An answer that comes too late is nobody's.
    client.send(&json!({"jsonrpc": "2.0", "id": form["id"], "result": {"action": "accept"}})).await;
    assert!(client.is_silent().await);
    assert_eq!(server.got("tools/call").len(), 2);
    // Wire 54: the end cancels all.
    client.ask(3, "tools/call", json!({"name": "wait"})).await;
    support::wait::until(LIMIT, "the call", async || server.waiting() == 1).await;
    client.end().await.expect_code(0);
    support::wait::until(LIMIT, "the end of the stream", async || server.waiting() == 0).await;
    sound(&server);
}

#[tokio::test]
async fn wire_33_a_stream_that_ends_before_its_answer_is_reported() {
    let (mut client, server) = greeted("{}").await;
    client.ask(1, "tools/call", json!({"name": "wait"})).await;
    support::wait::until(LIMIT, "the call", async || server.waiting() == 1).await;
    drop(server);
    assert_eq!(ours(&client.message().await, json!(1))["error"], "answer_lost");
}

/// What a call of `echo` has as fields.
fn params_of(got: &Got) -> (Option<&str>, Option<&str>) {
    (got.field("mcp-param-region"), got.field("mcp-param-dry"))
}

#[tokio::test]
async fn wire_55_to_58_the_fields_of_a_call_repeat_what_its_schema_says_for_clients_of_either_wire() {
    let (mut client, server) = greeted("{}").await;
    for is_stateless in [false, true] {
        let ask = |id, method, params: Value| match is_stateless {
            true => with_capabilities(id, method, params),
            false => request(id, method, params),
        };
        client.send(&ask(1, "tools/list", json!({}))).await;
        let tools = client.message().await["result"]["tools"].clone();
        let names: Vec<&str> =
            tools.as_array().expect("tools").iter().filter_map(|tool| tool["name"].as_str()).collect();
        assert_eq!(names, ["echo", "ask"], "wire 58: one is declared against the rules");
        for (arguments, expected) in [
            (json!({"text": "a"}), (None, None)),
            (json!({"region": null, "to": {"dry_run": null}}), (None, None)),
            (json!({"region": "eu", "to": {"dry_run": true}}), (Some("eu"), Some("true"))),
            (json!({"region": "d\u{fc}s"}), (Some("=?base64?ZMO8cw==?="), None)),
            (json!({"region": ""}), (Some("=?base64??="), None)),
            (json!({"region": " =?base64?eA==?="}), (Some("=?base64?ID0/YmFzZTY0P2VBPT0/PQ==?="), None)),
        ] {
            client.send(&ask(2, "tools/call", json!({"name": "echo", "arguments": arguments}))).await;
            let answer = client.message().await;
            assert!(answer["result"].is_object(), "{arguments}: {answer}");
            assert_eq!(params_of(server.got("tools/call").last().expect("a call")), expected, "{arguments}");
        }
        client.send(&ask(3, "resources/read", json!({"uri": "file:///\u{e4}"}))).await;
        assert!(client.message().await["result"]["contents"].is_array(), "wire 56");
    }
    sound(&server);
    let long = json!({"name": "echo", "arguments": {"region": "x".repeat(9_000)}});
    client.ask(4, "tools/call", long).await;
    assert_eq!(ours(&client.message().await, json!(4))["error"], "too_long", "a head has a limit");
}

#[tokio::test]
async fn wire_59_a_missing_field_makes_it_list_the_tools_anew_once() {
    let (mut client, server) = greeted("{}").await;
    let echo = json!({"name": "echo", "arguments": {"text": "a", "region": "eu"}});
    let calls_and_lists = || (server.got("tools/call").len(), server.got("tools/list").len());
    // Nobody has listed them.
    client.ask(1, "tools/call", echo.clone()).await;
    assert_eq!(text(&client.message().await), "a");
    assert_eq!(calls_and_lists(), (2, 1));
    // The schema has changed.
    server.knobs().field = "Zone".to_owned();
    for id in [2, 3] {
        client.ask(id, "tools/call", echo.clone()).await;
        assert_eq!(text(&client.message().await), "a");
    }
    assert_eq!((calls_and_lists(), server.faults().len()), ((5, 2), 2), "once after each change");
}

#[tokio::test]
async fn wire_59_for_a_client_of_the_2026_wire_too_and_then_the_refusal_is_reported() {
    let (mut client, mut daemon) = scripted().await;
    let mismatch =
        |id: &Value| json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32020, "message": "no"}}).to_string();
    for wanted in ["tools/call", "resources/read"] {
        client.send(&with_capabilities(1, wanted, json!({"name": "x", "uri": "x", "_meta": {}}))).await;
        let asked = daemon.expect(wanted).await;
        asked.status(400, "content-type: application/json\r\n", &mismatch(&json!(1))).await;
        if wanted == "tools/call" {
            let list = daemon.expect("tools/list").await;
            assert_eq!(list.field("mcp-method"), Some("tools/list"));
            let page = |next: Value| json!({"jsonrpc": "2.0", "id": list.json()["id"], "result": {"tools": [], "nextCursor": next}});
            list.json_body("", &page(json!("n")).to_string()).await;
            let second = daemon.expect("tools/list").await;
            assert_eq!(second.json()["params"]["cursor"], "n");
            second.status(500, "", "").await;
            daemon.expect(wanted).await.status(400, "content-type: application/json\r\n", &mismatch(&json!(1))).await;
        }
        assert_eq!(client.message().await["error"]["code"], -32020, "{wanted}");
    }
    assert!(daemon.is_left_alone().await);
}

#[tokio::test]
async fn wire_43_a_client_of_the_2026_wire_gets_input_required_as_it_is() {
    let (mut client, server) = before_modern(&[]);
    client.send(&with_capabilities(1, "tools/call", json!({"name": "busy", "arguments": {"times": 1}}))).await;
    assert_eq!(client.message().await["result"], json!({"resultType": "input_required", "requestState": "s"}));
    // A request of the server is against the rules of this wire.
    client.send(&with_capabilities(2, "tools/call", json!({"name": "log"}))).await;
    assert_eq!(client.message().await["method"], "notifications/progress");
    assert_eq!(client.message().await["id"], 2);
    sound(&server);
}

#[tokio::test]
async fn wire_64_the_subscription_of_a_2026_client_is_opened_again_with_its_filter() {
    let (mut client, server) = before_modern(&[]);
    let filter = json!({"toolsListChanged": true, "resourceSubscriptions": ["file:///a"]});
    let mut listen = with_capabilities(0, "subscriptions/listen", json!({"notifications": filter}));
    listen["id"] = json!("listen:1");
    client.send(&listen).await;
    let key = "io.modelcontextprotocol/subscriptionId";
    let acknowledged = client.message().await;
    assert_eq!(acknowledged["method"], "notifications/subscriptions/acknowledged");
    assert_eq!(acknowledged["params"]["_meta"][key], "listen:1");
    for _ in 0..2 {
        server.knobs().refuse_listen = (1, 503);
        server.break_subscriptions();
        // No second acknowledgement, and everything may have changed.
        for method in ["notifications/tools/list_changed", "notifications/resources/updated"] {
            let change = client.message().await;
            assert_eq!((&change["method"], &change["params"]["_meta"][key]), (&json!(method), &json!("listen:1")));
        }
        assert_eq!(server.filters(), std::slice::from_ref(&filter));
    }
    server.changed("tools");
    assert_eq!(client.message().await["params"]["_meta"][key], "listen:1");
    // An end in good order is the answer.
    server.end_subscriptions();
    assert_eq!(client.message().await["id"], "listen:1");
    client.send(&listen).await;
    client.message().await;
    client.send(&notification("notifications/cancelled", json!({"requestId": "listen:1"}))).await;
    support::wait::until(LIMIT, "the end of the stream", async || server.filters().is_empty()).await;
    sound(&server);
}

#[tokio::test]
async fn a_2026_client_at_a_2025_server_gets_the_answer_of_the_server() {
    let (mut client, server) = before_modern(&[]);
    server.knobs().is_legacy = true;
    client.send(&with_capabilities(1, "server/discover", json!({}))).await;
    assert_eq!(client.message().await["error"]["code"], -32000);
    client.send(&initialize(2)).await;
    assert_eq!(client.message().await["result"]["serverInfo"]["name"], "old");
    assert_eq!(server.got("server/discover").len(), 1, "its own");
}
