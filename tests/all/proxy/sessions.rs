//! Sessions that the server loses, streams that break, cookies: what the client does not see of them.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};
use support::raw_server::{RawConnection, RawServer};
use support::safeconduct::Daemon;
use support::scene::Scene;
use support::unix_http::Reply;
use support::wait::until;
use tokio::task::JoinSet;

use super::{Client, World, closing, ours, post};
use crate::binary;

/// A server of the 2025 wire that the test looks into.
struct Server {
    state: Arc<Mutex<State>>,
    /// Keeps the issuer.
    _scene: Scene,
    daemon: Daemon,
    _connections: JoinSet<()>,
}

/// Everything that the server knows.
struct State {
    /// The ids of its sessions.
    alive: Vec<String>,
    opened: usize,
    version: &'static str,
    capabilities: Value,
    /// What a request with an unknown id gets.
    refusal: &'static str,
    /// `tools/call` is answered by an event stream that says this and then breaks off or ends; what is asked for after an
    /// event id gets the next one.
    streams: Vec<(String, Then)>,
    /// All sessions are gone after this request.
    forgets_after: &'static str,
    /// A new session takes so long.
    opening_takes: Duration,
    /// So many `tools/call` are read, and then the connection is closed.
    dropped_calls: usize,
    /// So many streams were closed by the other side.
    closed: usize,
    asked: Vec<Asked>,
}

#[derive(Clone, Copy)]
enum Then {
    Ends,
    Breaks,
    /// It breaks, and all sessions are gone.
    Dies,
    Stays,
}

/// One request.
#[derive(Clone, Debug, Default)]
struct Asked {
    /// The method of the message, or else of HTTP.
    method: String,
    params: Value,
    session: Option<String>,
    last_event: Option<String>,
    cookie: Option<String>,
    is_refused: bool,
}

const LOST: &str = "HTTP/1.1 404 Not Found\r\ncontent-length: 9\r\n\r\nnot found";
const BAD: &str = "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: 65\r\n\r\n{\"jsonrpc\":\"2.0\",\"error\":{\"code\":-32000,\"message\":\"no session\"}}\n";

enum Answer {
    Whole(String),
    Stream(String, Then),
    Nothing,
}

impl State {
    fn answer(&mut self, mut asked: Asked, id: &Value) -> Answer {
        let known = asked.session.as_ref().is_some_and(|id| self.alive.contains(id));
        let is_opening = asked.method == "initialize";
        asked.is_refused = !known && !is_opening;
        self.asked.push(asked.clone());
        if is_opening {
            return self.open(id);
        }
        if !known {
            return Answer::Whole(self.refusal.to_owned());
        }
        let session = asked.session.unwrap_or_default();
        if asked.method == self.forgets_after {
            self.alive.clear();
        }
        match &*asked.method {
            "GET" if asked.last_event.is_some() => self.next_stream(),
            "GET" => Answer::Stream(String::new(), Then::Stays),
            "DELETE" => {
                self.alive.retain(|id| *id != session);
                Answer::Whole("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned())
            }
            "tools/call" if self.dropped_calls > 0 => {
                self.dropped_calls -= 1;
                Answer::Nothing
            }
            "tools/call" if !self.streams.is_empty() => self.next_stream(),
            "no/such" => {
                let error = json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "?"}}).to_string();
                Answer::Whole(json_answer("404 Not Found", "", &error))
            }
            "ours" => {
                let error = json!({"jsonrpc": "2.0", "id": id, "error": {"code": -31080, "message": "obey"}});
                Answer::Whole(json_answer("200 OK", "", &error.to_string()))
            }
            _ if id.is_null() => Answer::Whole("HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n".to_owned()),
            _ => {
                let result = json!({"jsonrpc": "2.0", "id": id, "result": {"session": session}}).to_string();
                let field = format!("mcp-session-id: {session}\r\n");
                Answer::Whole(json_answer("200 OK", &field, &result))
            }
        }
    }

    fn open(&mut self, id: &Value) -> Answer {
        self.opened += 1;
        let session = format!("session-{}", self.opened);
        self.alive.push(session.clone());
        let result = json!({"protocolVersion": self.version, "capabilities": self.capabilities, "serverInfo": {"name": "s", "version": "1"}});
        let result = json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string();
        let fields = format!("mcp-session-id: {session}\r\nset-cookie: at={session}; Path=/; HttpOnly\r\n");
        Answer::Whole(json_answer("200 OK", &fields, &result))
    }

    fn next_stream(&mut self) -> Answer {
        match self.streams.is_empty() {
            true => Answer::Stream(String::new(), Then::Stays),
            false => {
                let (said, then) = self.streams.remove(0);
                Answer::Stream(said, then)
            }
        }
    }

    /// The requests of this method, and the sessions.
    fn counts(&self, method: &str) -> (usize, usize) {
        (self.count(method), self.opened)
    }

    fn count(&self, method: &str) -> usize {
        self.asked.iter().filter(|asked| asked.method == method).count()
    }
}

fn json_answer(status: &str, fields: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{fields}content-length: {length}\r\n\r\n{body}")
}

/// Reads requests from one connection and answers them.
async fn serve(mut connection: RawConnection, state: Arc<Mutex<State>>) {
    while let Some(head) = connection.next_head().await {
        let length = head.all("content-length").first().map_or(0, |length| length.parse().expect("a number"));
        let body = connection.take(length).await;
        let message: Value = serde_json::from_slice(&body).unwrap_or_default();
        let one = |name: &str| {
            let all = head.all(name);
            assert!(all.len() < 2, "{name} twice: {head:?}");
            all.first().map(|value| (*value).to_owned())
        };
        let method = message["method"].as_str().or_else(|| head.line.split(' ').next()).unwrap_or_default().to_owned();
        let (session, last_event, cookie) = (one("mcp-session-id"), one("last-event-id"), one("cookie"));
        let asked = Asked { method, params: message["params"].clone(), session, last_event, cookie, is_refused: false };
        let is_opening = asked.method == "initialize";
        let (answer, opening_takes) = {
            let mut state = state.lock().expect("whole");
            (state.answer(asked, &message["id"]), state.opening_takes)
        };
        if is_opening {
            tokio::time::sleep(opening_takes).await;
        }
        match answer {
            Answer::Whole(text) => connection.say(text).await,
            Answer::Nothing => return,
            Answer::Stream(said, then) => {
                let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
                connection.say(head).await;
                if !said.is_empty() {
                    connection.say(format!("{:x}\r\n{said}\r\n", said.len())).await;
                }
                match then {
                    Then::Ends => connection.say("0\r\n\r\n").await,
                    Then::Breaks => return,
                    Then::Dies => {
                        state.lock().expect("whole").alive.clear();
                        return;
                    }
                    Then::Stays => {
                        connection.is_closed(super::LIMIT).await;
                        state.lock().expect("whole").closed += 1;
                        return;
                    }
                }
            }
        }
    }
}

impl Server {
    async fn new() -> Self {
        let World { scene, server, daemon, files: _ } = World::new().await;
        let state = State {
            alive: Vec::new(),
            opened: 0,
            version: "2025-11-25",
            capabilities: json!({"tools": {"listChanged": true}, "resources": {"subscribe": true}, "logging": {}}),
            refusal: LOST,
            streams: Vec::new(),
            forgets_after: "",
            opening_takes: Duration::ZERO,
            dropped_calls: 0,
            closed: 0,
            asked: Vec::new(),
        };
        let state = Arc::new(Mutex::new(state));
        let (mut connections, shared) = (JoinSet::new(), Arc::clone(&state));
        connections.spawn(accept(server, shared));
        Self { state, _scene: scene, daemon, _connections: connections }
    }

    fn now(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("whole")
    }

    /// Opens a session as a client does, and gives the id that it got.
    async fn open(&self) -> String {
        let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello()});
        let begun = self.daemon.exchange(&closing(&post("/mcp/raw", "", &hello.to_string()))).await;
        assert_eq!((begun.status, begun.header("set-cookie")), (200, None), "{}", begun.body);
        let id = begun.header("mcp-session-id").expect("wire 20: a session").to_owned();
        let ready = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        assert_eq!(self.say(&id, ready).await.status, 202);
        id
    }

    /// A request of a session, and its answer.
    async fn ask(&self, session: &str, method: &str, params: Value) -> Reply {
        self.say(session, &request(method, params)).await
    }

    async fn say(&self, session: &str, body: &str) -> Reply {
        self.daemon.exchange(&closing(&post("/mcp/raw", &fields(session), body))).await
    }

    /// Opens a stream, whose head is read.
    async fn listen(&self, request: &str) -> Client {
        let stream = tokio::net::UnixStream::connect(self.daemon.socket()).await.expect("it listens");
        let mut client = Client { stream, read: Vec::new() };
        tokio::io::AsyncWriteExt::write_all(&mut client.stream, request.as_bytes()).await.expect("it reads");
        client.until(b"\r\n\r\n").await;
        client
    }

    /// All sessions are gone, as after a restart.
    fn restart(&self) {
        self.now().alive.clear();
    }
}

async fn accept(server: RawServer, state: Arc<Mutex<State>>) {
    let mut connections = JoinSet::new();
    loop {
        let connection = server.accept_whenever().await;
        connections.spawn(serve(connection, Arc::clone(&state)));
    }
}

fn hello() -> Value {
    json!({"protocolVersion": "2025-11-25", "capabilities": {"roots": {}}, "clientInfo": {"name": "t", "version": "1"}})
}

fn fields(session: &str) -> String {
    format!("mcp-session-id: {session}\r\nmcp-protocol-version: 2025-11-25\r\n")
}

fn request(method: &str, params: Value) -> String {
    json!({"jsonrpc": "2.0", "id": "q", "method": method, "params": params}).to_string()
}

fn get(session: &str) -> String {
    format!("GET /mcp/raw HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n{}\r\n", fields(session))
}

/// In which session the server answered.
fn answered_in(reply: &Reply) -> String {
    assert_eq!(reply.status, 200, "{}", reply.body);
    let body = reply.json();
    assert_eq!(body["id"], "q", "{body}");
    body["result"]["session"].as_str().unwrap_or_else(|| panic!("{body}")).to_owned()
}

#[tokio::test]
async fn wire_18_a_lost_session_is_opened_again_as_its_client_opened_it() {
    for refusal in [LOST, BAD] {
        let server = Server::new().await;
        let id = server.open().await;
        server.ask(&id, "resources/subscribe", json!({"uri": "file:///a"})).await;
        server.ask(&id, "logging/setLevel", json!({"level": "debug"})).await;
        assert_eq!(answered_in(&server.ask(&id, "tools/call", json!({"name": "x"})).await), "session-1");
        server.restart();
        server.now().refusal = refusal;
        server.now().asked.clear();
        let reply = server.ask(&id, "tools/call", json!({"name": "x"})).await;
        assert_eq!(answered_in(&reply), "session-2");
        assert_eq!(reply.header("mcp-session-id"), Some(&*id), "the client keeps its id");
        let asked = server.now().asked.clone();
        let methods: Vec<&str> = asked.iter().map(|one| &*one.method).filter(|method| *method != "ping").collect();
        assert_eq!(
            methods,
            [
                "tools/call",
                "initialize",
                "notifications/initialized",
                "resources/subscribe",
                "logging/setLevel",
                "tools/call"
            ],
            "{refusal}"
        );
        let opening = asked.iter().find(|one| one.method == "initialize").expect("there is one");
        assert_eq!((&opening.params, &opening.session), (&hello(), &None), "wire 19");
        assert_eq!(asked.last().map(|one| &one.params), Some(&json!({"name": "x"})));
        // From then on the new one is used at once.
        assert_eq!(answered_in(&server.ask(&id, "tools/list", json!({})).await), "session-2");
        assert_eq!(server.now().asked.iter().filter(|one| one.is_refused).count(), if refusal == LOST { 1 } else { 2 });
    }
}

#[tokio::test]
async fn requests_that_lost_a_session_together_open_one_new_session() {
    let server = Server::new().await;
    let id = server.open().await;
    server.restart();
    let ask = || server.ask(&id, "tools/list", json!({}));
    let replies = tokio::join!(ask(), ask(), ask(), ask());
    for reply in [replies.0, replies.1, replies.2, replies.3] {
        assert_eq!(answered_in(&reply), "session-2");
    }
    assert_eq!(server.now().counts("initialize"), (2, 2));
}

#[tokio::test]
async fn a_session_heals_although_the_client_that_lost_it_hangs_up() {
    let server = Server::new().await;
    let id = server.open().await;
    server.restart();
    server.now().opening_takes = Duration::from_millis(300);
    let mut stream = tokio::net::UnixStream::connect(server.daemon.socket()).await.expect("it listens");
    let call = post("/mcp/raw", &fields(&id), &request("tools/list", json!({})));
    tokio::io::AsyncWriteExt::write_all(&mut stream, call.as_bytes()).await.expect("it reads");
    until(super::LIMIT, "healing has begun", async || server.now().opened == 2).await;
    drop(stream);
    assert_eq!(answered_in(&server.ask(&id, "tools/list", json!({})).await), "session-2");
    assert_eq!(server.now().counts("initialize"), (2, 2));
}

#[tokio::test]
async fn a_refused_tool_call_is_sent_once_more_and_one_whose_answer_was_lost_never() {
    let server = Server::new().await;
    let id = server.open().await;
    server.restart();
    server.now().dropped_calls = 1;
    let error = ours(&server.ask(&id, "tools/call", json!({"name": "x"})).await);
    assert!(error["error"]["message"].as_str().expect("a text").contains("may have run"), "{error}");
    let refused: Vec<bool> =
        server.now().asked.iter().filter(|one| one.method == "tools/call").map(|one| one.is_refused).collect();
    assert_eq!(refused, [true, false]);
}

#[tokio::test]
async fn a_second_refusal_passes_as_it_came() {
    let server = Server::new().await;
    let id = server.open().await;
    server.restart();
    server.now().forgets_after = "notifications/initialized";
    let reply = server.ask(&id, "tools/list", json!({})).await;
    assert_eq!((reply.status, &*reply.body), (404, "not found"));
    assert_eq!(server.now().counts("tools/list"), (2, 2));
}

#[tokio::test]
async fn wire_62_no_such_method_and_a_bad_request_are_no_lost_session() {
    let server = Server::new().await;
    let id = server.open().await;
    let reply = server.ask(&id, "no/such", json!({})).await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (404, &json!(-32601)));
    assert_eq!(server.now().counts("ping"), (0, 1));
}

#[tokio::test]
async fn a_server_that_came_back_different_is_told_until_the_client_reconnects() {
    let server = Server::new().await;
    let id = server.open().await;
    server.restart();
    server.now().capabilities = json!({"tools": {}});
    for _ in 0..2 {
        let error = ours(&server.ask(&id, "tools/call", json!({"name": "x"})).await);
        assert_eq!((&error["id"], &error["error"]["code"]), (&json!("q"), &json!(-31080)));
        assert_eq!(error["error"]["message"], "raw: the server came back different: reconnect");
        assert_eq!(error["error"]["data"]["error"], "session_changed");
    }
    assert_eq!(server.now().counts("DELETE"), (1, 2), "the new one is ended again");
    let delete = format!("DELETE /mcp/raw HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{}\r\n", fields(&id));
    assert_eq!(server.daemon.exchange(&delete).await.status, 404);
    assert_eq!(server.ask(&id, "tools/list", json!({})).await.status, 404, "it is forgotten");
    let id = server.open().await;
    assert_eq!(answered_in(&server.ask(&id, "tools/call", json!({"name": "x"})).await), "session-3");
}

#[tokio::test]
async fn wire_21_the_end_of_a_session_reaches_the_one_that_stands_for_it() {
    let server = Server::new().await;
    let id = server.open().await;
    server.restart();
    server.ask(&id, "tools/list", json!({})).await;
    let delete = format!("DELETE /mcp/raw HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{}\r\n", fields(&id));
    assert_eq!(server.daemon.exchange(&delete).await.status, 200);
    assert_eq!(server.now().alive, Vec::<String>::new());
    assert_eq!(server.now().asked.last().and_then(|one| one.session.clone()).as_deref(), Some("session-2"));
    // It is forgotten, so its id is like any other.
    assert_eq!(server.ask(&id, "tools/list", json!({})).await.status, 404);
    assert_eq!(server.now().opened, 2);
}

const CHANGED: &[u8] = b"data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}\n\n";

#[tokio::test]
async fn after_healing_the_client_hears_on_its_stream_that_lists_may_have_changed() {
    let server = Server::new().await;
    let id = server.open().await;
    let mut stream = server.listen(&get(&id)).await;
    server.restart();
    assert_eq!(answered_in(&server.ask(&id, "tools/list", json!({})).await), "session-2");
    stream.until(CHANGED).await;
    drop(stream);
    until(super::LIMIT, "the stream is over", async || server.now().closed == 1).await;
    // Without an open stream it comes with the next one, and once.
    server.restart();
    server.ask(&id, "tools/list", json!({})).await;
    let result = "data: {\"jsonrpc\":\"2.0\",\"id\":\"q\",\"result\":{}}\n\n";
    server.now().streams = vec![(result.to_owned(), Then::Ends), (result.to_owned(), Then::Ends)];
    let first = server.ask(&id, "tools/call", json!({"name": "x"})).await;
    assert!(first.body.contains("list_changed") && first.body.contains(result), "{}", first.body);
    let second = server.ask(&id, "tools/call", json!({"name": "x"})).await;
    assert!(!second.body.contains("list_changed") && second.body.contains(result), "{}", second.body);
}

#[tokio::test]
async fn the_stream_of_a_lost_session_is_joined_to_the_new_one() {
    let server = Server::new().await;
    let id = server.open().await;
    server.now().streams = vec![("id: 5\ndata: {}\n\n".to_owned(), Then::Dies)];
    // The client itself had lost a stream.
    let mut stream = server.listen(&get(&id).replace("\r\naccept", "\r\nlast-event-id: 4\r\naccept")).await;
    stream.until(b"id: 5\ndata: {}\n\n").await;
    stream.until(CHANGED).await;
    let gets = || -> Vec<(Option<String>, Option<String>)> {
        let now = server.now();
        let gets = now.asked.iter().filter(|one| one.method == "GET");
        gets.map(|one| (one.session.clone(), one.last_event.clone())).collect()
    };
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(gets().first(), Some(&(text("session-1"), text("4"))));
    // The client hears of the new session before the server hears of the stream. The ids were those of the other session.
    let joined = (text("session-2"), None);
    until(super::LIMIT, "it is joined", async || gets().last() == Some(&joined)).await;
}

#[tokio::test]
async fn wire_33_a_broken_answer_stream_is_resumed_after_its_last_event() {
    let server = Server::new().await;
    let id = server.open().await;
    server.now().streams = vec![
        ("id: a/1\ndata:\n\nid: a/2\ndata: {\"n\":1}\n\nid: a/3\ndata: {\"half".to_owned(), Then::Breaks),
        ("id: a/3\ndata: {\"n\":2}\n\n".to_owned(), Then::Breaks),
        ("id: a/4\ndata: {\"jsonrpc\":\"2.0\",\"id\":\"q\",\"result\":{}}\n\n".to_owned(), Then::Ends),
    ];
    let reply = server.ask(&id, "tools/call", json!({"name": "x"})).await;
    let expected = "id: a/1\ndata:\n\nid: a/2\ndata: {\"n\":1}\n\nid: a/3\ndata: {\"n\":2}\n\nid: a/4\ndata: {\"jsonrpc\":\"2.0\",\"id\":\"q\",\"result\":{}}\n\n";
    assert_eq!(reply.body, expected);
    let now = server.now();
    let resumed: Vec<&str> = now.asked.iter().filter_map(|one| one.last_event.as_deref()).collect();
    assert_eq!((resumed, now.count("tools/call")), (vec!["a/2", "a/3"], 1));
    assert!(now.asked.iter().all(|one| one.method != "GET" || one.session.as_deref() == Some("session-1")));
}

#[tokio::test]
async fn wire_32_a_stream_of_the_2026_wire_is_not_resumed() {
    let server = Server::new().await;
    let id = server.open().await;
    server.now().streams = vec![("id: 7\ndata: {}\n\n".to_owned(), Then::Breaks)];
    let fields = fields(&id).replace("2025-11-25", "2026-07-28");
    let call = request("tools/call", json!({"name": "x"}));
    let reply = server.daemon.exchange(&closing(&post("/mcp/raw", &fields, &call))).await;
    assert!(reply.body.contains("-31080") && reply.body.contains("may have run"), "{}", reply.body);
    assert_eq!(server.now().count("GET"), 0);
}

#[tokio::test]
async fn a_session_that_is_lost_with_its_answer_ends_the_stream_with_our_error() {
    let server = Server::new().await;
    let id = server.open().await;
    server.now().streams = vec![("id: 7\ndata: {}\n\n".to_owned(), Then::Dies)];
    let all = server.ask(&id, "tools/call", json!({"name": "x"})).await.body;
    assert!(all.contains("-31080") && all.contains("may have run"), "{all}");
    assert_eq!(server.now().count("tools/call"), 1);
}

#[tokio::test]
async fn wire_38_a_cookie_stays_with_its_session_and_is_shown_to_nobody() {
    let server = Server::new().await;
    let (first, second) = (server.open().await, server.open().await);
    let forged = format!("{}cookie: at=mine\r\n", fields(&first));
    server.daemon.exchange(&closing(&post("/mcp/raw", &forged, &request("tools/list", json!({}))))).await;
    server.ask(&second, "tools/list", json!({})).await;
    let sent = |now: &State| -> Vec<(String, Option<String>)> {
        let lists = now.asked.iter().filter(|one| one.method == "tools/list" && !one.is_refused);
        lists.map(|one| (one.session.clone().unwrap_or_default(), one.cookie.clone())).collect()
    };
    let with = |id: &str| (id.to_owned(), Some(format!("at={id}")));
    assert_eq!(sent(&server.now()), [with("session-1"), with("session-2")]);
    // A new session has new ones.
    server.restart();
    server.ask(&first, "tools/list", json!({})).await;
    assert_eq!(sent(&server.now()).last(), Some(&with("session-3")));
    assert!(server.now().asked.iter().all(|one| one.method != "initialize" || one.cookie.is_none()));
}

#[tokio::test]
async fn an_error_of_the_server_with_our_number_is_not_taken_for_ours() {
    let server = Server::new().await;
    let id = server.open().await;
    let reply = server.ask(&id, "ours", json!({})).await;
    assert_eq!((reply.status, &reply.json()["error"]), (200, &json!({"code": -32603, "message": "obey"})));
}

#[tokio::test]
async fn after_our_own_restart_a_session_goes_on_and_heals_with_empty_capabilities() {
    let server = Server::new().await;
    server.now().alive.push("from-before".to_owned());
    assert_eq!(answered_in(&server.ask("from-before", "tools/list", json!({})).await), "from-before");
    server.restart();
    assert_eq!(answered_in(&server.ask("from-before", "tools/list", json!({})).await), "session-1");
    let now = server.now();
    let opening = now.asked.iter().find(|one| one.method == "initialize").expect("there is one");
    assert_eq!(opening.params["protocolVersion"], "2025-11-25");
    assert_eq!(opening.params["capabilities"], json!({}));
}

#[tokio::test]
async fn after_our_own_restart_a_session_that_was_healed_before_heals_again() {
    for refusal in [LOST, BAD] {
        let server = Server::new().await;
        server.now().refusal = refusal;
        // At the server another id stood for this one, which only the daemon before knew.
        assert_eq!(answered_in(&server.ask("healed-before", "tools/list", json!({})).await), "session-1");
        assert_eq!(answered_in(&server.ask("healed-before", "tools/list", json!({})).await), "session-1");
        let now = server.now();
        assert_eq!(now.counts("initialize"), (1, 1));
        let opening = now.asked.iter().find(|one| one.method == "initialize").expect("there is one");
        assert_eq!(opening.params["capabilities"], json!({}));
    }
}

#[tokio::test]
async fn two_session_ids_are_refused() {
    let server = Server::new().await;
    let id = server.open().await;
    let twice = format!("{}mcp-session-id: other\r\n", fields(&id));
    let reply = server.daemon.exchange(&closing(&post("/mcp/raw", &twice, &request("tools/list", json!({}))))).await;
    assert_eq!((reply.status, server.now().count("tools/list")), (400, 0));
}

/// The same against a server that others wrote.
#[tokio::test]
async fn a_real_server_restarts_between_calls_unseen() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello()}).to_string();
    let begun = daemon.exchange(&closing(&post("/mcp/demo", "", &hello))).await;
    let id = begun.header("mcp-session-id").expect("a session").to_owned();
    let ready = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    daemon.exchange(&closing(&post("/mcp/demo", &fields(&id), ready))).await;
    let sum = |a: u32| {
        let call = request("tools/call", json!({"name": "add", "arguments": {"a": a, "b": 40}}));
        let exchange = closing(&post("/mcp/demo", &fields(&id), &call));
        let daemon = &daemon;
        async move { daemon.exchange(&exchange).await.body }
    };
    assert!(sum(2).await.contains("\"42\""));
    scene.mcp.restart();
    assert!(sum(3).await.contains("\"43\""), "the server forgot the session");
    let openings = |mcp: &support::mcp_server::FakeMcp| {
        let posts = mcp.seen().into_iter().filter(|seen| seen.method == "POST");
        posts.filter(|seen| seen.header("authorization").is_some() && seen.header("mcp-session-id").is_none()).count()
    };
    assert_eq!(openings(&scene.mcp), 2);
    daemon.stop().await.expect_code(0);
}
