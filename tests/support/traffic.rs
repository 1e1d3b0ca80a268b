//! A platform's HTTP endpoint as data: the expected requests in their order, and the answer to each.
//!
//! A request that differs from the next expected one is refused and fails the case. A missing request fails the case too. So the
//! fake of a platform is a file, and a new platform needs no code.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt, Limited};
use hyper::Request;
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::Value;

use super::fault::{self, Fault};
use super::listener::{self, Bound, Listener, Unix};
use super::tls::TestCa;

/// `http.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// Served over TLS, with a certificate of the case's own CA for `localhost` and `127.0.0.1`.
    #[serde(default)]
    tls: bool,
    /// Also served on this Unix socket in the case's root directory.
    socket: Option<String>,
    /// Also replaces these hosts, which are compiled into the product.
    #[serde(default)]
    stands_for: Vec<String>,
    /// In the expected order.
    request: Vec<Expected>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    /// How often it is expected.
    #[serde(default = "once")]
    times: usize,
    /// For the last one: it may come any number of times more.
    #[serde(default)]
    or_more: bool,
    method: String,
    path: String,
    /// All pairs of the query.
    #[serde(default)]
    query: BTreeMap<String, String>,
    /// Required header fields; others are permitted.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// The complete body as JSON.
    json: Option<Value>,
    /// All pairs of the form that is the body.
    form: Option<BTreeMap<String, String>>,
    answer: Answer,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    #[serde(default = "success")]
    status: u16,
    #[serde(default = "json", rename = "type")]
    media: String,
    #[serde(default)]
    body: String,
    /// Further fields of the header.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Seconds.
    retry_after: Option<u64>,
    /// A transport fault instead of this answer: a name in [`named`].
    fault: Option<String>,
}

fn once() -> usize {
    1
}

fn success() -> u16 {
    200
}

fn json() -> String {
    "application/json".to_owned()
}

/// The address of a script. It is known before the text is complete, because the text may contain it.
pub struct Place {
    bound: Bound,
    ca: TestCa,
    /// The absolute path of its Unix socket, if it has one.
    pub socket: Option<String>,
    /// The compiled-in hosts that it replaces.
    pub stands_for: Vec<String>,
}

/// A script being served.
pub struct Traffic {
    state: Arc<State>,
    _listener: Listener,
    _ca: TestCa,
    _socket: Option<Unix>,
}

struct State {
    script: Vec<Expected>,
    /// How many requests came, and what was wrong with them.
    came: Mutex<(usize, Vec<String>)>,
}

impl Place {
    /// `text` is the content of the file. Only the part before its requests is read.
    pub async fn new(text: &str) -> Self {
        let ca = TestCa::new();
        let script: Script = toml::from_str(text).unwrap_or_else(|error| panic!("http.toml: {error}"));
        let bound = Bound::new(script.tls.then(|| ca.good())).await;
        Self { bound, ca, socket: script.socket, stands_for: script.stands_for }
    }

    pub fn base(&self) -> &str {
        self.bound.base()
    }

    pub fn ca(&self) -> &str {
        self.ca.pem()
    }

    /// The SHA-1 of its certificate.
    pub fn thumbprint(&self) -> String {
        self.ca.thumbprint()
    }

    /// Serves the script, with the placeholders replaced. `root` has the platform's files.
    pub fn serve(self, text: &str, root: Option<&Path>) -> Traffic {
        let socket = self.socket.as_ref().zip(root);
        let socket = socket.map(|(path, root)| Unix::before(&root.join(&path[1..]), self.bound.address()));
        let script: Script = toml::from_str(text).unwrap_or_else(|error| panic!("http.toml: {error}"));
        let state = Arc::new(State { script: script.request, came: Mutex::default() });
        let shared = Arc::clone(&state);
        let listener = self.bound.serve(move |request| answer(Arc::clone(&shared), request));
        Traffic { state, _listener: listener, _ca: self.ca, _socket: socket }
    }
}

impl Traffic {
    /// The unexpected, wrong and missing requests.
    pub fn problems(&self) -> Vec<String> {
        let (came, mut problems) = self.state.came.lock().expect("never held over a panic").clone();
        let wanted: usize = self.state.script.iter().map(|expected| expected.times).sum();
        let or_more = self.state.script.last().is_some_and(|expected| expected.or_more);
        if came != wanted && !(or_more && came > wanted) {
            problems.push(format!("{came} requests came, not {wanted}"));
        }
        problems
    }
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> listener::Answer {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, 64 * 1024).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let request = Request::from_parts(head, body.to_vec());
    let judged = state.next().and_then(|expected| expected.judge(&request).map(|()| expected));
    let answer = match judged {
        Ok(expected) => &expected.answer,
        Err(what) => {
            state.came.lock().expect("never held over a panic").1.push(what.clone());
            return Ok(fault::text(418, "text/plain", what));
        }
    };
    if let Some(fault) = &answer.fault {
        return named(fault).answer(&answer.body).await;
    }
    let mut reply = fault::text(answer.status, &answer.media, answer.body.clone());
    for (name, value) in &answer.headers {
        let name = hyper::header::HeaderName::from_bytes(name.as_bytes()).expect("the name of a field");
        reply.headers_mut().insert(name, value.parse().expect("the value of a field"));
    }
    if let Some(seconds) = answer.retry_after {
        reply.headers_mut().insert(hyper::header::RETRY_AFTER, seconds.into());
    }
    Ok(reply)
}

impl State {
    fn next(&self) -> Result<&Expected, String> {
        let mut came = self.came.lock().expect("never held over a panic");
        came.0 += 1;
        let mut before = 0;
        let expected = self.script.iter().find(|expected| {
            before += expected.times;
            came.0 <= before
        });
        let last = || self.script.last().filter(|expected| expected.or_more);
        expected.or_else(last).ok_or_else(|| format!("request {} came and none was expected", came.0))
    }
}

impl Expected {
    /// Says what is wrong, but never the value of a field: it may be a secret.
    fn judge(&self, request: &Request<Vec<u8>>) -> Result<(), String> {
        if (request.method().as_str(), request.uri().path()) != (&*self.method, &*self.path) {
            return Err(format!(
                "{} {} came, not {} {}",
                request.method(),
                request.uri().path(),
                self.method,
                self.path
            ));
        }
        if !are_pairs(request.uri().query().unwrap_or_default().as_bytes(), &self.query) {
            return Err("the query is another one".to_owned());
        }
        if self.form.as_ref().is_some_and(|wanted| !are_pairs(request.body(), wanted)) {
            return Err("the form is another one".to_owned());
        }
        for (name, wanted) in &self.headers {
            if request.headers().get(name).and_then(|value| value.to_str().ok()) != Some(wanted) {
                return Err(format!("the field {name} is missing or another one"));
            }
        }
        match &self.json {
            Some(wanted) if serde_json::from_slice::<Value>(request.body()).ok().as_ref() != Some(wanted) => {
                Err("the body is another one".to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// Exactly these pairs, in any order.
fn are_pairs(encoded: &[u8], wanted: &BTreeMap<String, String>) -> bool {
    let mut found: Vec<(String, String)> = url::form_urlencoded::parse(encoded).into_owned().collect();
    found.sort();
    found == wanted.clone().into_iter().collect::<Vec<_>>()
}

fn named(fault: &str) -> Fault {
    match fault {
        "stall" => Fault::Stall,
        "stall-body" => Fault::StallBody,
        "half-body" => Fault::HalfBody,
        "redirect" => Fault::Redirect("https://login.example.com/".to_owned()),
        "html" => Fault::Html,
        "huge" => Fault::HugeBody,
        "wrong-type" => Fault::WrongContentType,
        "not-json" => Fault::NotJson,
        "non-utf8" => Fault::NonUtf8,
        "down" => Fault::Down,
        other => panic!("http.toml: there is no fault {other:?}"),
    }
}
