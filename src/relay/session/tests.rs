use serde_json::{Value, json};

use super::bounds::OF_USER;
use super::*;
use crate::relay::verdict::{Effect, Sent};

fn id(text: &str) -> SessionId {
    SessionId::parse(text).expect("an id")
}

fn key(uid: u32, text: &str) -> Key {
    Key { uid, server: "files".into(), id: id(text) }
}

const PARAMS: &str =
    r#"{"protocolVersion":"2025-06-18", "capabilities":{"roots":{}}, "clientInfo":{"name":"c","version":"1.0"}}"#;

/// A server's answer to `initialize`.
fn answer(version: &str, capabilities: &Value) -> Vec<u8> {
    json!({"jsonrpc": "2.0", "id": 1, "result": {"protocolVersion": version, "capabilities": capabilities}})
        .to_string()
        .into_bytes()
}

fn usual() -> Value {
    json!({"tools": {"listChanged": true}, "resources": {"subscribe": true, "listChanged": true}, "logging": {}})
}

fn offer(version: &str, capabilities: &Value) -> Offer {
    Offer::read(&answer(version, capabilities)).expect("an offer")
}

/// Sessions with one that this user opened.
fn opened(key: &Key) -> Sessions {
    let mut sessions = Sessions::default();
    sessions.opened(key.clone(), Some(PARAMS), &answer("2025-06-18", &usual()));
    sessions
}

fn change(sessions: &mut Sessions, key: &Key, method: &str, params: &Value) {
    let body = json!({"jsonrpc": "2.0", "id": 5, "method": method, "params": params}).to_string();
    let change = Change::of(&Message::read(body.as_bytes()), body.as_bytes()).expect("a change");
    sessions.changed(key, change);
}

fn plan(sessions: &mut Sessions, key: &Key, epoch: u32) -> Vec<String> {
    match sessions.lost(key, epoch, false) {
        Next::Heal(Plan(steps)) => steps.iter().map(|step| step.body().to_owned()).collect(),
        other => panic!("{other:?}"),
    }
}

fn upstream(text: &str, epoch: u32) -> Route {
    Route::Upstream { id: Some(id(text)), epoch }
}

#[test]
fn a_lost_session_is_opened_again_as_the_client_opened_it() {
    let key = key(1, "A");
    let mut sessions = opened(&key);
    change(&mut sessions, &key, "resources/subscribe", &json!({"uri": "file:///b"}));
    change(&mut sessions, &key, "resources/subscribe", &json!({"uri": "file:///\"a"}));
    change(&mut sessions, &key, "resources/subscribe", &json!({"uri": "file:///c"}));
    change(&mut sessions, &key, "resources/unsubscribe", &json!({"uri": "file:///c"}));
    change(&mut sessions, &key, "logging/setLevel", &json!({"level": "info"}));
    change(&mut sessions, &key, "logging/setLevel", &json!({"level": "debug"}));
    let Next::Heal(Plan(steps)) = sessions.lost(&key, 0, false) else { panic!("it is to be healed") };
    // The first two must succeed, the others may be refused.
    let required = steps.iter().take_while(|step| matches!(step, Step::Initialize(_) | Step::Initialized(_))).count();
    assert_eq!((required, steps.len()), (2, 5));
    let steps: Vec<String> = steps.iter().map(|step| step.body().to_owned()).collect();
    assert!(steps[0].contains(&format!("\"params\":{PARAMS}")), "byte for byte: {}", steps[0]);
    let read: Vec<Value> = steps.iter().map(|step| serde_json::from_str(step).expect("JSON")).collect();
    let sent: Vec<(&str, &Value)> =
        read.iter().map(|step| (step["method"].as_str().expect("a method"), &step["params"])).collect();
    let params: Value = serde_json::from_str(PARAMS).expect("JSON");
    assert_eq!(
        sent,
        [
            ("initialize", &params),
            ("notifications/initialized", &Value::Null),
            ("resources/subscribe", &json!({"uri": "file:///\"a"})),
            ("resources/subscribe", &json!({"uri": "file:///b"})),
            ("logging/setLevel", &json!({"level": "debug"})),
        ]
    );
    let ids: BTreeSet<String> = read.iter().filter_map(|step| step.get("id")).map(Value::to_string).collect();
    assert_eq!(ids.len(), 4, "each request has its own id, the notification none");
}

#[test]
fn all_requests_that_lost_a_session_share_one_new_session() {
    let key = key(1, "A");
    let mut sessions = opened(&key);
    assert_eq!(sessions.route(&key), upstream("A", 0));
    plan(&mut sessions, &key, 0);
    assert_eq!(sessions.lost(&key, 0, false), Next::Wait, "another request heals it");
    assert_eq!(sessions.route(&key), Route::Healing);
    let now = offer("2025-06-18", &usual());
    assert_eq!(sessions.reopened(&key, &now), Reopened::Equal);
    assert_eq!(sessions.route(&key), Route::Healing, "until the last step");
    assert_eq!(sessions.owed(&key), Vec::<&str>::new());
    assert!(sessions.healed(&key, Some(id("B")), now));
    assert_eq!(sessions.lost(&key, 0, false), Next::Repeat, "a late one, which was sent with the old id");
    assert_eq!(sessions.route(&key), upstream("B", 1), "the client still says A");
    let notifications = sessions.owed(&key);
    assert_eq!(sessions.owed(&key), Vec::<&str>::new(), "they are given once");
    let methods: Vec<Value> = notifications.iter().map(|text| serde_json::from_str(text).expect("JSON")).collect();
    let methods: Vec<&str> = methods.iter().filter_map(|message| message["method"].as_str()).collect();
    assert_eq!(methods, ["notifications/tools/list_changed", "notifications/resources/list_changed"]);
}

#[test]
fn a_second_refusal_passes_as_it_came() {
    let key = key(1, "A");
    let mut sessions = opened(&key);
    assert_eq!(sessions.lost(&key, 0, true), Next::Pass);
    assert_eq!(sessions.route(&key), upstream("A", 0));
}

#[test]
fn a_server_that_gives_no_id_any_more_gets_none() {
    let key = key(1, "A");
    let mut sessions = opened(&key);
    plan(&mut sessions, &key, 0);
    sessions.healed(&key, None, offer("2025-06-18", &usual()));
    assert_eq!(sessions.route(&key), Route::Upstream { id: None, epoch: 1 });
}

#[test]
fn an_attempt_that_failed_is_made_again_by_the_next_request() {
    let key = key(1, "A");
    let mut sessions = opened(&key);
    let first = plan(&mut sessions, &key, 0);
    sessions.failed(&key);
    assert_eq!(sessions.route(&key), upstream("A", 0));
    assert_eq!(plan(&mut sessions, &key, 0), first);
}

#[test]
fn a_server_that_comes_back_with_less_is_a_different_one() {
    let with = |change: fn(&mut Value)| {
        let mut capabilities = usual();
        change(&mut capabilities);
        capabilities
    };
    for (version, capabilities, expected) in [
        ("2025-06-18", usual(), Reopened::Equal),
        ("2025-06-18", with(|all| all["prompts"] = json!({})), Reopened::Equal),
        ("2025-06-18", with(|all| all["prompts"] = json!({"listChanged": true})), Reopened::Equal),
        ("2025-11-25", usual(), Reopened::Different),
        ("2025-03-26", usual(), Reopened::Different),
        ("2025-06-18", with(|all| all["logging"] = Value::Null), Reopened::Different),
        ("2025-06-18", with(|all| all["resources"]["subscribe"] = json!(false)), Reopened::Different),
        ("2025-06-18", with(|all| all["tools"] = json!({})), Reopened::Different),
        ("2025-06-18", json!({}), Reopened::Different),
    ] {
        let key = key(1, "A");
        let mut sessions = opened(&key);
        plan(&mut sessions, &key, 0);
        assert_eq!(sessions.reopened(&key, &offer(version, &capabilities)), expected, "{version} {capabilities}");
        if expected == Reopened::Different {
            sessions.failed(&key);
            assert_eq!(sessions.route(&key), Route::Different, "it stays so until the client reconnects");
            assert_eq!(sessions.lost(&key, 0, false), Next::Repeat);
            sessions.opened(key.clone(), Some(PARAMS), &answer("2025-06-18", &usual()));
            assert_eq!(sessions.route(&key), upstream("A", 0), "the server gave the same id again");
        }
    }
}

#[test]
fn after_our_restart_a_session_heals_with_its_version_and_no_capabilities() {
    for (header, version) in [(Some("2025-06-18"), "2025-06-18"), (None, "2025-03-26")] {
        let key = key(1, "A");
        let mut sessions = Sessions::default();
        assert_eq!(sessions.route(&key), Route::Unknown);
        assert_eq!(
            sessions.lost(&key, 0, false),
            Next::Pass,
            "an id that the server never accepted is nobody's session"
        );
        sessions.adopted(key.clone(), header);
        sessions.adopted(key.clone(), Some("2024-11-05"));
        assert_eq!(sessions.route(&key), upstream("A", 0));
        let steps = plan(&mut sessions, &key, 0);
        let initialize: Value = serde_json::from_str(&steps[0]).expect("JSON");
        assert_eq!(initialize["params"]["protocolVersion"], version);
        assert_eq!(initialize["params"]["capabilities"], json!({}));
        assert_eq!(steps.len(), 2);
        let now = offer(version, &usual());
        assert_eq!(sessions.reopened(&key, &offer("2024-11-05", &usual())), Reopened::Different);
        sessions.ended(&key);
        sessions.adopted(key.clone(), header);
        plan(&mut sessions, &key, 0);
        assert_eq!(sessions.reopened(&key, &now), Reopened::Equal);
        assert!(sessions.healed(&key, Some(id("B")), now));
        assert_eq!(sessions.owed(&key).len(), 2, "what it offers now");
    }
}

#[test]
fn a_session_belongs_to_the_user_that_opened_it() {
    let mine = key(1, "A");
    let mut sessions = opened(&mine);
    assert_eq!(sessions.route(&key(2, "A")), Route::Foreign);
    assert_eq!(sessions.route(&Key { server: "other".into(), ..key(2, "A") }), Route::Unknown, "another server's id");
    assert_eq!(sessions.route(&key(2, "never-seen")), Route::Unknown);
    assert_eq!(sessions.lost(&key(2, "A"), 0, false), Next::Pass);
    plan(&mut sessions, &mine, 0);
    sessions.healed(&mine, Some(id("B")), offer("2025-06-18", &usual()));
    assert_eq!(sessions.route(&key(2, "B")), Route::Foreign, "the id that stands for it is its own too");
    // A server that gives everybody the same id has told it to both.
    sessions.opened(key(2, "A"), Some(PARAMS), &answer("2025-06-18", &usual()));
    assert_eq!((sessions.route(&key(2, "A")), sessions.route(&mine)), (upstream("A", 0), upstream("B", 1)));
}

#[test]
fn a_session_that_the_client_ended_is_forgotten() {
    let key = key(1, "A");
    let mut sessions = opened(&key);
    plan(&mut sessions, &key, 0);
    sessions.ended(&key);
    let now = offer("2025-06-18", &usual());
    assert_eq!(sessions.reopened(&key, &now), Reopened::Gone);
    assert!(!sessions.healed(&key, Some(id("B")), now));
    assert_eq!(sessions.route(&key), Route::Unknown);
}

#[test]
fn a_session_of_which_a_part_is_missing_does_not_heal() {
    type Spoil = fn(&mut Sessions, &Key);
    let cases: [(&str, Spoil); 5] = [
        ("parameters", |all, key| {
            let params = format!("\"{}\"", "x".repeat(PARAMS_CAP));
            all.opened(key.clone(), Some(&params), &answer("2025-06-18", &usual()));
        }),
        ("no offer", |all, key| all.opened(key.clone(), Some(PARAMS), br#"{"error":{"code":1}}"#)),
        ("subscriptions", |all, key| {
            for number in 0..40 {
                all.changed(key, Change::Subscribed(format!("{number:01000}")));
            }
        }),
        ("level", |all, key| all.changed(key, Change::Level("x".repeat(WORD_CAP + 1)))),
        ("version", |all, key| {
            all.ended(key);
            all.adopted(key.clone(), Some(&"x".repeat(WORD_CAP + 1)));
        }),
    ];
    for (name, spoil) in cases {
        let key = key(1, "A");
        let mut sessions = opened(&key);
        spoil(&mut sessions, &key);
        assert_eq!(sessions.lost(&key, 0, false), Next::Pass, "{name}");
        assert_eq!(sessions.route(&key), upstream("A", 0), "{name}: it is still its user's");
    }
}

#[test]
fn a_request_changes_what_is_kept_only_if_it_is_one_of_three() {
    let of = |body: &str| Change::of(&Message::read(body.as_bytes()), body.as_bytes());
    assert_eq!(
        of(r#"{"id":1,"method":"resources/subscribe","params":{"uri":"a"}}"#),
        Some(Change::Subscribed("a".into()))
    );
    for body in [
        r#"{"id":1,"method":"resources/read","params":{"uri":"a"}}"#,
        r#"{"id":1,"method":"resources/subscribe","params":{"uri":1}}"#,
        r#"{"id":1,"method":"resources/subscribe","params":{"uri":"a","uri":"b"}}"#,
        r#"{"id":1,"method":"resources/subscribe"}"#,
        r#"{"id":1,"method":"logging/setLevel","params":{}}"#,
        "x",
    ] {
        assert_eq!(of(body), None, "{body}");
    }
}

#[test]
fn what_a_lost_session_looks_like() {
    let call = Sent::Request(Effect::ToolCall);
    for (sent, status, code, expected) in [
        (call, 404, None, Loss::Lost),
        (call, 404, Some(-32_000), Loss::Lost),
        (call, 404, Some(-32_601), Loss::No),
        (call, 400, None, Loss::Perhaps),
        (call, 400, Some(-32_000), Loss::Perhaps),
        (call, 400, Some(-32_601), Loss::No),
        (call, 200, Some(-32_000), Loss::No),
        (call, 401, None, Loss::No),
        (call, 410, None, Loss::No),
        (call, 500, None, Loss::No),
        (Sent::Notification, 404, None, Loss::Lost),
        (Sent::Stream, 404, None, Loss::Lost),
        (Sent::Stream, 405, None, Loss::No),
        (Sent::End, 404, None, Loss::No),
        (Sent::End, 400, None, Loss::No),
    ] {
        assert_eq!(loss(sent, status, code), expected, "{sent:?} {status} {code:?}");
    }
    for (status, code, expected) in [
        (400, Some(-32_000), true),
        (404, None, true),
        (404, Some(-32_601), false),
        (200, None, false),
        (202, None, false),
        (503, None, false),
    ] {
        assert_eq!(is_refused(status, code), expected, "{status} {code:?}");
    }
    assert_eq!(Message::read(ping()).method.as_deref(), Some("ping"));
}

#[test]
fn an_offer_is_read_from_a_result_alone() {
    for bad in ["", "{}", r#"{"error":{"code":1}}"#, r#"{"result":{}}"#, r#"{"result":{"protocolVersion":1}}"#] {
        assert_eq!(Offer::read(bad.as_bytes()), None, "{bad}");
    }
    let many: serde_json::Map<String, Value> = (0..1_000).map(|number| (number.to_string(), json!({}))).collect();
    assert_eq!(Offer::read(&answer("2025-06-18", &Value::Object(many))), None, "too large to be kept");
    assert!(Offer::read(br#"{"result":{"protocolVersion":"2025-06-18"}}"#).is_some(), "no capabilities are none");
}

#[test]
fn an_id_is_visible_ascii_and_never_shown() {
    for bad in ["", "a b", "a\n", "é", &"x".repeat(ID_CAP + 1)] {
        assert_eq!(SessionId::parse(bad), None, "{bad:?}");
    }
    assert_eq!(id("a-1.~").as_str(), "a-1.~");
    assert!(!format!("{:?}", key(1, "SECRET-ID")).contains("SECRET-ID"));
}

#[test]
fn one_user_makes_no_other_user_forgotten() {
    let mut sessions = opened(&key(1, "mine"));
    for number in 0..400 {
        sessions.opened(key(2, &number.to_string()), Some(PARAMS), &answer("2025-06-18", &usual()));
        // One that is used again and again stays.
        sessions.route(&key(2, "0"));
    }
    let of_user = |all: &Sessions, uid| all.all.keys().filter(|key| key.uid == uid).count();
    assert_eq!(of_user(&sessions, 2), OF_USER.sessions);
    assert_eq!(sessions.route(&key(1, "mine")), upstream("mine", 0));
    assert_eq!(sessions.route(&key(2, "0")), upstream("0", 0));
    assert_eq!(sessions.route(&key(2, "399")), upstream("399", 0), "the newest");
    assert_eq!(sessions.route(&key(2, "1")), Route::Unknown, "a forgotten one was never seen");
}

#[test]
fn the_memory_of_all_users_together_is_bounded() {
    let mut sessions = opened(&key(1, "mine"));
    let large = format!("{{\"x\":\"{}\"}}", "x".repeat(PARAMS_CAP - 20));
    for number in 0..50_u32 {
        for uid in 10..20 {
            sessions.opened(key(uid, &number.to_string()), Some(&large), &answer("2025-06-18", &usual()));
        }
    }
    let bytes: usize = sessions
        .all
        .values()
        .map(|session| match &session.opening {
            Opening::Kept(params) => params.len(),
            _ => 0,
        })
        .sum();
    assert!(bytes <= 4 * 1_024 * 1_024 && bytes > 3 * 1_024 * 1_024, "{bytes}");
    assert_eq!(sessions.route(&key(1, "mine")), upstream("mine", 0), "who keeps little loses nothing");
    // Growing afterwards counts too, and the one that grows is forgotten last.
    for number in 0..30 {
        sessions.changed(&key(10, "49"), Change::Subscribed(format!("{number:01000}")));
    }
    assert_eq!(sessions.route(&key(10, "49")), upstream("49", 0));
    for uid in 1_000..1_900 {
        sessions.adopted(key(uid, "A"), None);
    }
    assert_eq!(sessions.all.len(), 1_024);
    assert_eq!(sessions.route(&key(1_899, "A")), upstream("A", 0), "the newest");
}
