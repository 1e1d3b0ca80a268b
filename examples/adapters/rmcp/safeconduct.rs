//! Gives each request of an MCP client that is made with the Rust SDK (`rmcp` 3.x) a fresh access token from the safeconduct daemon.
//!
//! Copy this file into your program. Beside `rmcp` with the feature `transport-streamable-http-client-reqwest` it needs `aws-lc-rs`,
//! `futures-util`, `http`, `reqwest`, `serde_json`, `sse-stream`, and `tokio` with `io-util`, `net` and `time`; `rmcp` brings most of
//! them along:
//!
//! ```ignore
//! let config = StreamableHttpClientTransportConfig::with_uri(url);
//! let transport = StreamableHttpClientTransport::with_client(Safeconduct::new("deploy"), config);
//! let client = ().serve(transport).await?;
//! ```
//!
//! The argument is the server's name or URL in the daemon's configuration. The daemon is found as `safeconduct token` finds it;
//! [`Safeconduct::socket`] names another path, and [`Safeconduct::loopback`] its loopback listener. The daemon holds the tokens and
//! renews them, so each request asks it again. If the server answers 401 with a challenge, the token is reported to the daemon once
//! and the request is sent once more. A failure that can pass (the daemon is restarted, the authorization server is down) is waited
//! for, up to [`Safeconduct::patience`].
//!
//! The daemon gives headers only for the server's own URL and what lies under it; for another URL the request fails. Signed requests
//! (AWS) work too, and tokens that are bound to a key (DPoP) unless the server wants its nonce in the proof, which `rmcp` does not show.
//!
//! This file reads the environment, connects to the daemon and reads the secret's file. It writes nothing, keeps no token, and puts
//! none into an error.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use futures_util::stream::BoxStream;
use http::{HeaderName, HeaderValue};
use reqwest::Url;
use reqwest::redirect::Policy;
use rmcp::model::ClientJsonRpcMessage;
use rmcp::transport::streamable_http_client::{
    SseError, StreamableHttpClient, StreamableHttpError, StreamableHttpPostResponse,
};
use serde_json::{Value, json};
use sse_stream::Sse;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

/// For an exchange with the daemon, which may have to ask the authorization server first.
const LIMIT: Duration = Duration::from_secs(60);
/// Between two questions while a failure may pass.
const PAUSE: Duration = Duration::from_millis(500);
/// Larger than any answer of the daemon.
const ANSWER_CAP: u64 = 256 * 1024;
/// The longest event of the MCP server, unless the transport says otherwise.
const EVENT_CAP: usize = 16 * 1024 * 1024;
const OF_THE_SYSTEM: [&str; 2] = ["/run/safeconduct", "/run/safeconduct/agent"];
const JOB_TEMP: [&str; 2] = ["RUNNER_TEMP", "AGENT_TEMPDIRECTORY"];

type Asked<T> = Result<T, SafeconductError>;
type Fields = HashMap<HeaderName, HeaderValue>;
type Failed = StreamableHttpError<reqwest::Error>;
type Uri = Arc<str>;
type Posted = StreamableHttpPostResponse;
type Session = Option<Arc<str>>;
type Text = Option<String>;
type Events = BoxStream<'static, Result<Sse, SseError>>;

/// The daemon gave no headers. The text says why, in the daemon's words. `code` and `kind` are its `error` and `class`; `kind` is
/// "temporary" too if no daemon answers. It is within a [`StreamableHttpError::Io`].
#[derive(Debug)]
pub struct SafeconductError {
    text: String,
    pub code: Option<String>,
    pub kind: Option<String>,
}

impl SafeconductError {
    fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: None, kind: None }
    }

    fn temporary(text: impl Into<String>) -> Self {
        Self { kind: Some("temporary".to_owned()), ..Self::new(text) }
    }
}

impl fmt::Display for SafeconductError {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "safeconduct: {}", self.text)
    }
}

impl std::error::Error for SafeconductError {}

impl From<SafeconductError> for Failed {
    fn from(error: SafeconductError) -> Self {
        Self::Io(io::Error::other(error))
    }
}

/// Where the daemon is.
#[derive(Clone, Debug)]
enum Daemon {
    /// Its socket, at this path or where `safeconduct token` looks for it.
    Socket(Option<PathBuf>),
    Loopback {
        address: SocketAddr,
        secret_file: PathBuf,
    },
}

/// An HTTP client for `StreamableHttpClientTransport::with_client`.
#[derive(Clone, Debug)]
pub struct Safeconduct {
    server: Arc<str>,
    daemon: Daemon,
    patience: Duration,
    http: reqwest::Client,
}

impl Safeconduct {
    pub fn new(server: &str) -> Self {
        let http = reqwest::Client::builder().redirect(Policy::none()).build();
        let http = http.expect("nothing is configured that could be wrong");
        Self { server: server.into(), daemon: Daemon::Socket(None), patience: Duration::from_secs(15), http }
    }

    /// The path of the daemon's socket.
    pub fn socket(self, path: impl Into<PathBuf>) -> Self {
        Self { daemon: Daemon::Socket(Some(path.into())), ..self }
    }

    /// The daemon's loopback listener, and the file with its secret.
    pub fn loopback(self, address: SocketAddr, secret_file: impl Into<PathBuf>) -> Self {
        Self { daemon: Daemon::Loopback { address, secret_file: secret_file.into() }, ..self }
    }

    /// How long a request waits for the end of a failure that can pass. Default: 15 seconds. After a long outage the daemon asks the
    /// authorization server less often, so its end may be met later.
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// What sends the requests to the MCP server. Let it follow no redirect, as the usual one.
    pub fn http(self, http: reqwest::Client) -> Self {
        Self { http, ..self }
    }

    /// Sends a request with the headers of the daemon, and once more with others after a 401.
    async fn sent<T, F>(&self, request: Request<'_>, fields: Fields, send: impl Fn(Fields) -> F) -> Result<T, Failed>
    where
        F: Future<Output = Result<T, Failed>>,
    {
        let with = |added: &Fields| fields.clone().into_iter().chain(added.clone()).collect();
        let added = self.fields(&request).await?;
        match send(with(&added)).await {
            Err(StreamableHttpError::AuthRequired(refused)) => {
                match self.others(&request, &added, &refused.www_authenticate_header).await? {
                    Some(others) => send(with(&others)).await,
                    None => Err(StreamableHttpError::AuthRequired(refused)),
                }
            }
            answer => answer,
        }
    }

    async fn fields(&self, request: &Request<'_>) -> Asked<Fields> {
        let digest = hash(request.body);
        let asked =
            [("server", &*self.server), ("method", request.method), ("url", request.url), ("body_sha256", &digest)];
        let answer = self.patiently("GET", &target("/v1/headers", &asked)?, None).await?;
        let unreadable = || SafeconductError::new("whoever answers is no daemon of ours");
        let found = answer["headers"].as_object().ok_or_else(unreadable)?;
        let mut fields = Fields::new();
        for (name, values) in found {
            let values: Vec<&str> = values.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let name = HeaderName::try_from(name).map_err(|_| unreadable())?;
            let mut value = HeaderValue::try_from(values.join(", ")).map_err(|_| unreadable())?;
            // So that no log shows it.
            value.set_sensitive(true);
            fields.insert(name, value);
        }
        Ok(fields)
    }

    /// What to send after a 401, or nothing if the daemon has nothing else to offer.
    async fn others(&self, request: &Request<'_>, sent: &Fields, challenge: &str) -> Asked<Option<Fields>> {
        let authorization = sent.get(&http::header::AUTHORIZATION);
        let (scheme, token) = authorization.and_then(|value| value.to_str().ok()?.split_once(' ')).unwrap_or_default();
        let is_token = scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("dpop");
        // Not the token is refused then, but its proof, which needs a nonce.
        if !is_token || challenge.contains("use_dpop_nonce") {
            return Ok(None);
        }
        let rejected = json!({ "server": &*self.server, "access_token_sha256": hash(token.as_bytes()) });
        self.patiently("POST", "/v1/reject", Some(&rejected)).await?;
        let others = self.fields(request).await?;
        // The daemon keeps a token that it has only just got: then another reason than its age made the server refuse.
        Ok((others.get(&http::header::AUTHORIZATION) != authorization).then_some(others))
    }

    async fn patiently(&self, method: &str, target: &str, body: Option<&Value>) -> Asked<Value> {
        let end = Instant::now() + self.patience;
        loop {
            let asked = tokio::time::timeout(LIMIT, self.daemon.ask(method, target, body)).await;
            let may_wait = Instant::now() < end;
            match asked.unwrap_or_else(|_| Err(SafeconductError::temporary("the daemon does not answer"))) {
                Err(error) if may_wait && error.kind.as_deref() == Some("temporary") => tokio::time::sleep(PAUSE).await,
                outcome => return outcome,
            }
        }
    }
}

/// A request to the MCP server.
struct Request<'a> {
    method: &'static str,
    url: &'a str,
    body: &'a [u8],
}

/// `rmcp` gives each request the token of the transport's configuration, which is none here, and the fields of the protocol.
impl StreamableHttpClient for Safeconduct {
    type Error = reqwest::Error;

    async fn post_message(
        &self,
        uri: Uri,
        message: ClientJsonRpcMessage,
        session: Session,
        _: Text,
        fields: Fields,
    ) -> Result<Posted, Failed> {
        self.post_message_with_max_sse_event_size(uri, message, session, None, fields, EVENT_CAP).await
    }

    async fn post_message_with_max_sse_event_size(
        &self,
        uri: Uri,
        message: ClientJsonRpcMessage,
        session: Session,
        _: Text,
        fields: Fields,
        most: usize,
    ) -> Result<Posted, Failed> {
        // As `reqwest` writes it.
        let body = serde_json::to_vec(&message)?;
        let request = Request { method: "POST", url: &uri, body: &body };
        let send = |fields| {
            let (uri, message, session) = (uri.clone(), message.clone(), session.clone());
            self.http.post_message_with_max_sse_event_size(uri, message, session, None, fields, most)
        };
        self.sent(request, fields, send).await
    }

    async fn delete_session(&self, uri: Uri, session: Arc<str>, _: Text, fields: Fields) -> Result<(), Failed> {
        let send = |fields| self.http.delete_session(uri.clone(), session.clone(), None, fields);
        self.sent(Request { method: "DELETE", url: &uri, body: &[] }, fields, send).await
    }

    async fn get_stream(
        &self,
        uri: Uri,
        session: Session,
        last: Text,
        _: Text,
        fields: Fields,
    ) -> Result<Events, Failed> {
        self.get_stream_with_max_sse_event_size(uri, session, last, None, fields, EVENT_CAP).await
    }

    async fn get_stream_with_max_sse_event_size(
        &self,
        uri: Uri,
        session: Session,
        last: Text,
        _: Text,
        fields: Fields,
        most: usize,
    ) -> Result<Events, Failed> {
        let send = |fields| {
            let (uri, session, last) = (uri.clone(), session.clone(), last.clone());
            self.http.get_stream_with_max_sse_event_size(uri, session, last, None, fields, most)
        };
        self.sent(Request { method: "GET", url: &uri, body: &[] }, fields, send).await
    }
}

impl Daemon {
    /// One exchange on a connection of its own: to find out whether an old one lives would cost more.
    async fn ask(&self, method: &str, target: &str, body: Option<&Value>) -> Asked<Value> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let length = body.len();
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n"
        );
        match self {
            Self::Socket(named) => exchange(dial(named.as_deref()).await?, format!("{head}\r\n{body}")).await,
            Self::Loopback { address, secret_file } => {
                let of = |error: &io::Error| away(&format!("{address} with {}", secret_file.display()), error);
                // The secret is new at each start of the daemon.
                let secret = tokio::fs::read_to_string(secret_file).await.map_err(|error| of(&error))?;
                let connection = TcpStream::connect(address).await.map_err(|error| of(&error))?;
                let secret = secret.trim();
                exchange(connection, format!("{head}Authorization: Bearer {secret}\r\n\r\n{body}")).await
            }
        }
    }
}

async fn exchange(mut connection: impl AsyncRead + AsyncWrite + Unpin, request: String) -> Asked<Value> {
    let mut answer = Vec::new();
    let exchanged = async {
        connection.write_all(request.as_bytes()).await?;
        connection.take(ANSWER_CAP).read_to_end(&mut answer).await
    };
    exchanged.await.map_err(|_| SafeconductError::temporary("the daemon broke off"))?;
    read(&answer)
}

/// Nothing of an answer that cannot be read is shown: it may hold a token.
fn read(answer: &[u8]) -> Asked<Value> {
    if answer.is_empty() {
        return Err(SafeconductError::temporary("the daemon broke off"));
    }
    let strange = || SafeconductError::new("whoever answers is no daemon of ours");
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").ok_or_else(strange)?;
    let (head, body) = (&answer[..end], &answer[end + 4..]);
    let status = head.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3)).ok_or_else(strange)?;
    if status == b"204" {
        return Ok(Value::Null);
    }
    let document: Value = serde_json::from_slice(body).map_err(|_| SafeconductError::new("its answer is not JSON"))?;
    if status == b"200" {
        return Ok(document);
    }
    let word = |name: &str| document[name].as_str().map(str::to_owned);
    let words = [word("error_description").or_else(|| Some("no reason is given".to_owned())), word("hint")];
    let text = words.into_iter().flatten().collect::<Vec<_>>().join("; ");
    Err(SafeconductError { text, code: word("error"), kind: word("class") })
}

/// Connects to the first place where a daemon listens that may be ours.
async fn dial(named: Option<&Path>) -> Asked<UnixStream> {
    let variable = || std::env::var_os("SAFECONDUCT_SOCKET").filter(|path| !path.is_empty()).map(PathBuf::from);
    if let Some(path) = named.map(Path::to_owned).or_else(variable) {
        return UnixStream::connect(&path).await.map_err(|error| away(&path.display().to_string(), &error));
    }
    let own = std::fs::metadata("/proc/self").map_err(|error| away("/proc/self", &error))?.uid();
    let (places, mut refused) = (places(own), None);
    for place in &places {
        // Whoever else made the directory could answer there, or let us wait. A link is its owner's to change.
        let owners = place.parent().map(|directory| [std::fs::symlink_metadata(directory), directory.metadata()]);
        let is_ours = |uid: u32| uid == 0 || uid == own;
        if !owners
            .is_some_and(|owners| owners.iter().all(|owner| owner.as_ref().is_ok_and(|owner| is_ours(owner.uid()))))
        {
            continue;
        }
        match UnixStream::connect(place).await {
            Ok(connection) if connection.peer_cred().is_ok_and(|peer| is_ours(peer.uid())) => return Ok(connection),
            Ok(_) => refused = Some(SafeconductError::new(format!("{}: it belongs to somebody else", place.display()))),
            // A socket that we may not use must not hide our own daemon at a later place.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                refused = Some(away(&place.display().to_string(), &error));
            }
            Err(_) => {}
        }
    }
    let looked: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
    let none = || SafeconductError::temporary(format!("no daemon is running; looked at {}", looked.join(", ")));
    Err(refused.unwrap_or_else(none))
}

/// Where a daemon may listen that nobody has named, in the order of `safeconduct token`.
fn places(uid: u32) -> Vec<PathBuf> {
    let job = JOB_TEMP.iter().filter_map(std::env::var_os).find(|directory| !directory.is_empty()).map(PathBuf::from);
    let of_the_job = job.filter(|directory| directory.is_absolute()).map(|directory| directory.join("safeconduct"));
    let (before, after) = (format!("/run/user/{uid}/safeconduct"), format!("/tmp/safeconduct-{uid}"));
    let usual = [&*before, OF_THE_SYSTEM[0], OF_THE_SYSTEM[1], &after].map(PathBuf::from);
    of_the_job.into_iter().chain(usual).map(|directory| directory.join("safeconduct.sock")).collect()
}

fn away(what: &str, error: &io::Error) -> SafeconductError {
    let text = format!("{what}: {error}");
    match error.kind() {
        io::ErrorKind::PermissionDenied => SafeconductError::new(text),
        _ => SafeconductError::temporary(text),
    }
}

fn target(path: &str, query: &[(&str, &str)]) -> Asked<String> {
    let url = Url::parse_with_params(&format!("http://localhost{path}"), query)
        .map_err(|_| SafeconductError::new("the server's name is no part of a URL"))?;
    Ok(format!("{path}?{}", url.query().unwrap_or_default()))
}

fn hash(data: &[u8]) -> String {
    digest::digest(&digest::SHA256, data).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
