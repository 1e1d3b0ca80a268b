//! docs/api.md against the running daemon: its routes, each of its `curl` lines as it stands there, each field of the answers, and
//! its errors.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::sync::LazyLock;

use safeconduct::broker::Class;
use serde_json::{Value, json};
use support::authorization_server::FakeAs;
use support::mcp_server::FakeMcp;
use support::platform::FakePlatform;
use support::safeconduct::Daemon;
use support::scene::{SCOPES, Scene};
use support::sigv4;
use support::tcp_http::listening;
use tokio::process::Command;

use crate::tables::{literal, read, rows};
use crate::{LIMIT, binary};

static PAGE: LazyLock<&str> = LazyLock::new(|| read("docs/api.md"));

/// Optional fields that no line of the page is answered with, because that needs a fault or another configuration.
const NOT_SHOWN: [&str; 4] =
    ["audit.error", "error.data.retry_after", "servers[].front_door_of", "servers[].tokens[].warning"];

/// A part of the page: the route in its heading, and the text below it.
struct Section {
    route: &'static str,
    text: &'static str,
}

fn sections() -> Vec<Section> {
    let parts = PAGE.split("\n## `").skip(1);
    let section = |part: &'static str| {
        let (route, text) = part.split_once('`').expect("a route in backticks");
        Section { route, text: text.split("\n## ").next().unwrap_or_default() }
    };
    let found: Vec<Section> = parts.map(section).collect();
    assert!(found.len() > 8, "the sections of docs/api.md are not where they were");
    found
}

/// What stands before the first route: it holds for each of them.
fn introduction() -> &'static str {
    PAGE.split("\n## `").next().unwrap_or_default()
}

/// The routes in the tables of the router, spelled as the page does. A route of any method has none here.
fn routes() -> BTreeSet<(Option<String>, String)> {
    let tables = read("src/frontend/route.rs").split("#[cfg(test)]").next().unwrap_or_default();
    let value = |row: &str, key: &str| {
        let (_, rest) = row.split_once(&format!("{key}: "))?;
        rest.split_once(",\n").map(|(value, _)| value.to_owned())
    };
    let mut found = BTreeSet::new();
    // What follows the first is a row; the first ends with the type itself.
    for row in tables.split("Route {\n").filter(|row| row.trim_start().starts_with("methods: ")) {
        let (methods, path) = value(row, "methods").zip(value(row, "path")).expect("each row has both");
        let path = match path.trim_matches('"') {
            "mcp::PATH" => "/mcp/NAME".to_owned(),
            "oauth::PATH" => "/oauth/token".to_owned(),
            below if below.ends_with('/') => format!("{below}NAME"),
            path => path.to_owned(),
        };
        assert!(path.starts_with('/'), "no path: {path}");
        let methods = methods.replace("Method::", "");
        found.insert(((methods != "&[]").then(|| methods.trim_matches(['&', '[', ']']).to_owned()), path));
    }
    assert!(found.len() > 8, "the tables of the router are not where they were");
    found
}

#[test]
fn the_page_has_every_route_of_the_router_and_no_other() {
    let routes = routes();
    let on_page: Vec<(&str, &str)> =
        sections().iter().map(|section| section.route.split_once(' ').expect("a method and a path")).collect();
    for (method, path) in &routes {
        let is_there = on_page.iter().any(|on| on.1 == path && method.as_deref().is_none_or(|method| method == on.0));
        assert!(is_there, "docs/api.md has no section for {method:?} {path}");
    }
    for (method, path) in on_page {
        let is_there = routes.iter().any(|of| of.1 == path && of.0.as_deref().is_none_or(|of| of == method));
        assert!(is_there, "the router has no {method} {path}");
    }
}

/// A daemon that serves `deploy`, and `reports`, whose authorization server does not trust this workload. `closed` is for another
/// user.
struct World {
    scene: Scene,
    daemon: Daemon,
    variables: Vec<(&'static str, String)>,
    _others: (FakePlatform, FakeAs, FakeMcp),
}

impl World {
    async fn new() -> Self {
        let scene = Scene::new(binary()).await;
        let stranger = FakePlatform::start().await;
        let other = FakeAs::start(stranger.trust()).await;
        let reports = FakeMcp::start(&other, &SCOPES).await;
        let audit = scene.safeconduct.path().join("audit.jsonl");
        let server = |name: &str, mcp: &FakeMcp, issuer: &str| {
            format!("[servers.{name}]\nurl = \"{}\"\nissuer = \"{issuer}\"\n\n", mcp.url())
        };
        let closed = "[servers.closed]\nurl = \"https://closed.example/mcp\"\nallow = [{ uid = 4242 }]\n\n";
        let config = format!(
            "[egress]\ninsecure_loopback = true\n\n{}{}{closed}[audit]\nfile = \"{}\"\n\n\
             [listen]\nhttp = \"127.0.0.1:0\"\nhealth = \"127.0.0.1:0\"\noauth_token = true\n",
            server("deploy", &scene.mcp, &scene.authorization_server.issuer()),
            server("reports", &reports, &other.issuer()),
            audit.display(),
        );
        let configured = scene.safeconduct.clone().config(&config);
        let daemon = configured.daemon(&[]).await;
        let token = daemon.token("deploy").await;
        // Now the status has what it has after a while: failures, a refused user, a client of the proxy.
        assert_eq!(daemon.get("/v1/token?server=reports").await.status, 502);
        assert_eq!(daemon.get("/v1/token?server=closed").await.status, 403);
        configured.rewrite_config("[servers");
        assert_eq!(daemon.post("/v1/reload", &json!({})).await.json()["error"], "configuration_unchanged");
        configured.rewrite_config(&config);
        let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
        daemon.post("/mcp/deploy", &ping).await;
        // curl reads it from the home directory; so each line runs as it stands on the page.
        scene.safeconduct.write("home/.curlrc", "write-out = \"\\n%{http_code} %{content_type}\"\nmax-time = 25\n");
        let listen = listening(&daemon).await;
        let digest = sigv4::sha256(token.as_bytes());
        let variables = vec![
            ("PATH", std::env::var("PATH").unwrap_or_default()),
            ("HOME", scene.safeconduct.path().join("home").display().to_string()),
            ("SAFECONDUCT_SOCKET", daemon.socket().display().to_string()),
            ("LOOPBACK", listen["http"][0].as_str().expect("it listens").to_owned()),
            ("HEALTH", listen["health"].as_str().expect("it listens").to_owned()),
            ("URL", scene.mcp.url()),
            ("SHA256", digest),
        ];
        Self { scene, daemon, variables, _others: (stranger, other, reports) }
    }

    /// Runs each shell block of a section.
    async fn run(&self, section: &Section) -> Vec<Answer> {
        let mut answers = Vec::new();
        for block in section.text.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next()) {
            assert!(block.contains("curl "), "{}: a block without curl", section.route);
            let mut command = Command::new("sh");
            command.args(["-euc", block]).env_clear().envs(self.variables.iter().map(|(name, value)| (name, value)));
            command.stdin(Stdio::null()).kill_on_drop(true).current_dir(self.scene.safeconduct.path());
            let output =
                tokio::time::timeout(LIMIT, command.output()).await.expect("in time").expect("there is a shell");
            let (stdout, stderr) = (String::from_utf8(output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success(), "{}: {block}\n{stderr}", section.route);
            answers.push(Answer::read(&stdout.expect("UTF-8")));
        }
        assert!(!answers.is_empty(), "{}: no block of `sh`", section.route);
        answers
    }
}

struct Answer {
    status: String,
    media: String,
    body: String,
}

impl Answer {
    fn read(output: &str) -> Self {
        let (body, last) = output.rsplit_once('\n').expect("curl writes a last line");
        let (status, media) = last.split_once(' ').expect("a status and a type");
        Self { status: status.to_owned(), media: media.to_owned(), body: body.to_owned() }
    }

    /// Each field with the types of its values. Nothing of what an MCP server answered itself.
    fn fields(&self) -> Fields {
        let mut fields = Fields::new();
        if self.media.contains("openmetrics") {
            let kinds = self.body.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
            fields.extend(kinds.map(|(name, kind)| (name.to_owned(), BTreeSet::from([kind.to_owned()]))));
        } else if !self.body.is_empty() && !self.media.contains("event-stream") {
            let value: Value = serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.body));
            if value.get("result").is_none() {
                collect(&value, "", &mut fields);
            }
        }
        fields
    }
}

type Fields = BTreeMap<String, BTreeSet<String>>;

/// `servers[].name` is the field `name` of each object in the array `servers`.
fn collect(value: &Value, path: &str, fields: &mut Fields) {
    if !path.is_empty() && !path.ends_with("[]") {
        fields.entry(path.to_owned()).or_default().insert(kind(value));
    }
    match value {
        Value::Object(members) => {
            let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            members.iter().for_each(|(name, value)| collect(value, &below(name), fields));
        }
        Value::Array(values) => {
            values
                .iter()
                .filter(|value| value.is_object())
                .for_each(|value| collect(value, &format!("{path}[]"), fields));
        }
        _ => {}
    }
}

fn kind(value: &Value) -> String {
    match value {
        Value::Null => "or null".to_owned(),
        Value::Bool(_) => "boolean".to_owned(),
        Value::Number(number) if number.is_f64() => "number".to_owned(),
        Value::Number(_) => "integer".to_owned(),
        Value::String(_) => "string".to_owned(),
        Value::Object(_) => "object".to_owned(),
        Value::Array(values) => match values.first() {
            Some(first) => format!("array of {}s", kind(first)),
            None => "array".to_owned(),
        },
    }
}

/// What a table of fields says of one.
struct Documented {
    path: &'static str,
    /// Its type, its unit, and whether it may be absent or null.
    facts: Vec<&'static str>,
}

impl Documented {
    fn of(text: &'static str) -> Vec<Self> {
        let tables = ["field", "metric"].into_iter().flat_map(|heading| rows(text, heading));
        tables.map(|row| Self { path: literal(row[0]), facts: row[1].split(", ").collect() }).collect()
    }

    fn is(&self, path: &str) -> bool {
        match self.path.strip_suffix('*') {
            Some(start) => path.strip_prefix(start).is_some_and(|rest| !rest.contains('.')),
            None => self.path == path,
        }
    }

    fn allows(&self, kind: &str) -> bool {
        self.facts.contains(&kind) || (kind == "array" && self.facts[0].starts_with("array of "))
    }

    fn may_be_absent(&self) -> bool {
        self.facts.contains(&"optional") || self.facts.contains(&"or null")
    }
}

/// What differs between a table of fields and what was answered.
fn differences(route: &str, documented: &[Documented], answered: &Fields) -> Vec<String> {
    let mut found = Vec::new();
    for (path, kinds) in answered {
        let Some(row) = documented.iter().find(|row| row.is(path)) else {
            found.push(format!("{route}: `{path}` is answered and not documented"));
            continue;
        };
        let other = kinds.iter().filter(|kind| !row.allows(kind));
        found.extend(other.map(|kind| format!("{route}: `{path}` is documented as {:?}, and is {kind}", row.facts)));
    }
    for row in documented {
        let is_known_absent = row.may_be_absent() && NOT_SHOWN.contains(&row.path);
        let is_below_null = row.path.rsplit_once('.').is_some_and(|(above, _)| {
            answered.get(above).is_some_and(|kinds| kinds.iter().all(|kind| kind == "or null"))
        });
        if !answered.keys().any(|path| row.is(path)) && !is_known_absent && !is_below_null {
            found.push(format!("{route}: `{}` is documented and not answered", row.path));
        }
    }
    found
}

/// The last line of the page ends the daemon.
#[tokio::test]
async fn each_curl_line_is_answered_with_the_fields_that_the_page_has() {
    let world = World::new().await;
    let mut found = Vec::new();
    for section in sections() {
        let mut answered = Fields::new();
        for answer in world.run(&section).await {
            if !section.text.contains(&format!("status {}", answer.status)) {
                found.push(format!("{}: no word of status {}: {}", section.route, answer.status, answer.body));
            }
            for (path, kinds) in answer.fields() {
                answered.entry(path).or_default().extend(kinds);
            }
        }
        found.extend(differences(section.route, &Documented::of(section.text), &answered));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    world.daemon.wait().await.expect_code(0);
}

/// Does a table of errors have this one?
fn has_error(text: &str, code: &str, class: &str, status: u16) -> bool {
    let status = status.to_string();
    rows(text, "error").iter().any(|row| literal(row[0]) == code && literal(row[1]) == class && row[2] == status)
}

#[tokio::test]
async fn wrong_requests_get_the_errors_that_the_page_has() {
    let world = World::new().await;
    let documented = Documented::of(introduction());
    let post = |target: &str, body: &str| {
        format!(
            "POST {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    let far = "http%3A%2F%2F127.0.0.1%3A1%2Fmcp";
    let mut answered = Fields::new();
    for (route, request, code) in [
        ("GET /v1/token", get("/v1/token"), "invalid_request"),
        ("GET /v1/token", get("/v1/token?server=deploy&min_ttl=soon"), "invalid_request"),
        ("GET /v1/token", get("/v1/token?server=absent"), "unknown_server"),
        ("GET /v1/token", get(&format!("/v1/token?server={far}")), "server_not_configured"),
        ("GET /v1/token", get("/v1/token?server=reports"), "invalid_grant"),
        ("GET /v1/headers", get(&format!("/v1/headers?server=deploy&method=GET&url={far}")), "access_denied"),
        ("POST /v1/reject", post("/v1/reject", "{}"), "invalid_request"),
        ("POST /v1/revoke", post("/v1/revoke", "{\"server\":\"absent\"}"), "unknown_server"),
        ("GET /readyz", get("/readyz?server=absent"), "unknown_server"),
        ("GET /v1/token", post("/v1/token", ""), "method_not_allowed"),
        ("GET /v1/token", get("/v1/absent"), "not_found"),
        ("GET /v1/token", get("/v1/token").replace("host:", "origin: http://a.example\r\nhost:"), "access_denied"),
    ] {
        let reply = world.daemon.exchange(&request).await;
        let error = reply.json();
        assert_eq!(error["error"], code, "{request}: {}", reply.body);
        let class = error["class"].as_str().expect("a text");
        let section = sections().into_iter().find(|section| section.route == route).expect("it is on the page");
        let is_there = [section.text, introduction()].iter().any(|text| has_error(text, code, class, reply.status));
        assert!(is_there, "{route}: the page has no `{code}`, class `{class}`, status {}", reply.status);
        collect(&error, "", &mut answered);
    }
    assert_eq!(differences("errors", &documented, &answered), Vec::<String>::new());
    world.daemon.stop().await.expect_code(0);
}

/// Codes whose status is not that of their class.
const OWN_STATUS: [&str; 2] = ["not_found", "method_not_allowed"];

#[test]
fn each_class_has_its_status_on_the_page() {
    let classes = rows(introduction(), "class");
    for row in &classes {
        let class = Class::parse(literal(row[0])).unwrap_or_else(|| panic!("no class: {}", row[0]));
        let (status, exit) = (class.status().to_string(), class.exit_code().to_string());
        assert_eq!((row[1], row[2]), (status.as_str(), exit.as_str()), "{}", row[0]);
    }
    assert_eq!(classes.len(), 7, "the page has each class once");
    for section in sections().iter().filter(|section| section.route != "POST /oauth/token") {
        for row in rows(section.text, "error").iter().chain(&rows(introduction(), "error")) {
            let class = Class::parse(literal(row[1])).unwrap_or_else(|| panic!("no class: {row:?}"));
            let has_own = OWN_STATUS.contains(&literal(row[0])) || section.route == "ANY /mcp/NAME";
            assert!(has_own || row[2] == class.status().to_string(), "{}: {row:?}", section.route);
        }
    }
}
