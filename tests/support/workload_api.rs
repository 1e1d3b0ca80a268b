//! `FakeWorkloadApi`: a SPIFFE agent on a Unix socket, with answers like SPIRE's.
//!
//! gRPC by hand over hyper's HTTP/2: the two calls that a workload makes, with the messages of `workload.proto`. A request
//! without the metadata `workload.spiffe.io: true` is refused, only registered identities get an SVID, and every SVID is really
//! signed: JWT-SVIDs by `keys.rs`, X.509-SVIDs by a CA of its own.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use rcgen::{
    BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, date_time_ymd,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

use super::fault::Script;
use super::keys::{self, Keys};
use super::leak;
use super::listener::Body;
use super::platform::Trust;

/// The `iss` of its JWT-SVIDs, as with SPIRE's `jwt_issuer`.
const ISSUER: &str = "https://spire.example.org";
/// SPIRE's default lifetime of a JWT-SVID.
const LIFE: Duration = Duration::from_secs(300);

const OK: u32 = 0;
const INVALID_ARGUMENT: u32 = 3;
const PERMISSION_DENIED: u32 = 7;
const UNIMPLEMENTED: u32 = 12;

/// Faults in the next answer.
#[derive(Clone, Debug)]
pub enum SvidFault {
    /// This gRPC status, with a message.
    Status(u32, String),
    /// Accepts the request and never answers.
    Stall,
    /// An answer that holds no SVID.
    Empty,
    /// This text instead of a JWT-SVID.
    Token(String),
    /// A JWT-SVID with some claims replaced; null removes one.
    Claims(Value),
}

pub struct FakeWorkloadApi {
    state: Arc<State>,
    task: JoinHandle<()>,
    directory: TempDir,
}

struct State {
    keys: Keys,
    ca: Ca,
    identities: Mutex<Vec<String>>,
    audiences: Mutex<Vec<Vec<String>>>,
    leaves: Mutex<Vec<Vec<u8>>>,
    script: Script<SvidFault>,
    /// As with SPIRE: its JWT-SVIDs have no `jti` and live for so long, and each is given again until half of that is over.
    repeats: Mutex<Option<Duration>>,
    given: Mutex<HashMap<(String, Vec<String>), GivenSvid>>,
}

/// When a JWT-SVID was made, and itself.
type GivenSvid = (Instant, String);

struct Ca {
    issuer: Issuer<'static, KeyPair>,
    der: Vec<u8>,
}

impl FakeWorkloadApi {
    /// The calling workload has these SPIFFE IDs; the first is the default.
    pub fn start(identities: &[&str]) -> Self {
        let directory = tempfile::Builder::new().prefix("sca").tempdir_in("/tmp").expect("/tmp is writable");
        let listener = UnixListener::bind(directory.path().join("agent.sock")).expect("the directory is new");
        let state = Arc::new(State {
            keys: Keys::generate("spire-key-1"),
            ca: Ca::new(),
            identities: Mutex::new(identities.iter().map(|id| (*id).to_owned()).collect()),
            audiences: Mutex::default(),
            leaves: Mutex::default(),
            script: Script::new(),
            repeats: Mutex::default(),
            given: Mutex::default(),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&state)));
        Self { state, task, directory }
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("agent.sock")
    }

    /// The value of `SPIFFE_ENDPOINT_SOCKET`.
    pub fn endpoint(&self) -> String {
        endpoint(&self.socket())
    }

    /// What an authorization server needs to trust its JWT-SVIDs.
    pub fn trust(&self) -> Trust {
        Trust { issuer: ISSUER.to_owned(), verifier: self.state.keys.verifier() }
    }

    /// Each of the next requests gets one of these faults; later requests get correct answers.
    pub fn script(&self, faults: impl IntoIterator<Item = SvidFault>) {
        self.state.script.push(faults);
    }

    /// Every request after the script gets this fault.
    pub fn always(&self, fault: SvidFault) {
        self.state.script.always(fault);
    }

    /// From now on its JWT-SVIDs are like SPIRE's: without `jti`, living for so long, and given again until half of that.
    pub fn repeat_svids(&self, life: Duration) {
        *self.state.repeats.lock().expect("never held over a panic") = Some(life);
    }

    /// Half the life of all JWT-SVIDs that it keeps is over.
    pub fn forget_svids(&self) {
        self.state.given.lock().expect("never held over a panic").clear();
    }

    /// The audiences of each request for a JWT-SVID so far, refused ones included.
    pub fn audiences(&self) -> Vec<Vec<String>> {
        self.state.audiences.lock().expect("never held over a panic").clone()
    }

    /// The CA of its X.509-SVIDs, as DER.
    pub fn ca(&self) -> Vec<u8> {
        self.state.ca.der.clone()
    }

    /// SHA-256 of the leaf of the last X.509-SVID for the default identity.
    pub fn last_thumbprint(&self) -> String {
        let leaves = self.state.leaves.lock().expect("never held over a panic");
        let leaf = leaves.last().expect("an X.509-SVID was issued");
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, leaf);
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Drop for FakeWorkloadApi {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub fn endpoint(socket: &Path) -> String {
    format!("unix://{}", socket.display())
}

/// Dropping this future closes every connection with it.
async fn accept(listener: UnixListener, state: Arc<State>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        let state = Arc::clone(&state);
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let state = Arc::clone(&state);
                async move { answer(&state, request).await }
            });
            let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            // Errors at the end of a connection do not matter.
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(state: &State, request: Request<Incoming>) -> io::Result<Response<Body>> {
    if let Err(what) = admit(&request) {
        return Ok(status(INVALID_ARGUMENT, &what));
    }
    let path = request.uri().path().to_owned();
    let message = match message(request).await {
        Ok(message) => message,
        Err(what) => return Ok(status(INVALID_ARGUMENT, &what)),
    };
    match path.as_str() {
        "/SpiffeWorkloadAPI/FetchJWTSVID" => match JwtSvidRequest::decode(message) {
            Ok(request) => jwt_svid(state, &request).await,
            Err(error) => Ok(status(INVALID_ARGUMENT, &error.to_string())),
        },
        "/SpiffeWorkloadAPI/FetchX509SVID" => Ok(x509_svid(state)),
        _ => Ok(status(UNIMPLEMENTED, "unknown method")),
    }
}

/// SPIFFE, "Workload Endpoint" section 4.2: the metadata that a browser cannot be tricked into sending.
fn admit(request: &Request<Incoming>) -> Result<(), String> {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if header("workload.spiffe.io") != "true" {
        return Err("security header missing from request".to_owned());
    }
    let is_grpc = request.method() == Method::POST && header("content-type").starts_with("application/grpc");
    if is_grpc && header("te") == "trailers" { Ok(()) } else { Err("that is no gRPC".to_owned()) }
}

/// The message of a request: one byte for compression, four for the length, then the message.
async fn message(request: Request<Incoming>) -> Result<Bytes, String> {
    let body = Limited::new(request.into_body(), 64 * 1024).collect().await.map_err(|error| error.to_string())?;
    let body = body.to_bytes();
    match body.split_first_chunk::<5>() {
        Some(([0, length @ ..], rest)) if rest.len() as u64 == u64::from(u32::from_be_bytes(*length)) => {
            Ok(body.slice(5..))
        }
        _ => Err("not one uncompressed message".to_owned()),
    }
}

async fn jwt_svid(state: &State, request: &JwtSvidRequest) -> io::Result<Response<Body>> {
    state.audiences.lock().expect("never held over a panic").push(request.audience.clone());
    if request.audience.is_empty() || request.audience.iter().any(String::is_empty) {
        return Ok(status(INVALID_ARGUMENT, "audience must be specified"));
    }
    let identities = state.identities.lock().expect("never held over a panic").clone();
    let wanted = |id: &&String| request.spiffe_id.is_empty() || **id == request.spiffe_id;
    let fault = state.script.next();
    let issue = |id: &String| {
        let svid = match &fault {
            Some(SvidFault::Token(text)) => text.clone(),
            Some(SvidFault::Claims(over)) => state.jwt(id, &request.audience, over),
            _ => state.svid(id, &request.audience),
        };
        JwtSvid { spiffe_id: id.clone(), svid, hint: String::new() }
    };
    match &fault {
        Some(SvidFault::Status(code, message)) => return Ok(status(*code, message)),
        Some(SvidFault::Stall) => std::future::pending().await,
        Some(SvidFault::Empty) => return Ok(unary(&JwtSvidResponse::default())),
        _ => {}
    }
    let svids: Vec<JwtSvid> = identities.iter().filter(wanted).map(issue).collect();
    Ok(if svids.is_empty() {
        status(PERMISSION_DENIED, "no identity issued")
    } else {
        unary(&JwtSvidResponse { svids })
    })
}

/// A stream that stays open for the next rotation, as with a real agent.
fn x509_svid(state: &State) -> Response<Body> {
    let identities = state.identities.lock().expect("never held over a panic").clone();
    let svids: Vec<X509Svid> = identities.iter().map(|id| state.ca.issue(id)).collect();
    let Some(first) = svids.first() else { return status(PERMISSION_DENIED, "no identity issued") };
    state.leaves.lock().expect("never held over a panic").push(first.x509_svid.clone());
    let message = Frame::data(framed(&X509SvidResponse { svids }));
    let body = StreamBody::new(stream::iter([Ok(message)]).chain(stream::pending())).boxed_unsync();
    grpc(body)
}

impl State {
    /// A new JWT-SVID, or the last one for this audience once more.
    fn svid(&self, id: &str, audience: &[String]) -> String {
        let Some(life) = *self.repeats.lock().expect("never held over a panic") else {
            return self.jwt(id, audience, &Value::Null);
        };
        let mut given = self.given.lock().expect("never held over a panic");
        let key = (id.to_owned(), audience.to_vec());
        match given.get(&key) {
            Some((since, svid)) if since.elapsed() < life / 2 => svid.clone(),
            _ => {
                let (iat, exp) = keys::lifetime(life);
                let svid = self.jwt(id, audience, &json!({"jti": null, "iat": iat, "exp": exp}));
                given.insert(key, (Instant::now(), svid.clone()));
                svid
            }
        }
    }

    fn jwt(&self, id: &str, audience: &[String], over: &Value) -> String {
        let (iat, exp) = keys::lifetime(LIFE);
        let audience = match audience {
            [one] => json!(one),
            several => json!(several),
        };
        let mut claims = keys::object(json!({
            "iss": ISSUER, "sub": id, "aud": audience, "iat": iat, "exp": exp, "jti": keys::unique_id(),
        }));
        keys::overlay(&mut claims, over);
        let token = self.keys.sign("JWT", &claims);
        leak::minted(&token);
        token
    }
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names, no bad names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = vec![uri("spiffe://example.org")];
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2099, 1, 1));
        let key = KeyPair::generate().expect("a P-256 key can always be made");
        let der = params.self_signed(&key).expect("our own parameters are sound").der().to_vec();
        Self { issuer: Issuer::new(params, key), der }
    }

    fn issue(&self, id: &str) -> X509Svid {
        let mut params = CertificateParams::new(Vec::new()).expect("no names, no bad names");
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.subject_alt_names = vec![uri(id)];
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2099, 1, 1));
        let key = KeyPair::generate().expect("a P-256 key can always be made");
        assert_eq!(key.der_bytes().len(), 65, "an uncompressed P-256 point");
        let leaf = params.signed_by(&key, &self.issuer).expect("our own parameters are sound");
        X509Svid {
            spiffe_id: id.to_owned(),
            x509_svid: leaf.der().to_vec(),
            x509_svid_key: key.serialize_der(),
            bundle: self.der.clone(),
            hint: String::new(),
        }
    }
}

fn uri(id: &str) -> SanType {
    SanType::URI(id.try_into().expect("a SPIFFE ID is ASCII"))
}

fn framed(message: &impl Message) -> Bytes {
    let bytes = message.encode_to_vec();
    let length = u32::try_from(bytes.len()).expect("a small message");
    [&[0][..], &length.to_be_bytes(), &bytes].concat().into()
}

/// One message, then status 0 in the trailers.
fn unary(message: &impl Message) -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", OK.into());
    let frames = [Ok(Frame::data(framed(message))), Ok(Frame::trailers(trailers))];
    grpc(StreamBody::new(stream::iter(frames)).boxed_unsync())
}

/// A status instead of an answer.
fn status(code: u32, message: &str) -> Response<Body> {
    let mut answer = grpc(StreamBody::new(stream::empty()).boxed_unsync());
    answer.headers_mut().insert("grpc-status", code.into());
    let message = message.replace(' ', "%20");
    answer.headers_mut().insert("grpc-message", HeaderValue::from_str(&message).expect("an ASCII message"));
    answer
}

fn grpc(body: Body) -> Response<Body> {
    let answer = Response::builder().header(CONTENT_TYPE, "application/grpc");
    answer.body(body).expect("a content type makes a head")
}

#[derive(Clone, PartialEq, Message)]
struct JwtSvidRequest {
    #[prost(string, repeated, tag = "1")]
    audience: Vec<String>,
    #[prost(string, tag = "2")]
    spiffe_id: String,
}

#[derive(Clone, PartialEq, Message)]
struct JwtSvidResponse {
    #[prost(message, repeated, tag = "1")]
    svids: Vec<JwtSvid>,
}

#[derive(Clone, PartialEq, Message)]
struct JwtSvid {
    #[prost(string, tag = "1")]
    spiffe_id: String,
    #[prost(string, tag = "2")]
    svid: String,
    #[prost(string, tag = "3")]
    hint: String,
}

#[derive(Clone, PartialEq, Message)]
struct X509SvidResponse {
    #[prost(message, repeated, tag = "1")]
    svids: Vec<X509Svid>,
}

#[derive(Clone, PartialEq, Message)]
struct X509Svid {
    #[prost(string, tag = "1")]
    spiffe_id: String,
    #[prost(bytes = "vec", tag = "2")]
    x509_svid: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    x509_svid_key: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    bundle: Vec<u8>,
    #[prost(string, tag = "5")]
    hint: String,
}
