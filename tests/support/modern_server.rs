//! `FakeModern`: an MCP server that speaks 2026-07-28 alone, at the place of a daemon: `/mcp/NAME` on a Unix socket, without a token.
//!
//! It verifies what the official servers do: POST alone, no session, `_meta` with version and capabilities, `MCP-Protocol-Version`,
//! `Mcp-Method`, `Mcp-Name` and `Mcp-Param-*` equal to the body and each there once, no notification or response of a client. What
//! breaks a rule is refused as they refuse it and is kept as a fault. An input is asked for only if the client declared it, unless
//! the test wants that mistake.
//!
//! | tool | what |
//! |---|---|
//! | `echo` | says its `text`; `region` and `to.dry_run` are fields, too |
//! | `ask` | asks everything that `kinds` names, then says what was answered; each round has a new state |
//! | `busy` | wants its state back `times` times |
//! | `log` | sends progress and two messages of its log |
//! | `wait` | never answers |
//! | `odd` | gives a result of the type that is its `type` |
//! | `bad` | declares a field that must not be one |

use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::fault;
use super::listener::Body;

const VERSION: &str = "2026-07-28";
const KEY: &str = "io.modelcontextprotocol/";
/// The methods that it knows.
const METHODS: [&str; 10] = [
    "server/discover",
    "tools/list",
    "tools/call",
    "prompts/list",
    "prompts/get",
    "resources/list",
    "resources/read",
    "resources/templates/list",
    "completion/complete",
    "subscriptions/listen",
];

/// A message that it got.
#[derive(Clone, Debug)]
pub struct Got {
    pub message: Value,
    pub fields: Vec<(String, String)>,
    /// The body, as it came.
    pub body: String,
}

impl Got {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn meta(&self, name: &str) -> &Value {
        &self.message["params"]["_meta"][format!("{KEY}{name}")]
    }
}

/// What tests change.
pub struct Knobs {
    /// How `initialize` is refused: status, and code of the error.
    pub refusal: (u16, i64),
    /// It answers as one that knows sessions, and not `server/discover`.
    pub is_legacy: bool,
    pub capabilities: Value,
    /// It asks for more than the client declared.
    pub is_greedy: bool,
    /// The name of the field of `echo`.
    pub field: String,
    /// So many streams of subscriptions are refused, with this status.
    pub refuse_listen: (usize, u16),
}

struct State {
    knobs: Mutex<Knobs>,
    got: Mutex<Vec<Got>>,
    faults: Mutex<Vec<String>>,
    listening: Mutex<Vec<Listening>>,
    /// Streams of `wait` that are open.
    waiting: Mutex<Vec<mpsc::Sender<Event>>>,
}

/// An open subscription.
struct Listening {
    id: Value,
    filter: Value,
    stream: mpsc::Sender<Event>,
}

enum Event {
    Message(Value),
    Break,
}

pub struct FakeModern {
    state: Arc<State>,
    accepts: JoinHandle<()>,
}

impl FakeModern {
    pub fn start(socket: &Path) -> Self {
        let capabilities = json!({
            "tools": {"listChanged": true}, "prompts": {}, "logging": {},
            "resources": {"subscribe": true, "listChanged": true},
        });
        let knobs = Knobs {
            refusal: (400, -32022),
            is_legacy: false,
            capabilities,
            is_greedy: false,
            field: "Region".to_owned(),
            refuse_listen: (0, 503),
        };
        let state = Arc::new(State {
            knobs: Mutex::new(knobs),
            got: Mutex::default(),
            faults: Mutex::default(),
            listening: Mutex::default(),
            waiting: Mutex::default(),
        });
        let listener = UnixListener::bind(socket).expect("nobody else is there");
        let shared = Arc::clone(&state);
        let accepts = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                connections.spawn(async move {
                    let service = service_fn(move |request| answer(Arc::clone(&state), request));
                    // Tests often break a connection on purpose, so errors are ignored.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { state, accepts }
    }

    pub fn knobs(&self) -> MutexGuard<'_, Knobs> {
        self.state.knobs.lock().expect("never held over a panic")
    }

    /// Every message of this method so far.
    pub fn got(&self, method: &str) -> Vec<Got> {
        let got = self.state.got.lock().expect("never held over a panic");
        got.iter().filter(|got| got.message["method"] == method).cloned().collect()
    }

    /// What broke a rule so far.
    pub fn faults(&self) -> Vec<String> {
        self.state.faults.lock().expect("never held over a panic").clone()
    }

    /// The filters of the open subscriptions.
    pub fn filters(&self) -> Vec<Value> {
        self.state.open().iter().map(|one| one.filter.clone()).collect()
    }

    /// How many calls of `wait` are open.
    pub fn waiting(&self) -> usize {
        let mut waiting = self.state.waiting.lock().expect("never held over a panic");
        waiting.retain(|stream| !stream.is_closed());
        waiting.len()
    }

    /// A list has changed: `tools`, `prompts` or `resources`.
    pub fn changed(&self, list: &str) {
        let is_wanted = |filter: &Value| filter[format!("{list}ListChanged")] == true;
        self.state.publish(&format!("notifications/{list}/list_changed"), json!({}), is_wanted);
    }

    /// A resource has changed.
    pub fn updated(&self, uri: &str) {
        let is_wanted = |filter: &Value| {
            filter["resourceSubscriptions"].as_array().is_some_and(|uris| uris.iter().any(|one| one == uri))
        };
        self.state.publish("notifications/resources/updated", json!({"uri": uri}), is_wanted);
    }

    /// Sends this to every subscription.
    pub fn say(&self, message: &Value) {
        for one in self.state.open().iter() {
            one.stream.try_send(Event::Message(message.clone())).expect("there is room");
        }
    }

    /// Breaks every subscription.
    pub fn break_subscriptions(&self) {
        for one in self.state.open().drain(..) {
            one.stream.try_send(Event::Break).expect("there is room");
        }
    }

    /// Ends every subscription in good order.
    pub fn end_subscriptions(&self) {
        for one in self.state.open().drain(..) {
            let result = json!({"resultType": "complete", "_meta": {format!("{KEY}subscriptionId"): one.id}});
            let end = json!({"jsonrpc": "2.0", "id": one.id, "result": result});
            one.stream.try_send(Event::Message(end)).expect("there is room");
        }
    }
}

impl Drop for FakeModern {
    fn drop(&mut self) {
        self.accepts.abort();
    }
}

impl State {
    fn knobs(&self) -> MutexGuard<'_, Knobs> {
        self.knobs.lock().expect("never held over a panic")
    }

    fn open(&self) -> MutexGuard<'_, Vec<Listening>> {
        let mut open = self.listening.lock().expect("never held over a panic");
        open.retain(|one| !one.stream.is_closed());
        open
    }

    fn publish(&self, method: &str, params: Value, is_wanted: impl Fn(&Value) -> bool) {
        for one in self.open().iter().filter(|one| is_wanted(&one.filter)) {
            let mut params = params.clone();
            params["_meta"] = json!({format!("{KEY}subscriptionId"): one.id});
            let message = json!({"jsonrpc": "2.0", "method": method, "params": params});
            one.stream.try_send(Event::Message(message)).expect("there is room");
        }
    }

    fn fault(&self, what: String) {
        self.faults.lock().expect("never held over a panic").push(what);
    }
}

type Reply = Response<Body>;

fn whole(status: u16, message: &Value) -> Reply {
    fault::json(status, message.to_string())
}

/// An error with the status that belongs to it.
fn error(id: &Value, status: u16, code: i64, message: &str) -> Reply {
    let data = json!({"supported": [VERSION]});
    whole(status, &json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message, "data": data}}))
}

fn result(id: &Value, mut result: Value) -> Value {
    if result.get("resultType").is_none() {
        result["resultType"] = json!("complete");
    }
    json!({"jsonrpc": "2.0", "id": id, "result": result})
}

/// An event stream with these messages, and then what is sent.
fn events(first: Vec<Value>, then: Option<mpsc::Receiver<Event>>) -> Reply {
    let framed = |message: &Value| Ok(Frame::data(Bytes::from(format!("event: message\ndata: {message}\n\n"))));
    let first: Vec<Result<Frame<Bytes>, std::io::Error>> = first.iter().map(framed).collect();
    let rest = stream::unfold(then, move |then| async move {
        let mut then = then?;
        match then.recv().await? {
            // The end of a subscription ends its stream.
            Event::Message(message) if message.get("id").is_some() && message.get("method").is_none() => {
                Some((framed(&message), None))
            }
            Event::Message(message) => Some((framed(&message), Some(then))),
            Event::Break => Some((Err(std::io::ErrorKind::ConnectionReset.into()), None)),
        }
    });
    let body = StreamBody::new(futures_util::StreamExt::chain(stream::iter(first), rest)).boxed_unsync();
    Response::builder().header(CONTENT_TYPE, "text/event-stream").body(body).expect("a response")
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Reply, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
    let text = |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let fields = head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    let body = String::from_utf8_lossy(&body).into_owned();
    state.got.lock().expect("never held over a panic").push(Got { message: message.clone(), fields, body });
    if head.method != Method::POST {
        state.fault(format!("{} {}", head.method, head.uri));
        return Ok(fault::json(405, json!({"error": "no sessions here"}).to_string()));
    }
    let (id, method) = (message["id"].clone(), message["method"].as_str().unwrap_or_default().to_owned());
    if state.knobs().is_legacy && !id.is_null() {
        return Ok(legacy(&id, &method));
    }
    if method == "initialize" {
        let (status, code) = state.knobs().refusal;
        return Ok(error(&id, status, code, "this endpoint serves 2026-07-28 alone"));
    }
    if id.is_null() || method.is_empty() {
        state.fault(format!("a notification or a response of the client: {message}"));
        return Ok(fault::json(202, String::new()));
    }
    if let Err((code, what)) = check(&state, &head.headers, &message) {
        state.fault(what.clone());
        return Ok(error(&id, if code == -32601 { 404 } else { 400 }, code, &what));
    }
    Ok(serve(&state, &id, &method, &message["params"]))
}

fn legacy(id: &Value, method: &str) -> Reply {
    if method != "initialize" {
        return error(id, 400, -32000, "Bad Request: Server not initialized");
    }
    let server = json!({"name": "old", "version": "1"});
    let hello = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": server});
    whole(200, &json!({"jsonrpc": "2.0", "id": id, "result": hello}))
}

/// What every request must be.
fn check(state: &State, fields: &HeaderMap, message: &Value) -> Result<(), (i64, String)> {
    let params = &message["params"];
    let method = message["method"].as_str().unwrap_or_default();
    let meta = |name: &str| &params["_meta"][format!("{KEY}{name}")];
    if !meta("clientCapabilities").is_object() || meta("protocolVersion").as_str().is_none() {
        return Err((-32602, format!("{method}: the envelope is missing")));
    }
    let mut names: Vec<&str> = fields.keys().map(|name| name.as_str()).collect();
    names.retain(|name| fields.get_all(*name).iter().count() > 1);
    if !names.is_empty() || fields.contains_key("mcp-session-id") {
        return Err((-32020, format!("{method}: {names:?} twice, or a session")));
    }
    let name = match method {
        "tools/call" | "prompts/get" => params["name"].as_str(),
        "resources/read" => params["uri"].as_str(),
        _ => None,
    };
    let expected =
        [("mcp-protocol-version", meta("protocolVersion").as_str()), ("mcp-method", Some(method)), ("mcp-name", name)];
    for (field, value) in expected {
        let found = fields.get(field).map(decoded);
        if found.as_deref() != value {
            return Err((-32020, format!("{method}: {field} is {found:?} and not {value:?}")));
        }
    }
    if meta("protocolVersion") != VERSION {
        return Err((-32022, format!("{method}: another version")));
    }
    if !METHODS.contains(&method) {
        return Err((-32601, format!("{method}: unknown")));
    }
    if params["name"] == "echo" {
        let region = format!("mcp-param-{}", state.knobs().field.to_lowercase());
        let arguments = &params["arguments"];
        for (field, value) in [(region.as_str(), &arguments["region"]), ("mcp-param-dry", &arguments["to"]["dry_run"])]
        {
            let value = match value {
                Value::Null => None,
                Value::String(text) => Some(text.clone()),
                other => Some(other.to_string()),
            };
            let found = fields.get(field).map(decoded);
            if found != value {
                return Err((-32020, format!("{method}: {field} is {found:?} and not {value:?}")));
            }
        }
    }
    Ok(())
}

/// The value of a field, out of its base64 form.
fn decoded(value: &hyper::header::HeaderValue) -> String {
    let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
    let inner = text.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?="));
    let bytes = inner.map(|inner| STANDARD.decode(inner).expect("canonical base64"));
    bytes.map_or(text, |bytes| String::from_utf8(bytes).expect("UTF-8"))
}

fn serve(state: &State, id: &Value, method: &str, params: &Value) -> Reply {
    let cached = |mut value: Value| {
        (value["ttlMs"], value["cacheScope"]) = (json!(0), json!("private"));
        whole(200, &result(id, value))
    };
    match method {
        "server/discover" => cached(json!({
            "supportedVersions": [VERSION], "capabilities": state.knobs().capabilities, "instructions": "be kind",
            "_meta": {format!("{KEY}serverInfo"): {"name": "modern", "version": "7"}},
        })),
        "tools/list" => cached(json!({"tools": tools(&state.knobs().field)})),
        "tools/call" => call(state, id, params),
        "subscriptions/listen" => listen(state, id, &params["notifications"]),
        "resources/read" => cached(json!({"contents": [{"uri": params["uri"], "text": "x"}]})),
        "prompts/get" if params["requestState"].is_null() => {
            whole(200, &result(id, json!({"resultType": "input_required", "requestState": "p"})))
        }
        "prompts/get" => whole(200, &result(id, json!({"messages": []}))),
        // It must not ask here.
        "completion/complete" => whole(200, &result(id, json!({"resultType": "input_required", "requestState": "c"}))),
        _ => cached(json!({})),
    }
}

fn tools(field: &str) -> Value {
    let region = json!({"type": "string", "x-mcp-header": field});
    let to = json!({"type": "object", "properties": {"dry_run": {"type": "boolean", "x-mcp-header": "Dry"}}});
    let tool = |name: &str, properties: Value| json!({"name": name, "inputSchema": {"type": "object", "properties": properties}});
    json!([
        tool("echo", json!({"region": region, "to": to})),
        tool("bad", json!({"x": {"type": "number", "x-mcp-header": "X"}})),
        tool("ask", json!({})),
    ])
}

fn said(text: &str) -> Value {
    json!({"content": [{"type": "text", "text": text}]})
}

fn call(state: &State, id: &Value, params: &Value) -> Reply {
    let arguments = &params["arguments"];
    match params["name"].as_str().unwrap_or_default() {
        "echo" => whole(200, &result(id, said(arguments["text"].as_str().unwrap_or_default()))),
        "ask" => ask(state, id, params),
        "busy" => {
            let done = params["requestState"].as_str().map_or(0, |state| state.len());
            if done >= usize::try_from(arguments["times"].as_u64().unwrap_or(1)).expect("a small number") {
                return whole(200, &result(id, said("done")));
            }
            let again = json!({"resultType": "input_required", "requestState": "s".repeat(done + 1)});
            whole(200, &result(id, again))
        }
        "log" => {
            let level = params["_meta"][format!("{KEY}logLevel")].clone();
            let mut messages = vec![json!({"jsonrpc": "2.0", "method": "notifications/progress", "params":
                {"progressToken": params["_meta"]["progressToken"], "progress": 1}})];
            if !level.is_null() {
                messages.push(json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": level, "data": "x"}}));
            }
            // Which is against the rules of this wire.
            messages.push(json!({"jsonrpc": "2.0", "id": 1, "method": "roots/list"}));
            messages.push(result(id, said("logged")));
            events(messages, None)
        }
        "wait" => {
            let (sender, receiver) = mpsc::channel(1);
            state.waiting.lock().expect("never held over a panic").push(sender);
            events(Vec::new(), Some(receiver))
        }
        "odd" => whole(200, &result(id, json!({"resultType": arguments["type"]}))),
        _ => error(id, 200, -32602, "no such tool"),
    }
}

/// Asks for everything, then says what it has got.
fn ask(state: &State, id: &Value, params: &Value) -> Reply {
    let declared = &params["_meta"][format!("{KEY}clientCapabilities")];
    if !params["inputResponses"].is_null() {
        let said_back = json!({"answers": params["inputResponses"], "state": params["requestState"]}).to_string();
        return whole(200, &result(id, said(&said_back)));
    }
    let mut requests = serde_json::Map::new();
    for kind in params["arguments"]["kinds"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let (capability, request) = match kind {
            "roots" => ("roots", json!({"method": "roots/list"})),
            "sampling" => {
                ("sampling", json!({"method": "sampling/createMessage", "params": {"messages": [], "maxTokens": 5}}))
            }
            "form" => (
                "elicitation",
                json!({"method": "elicitation/create", "params":
                {"message": "sure?", "requestedSchema": {"type": "object", "properties": {}}}}),
            ),
            "url" => (
                "elicitation",
                json!({"method": "elicitation/create", "params": {"mode": "url", "message": "open", "url": "https://x.example.com"}}),
            ),
            other => ("", json!({"method": other})),
        };
        if declared[capability].is_null() && !state.knobs().is_greedy {
            return error(id, 400, -32021, "the client has not declared this");
        }
        requests.insert(format!("q-{kind}"), request);
    }
    let asked = json!({"resultType": "input_required", "inputRequests": requests, "requestState": "\u{e4}/\"\u{1}"});
    whole(200, &result(id, asked))
}

fn listen(state: &State, id: &Value, wanted: &Value) -> Reply {
    {
        let mut knobs = state.knobs();
        let (times, status) = knobs.refuse_listen;
        if times > 0 {
            knobs.refuse_listen = (times - 1, status);
            return error(id, status, -32603, "not now");
        }
    }
    let capabilities = state.knobs().capabilities.clone();
    let mut honored = wanted.clone();
    for (name, list) in
        [("tools", "toolsListChanged"), ("prompts", "promptsListChanged"), ("resources", "resourcesListChanged")]
    {
        if capabilities[name]["listChanged"] != true {
            honored.as_object_mut().expect("a filter").remove(list);
        }
    }
    let meta = json!({format!("{KEY}subscriptionId"): id});
    let acknowledged = json!({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged",
        "params": {"_meta": meta, "notifications": honored}});
    let (stream, receiver) = mpsc::channel(64);
    state.open().push(Listening { id: id.clone(), filter: honored, stream });
    events(vec![acknowledged], Some(receiver))
}
