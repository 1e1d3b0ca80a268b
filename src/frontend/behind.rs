//! An endpoint in front of another daemon: it serves some of that daemon's servers to one user, and asks the daemon for everything.
//!
//! The gate, the routes, the names and the policy are its own. A request that passes them goes on with the name of its server, and the
//! daemon's answer comes back as it is. The daemon writes the audit.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Uri};
use serde_json::json;
use url::form_urlencoded::{Serializer, parse};

use super::answer::{Answer, Failure, Outcome};
use super::api;
use super::funnel::{Asked, Finished};
use super::query::{Named, Query, Rejected, read, servers, target};
use crate::broker::{self, Action, Least, Target};
use crate::relay::{self, Streamed};

mod daemon;

pub(crate) use daemon::Behind;

/// Is this something that the daemon does?
pub(super) fn is_asked_for(action: Action) -> bool {
    matches!(action, Action::Token | Action::Headers | Action::Reject | Action::Revoke | Action::Ready | Action::Call)
}

/// Has the daemon answer.
pub(super) fn answer(asked: Asked<'_>, body: Incoming) -> Finished<'_> {
    Finished::later(asked.late(), async move {
        let mut asked = asked;
        let outcome = passed_on(&mut asked, body).await;
        (outcome, asked)
    })
}

async fn passed_on(asked: &mut Asked<'_>, body: Incoming) -> Outcome {
    let request = match asked.action {
        Action::Call => call(asked, body)?,
        // Without names it is about what is required here.
        Action::Ready if asked.query().is_empty() => return api::ready(asked),
        Action::Ready => without_body(&format!("/readyz?{}", readiness(asked)?))?,
        Action::Reject => {
            let wire: Rejected = read(body).await?;
            let server = name(asked, target(&wire.server)?)?;
            with_json(asked, &json!({ "server": server, "access_token_sha256": wire.access_token_sha256 }))?
        }
        Action::Revoke => {
            let wire: Named = read(body).await?;
            with_json(asked, &json!({ "server": name(asked, target(&wire.server)?)? }))?
        }
        _ => without_body(&format!("{}?{}", asked.uri.path(), token(asked)?))?,
    };
    let behind = asked.desk.fixed.behind.as_ref().ok_or_else(Failure::bug)?;
    behind.send(request).await.map(Answer::relayed)
}

/// The query of a request for a token or for header fields: with the name of the server, and with no more scopes than this endpoint
/// may give.
fn token(asked: &Asked<'_>) -> Result<String, Failure> {
    let query = Query::read(asked.query(), api::HEADERS)?;
    let request = query.request(asked.action)?;
    let permitted = asked.desk.broker.permitted(asked.caller, &request);
    let (server, scopes) = permitted.map_err(|error| Failure::from(error).about(&request))?;
    let mut text = Serializer::new(String::new());
    text.append_pair("server", &server.name);
    text.extend_pairs(scopes.map(|scopes| ("scope", scopes.to_string())));
    text.extend_pairs(parse(asked.query().as_bytes()).filter(|(name, _)| !matches!(&**name, "server" | "scope")));
    Ok(text.finish())
}

fn readiness(asked: &Asked<'_>) -> Result<String, Failure> {
    let mut text = Serializer::new(String::new());
    for one in servers(asked.query())? {
        text.append_pair("server", &name(asked, Target::Name(one))?);
    }
    Ok(text.finish())
}

/// The name of a server that this caller may use here.
fn name(asked: &Asked<'_>, target: Target) -> Result<String, Failure> {
    let (scopes, least) = (None, Least::Of(Duration::ZERO));
    let (fresh, helper, may_be_a_retry) = (false, false, false);
    let request = broker::Request { target, scopes, least, fresh, action: asked.action, helper, may_be_a_retry };
    let permitted = asked.desk.broker.permitted(asked.caller, &request);
    permitted.map(|(server, _)| server.name.to_string()).map_err(|error| Failure::from(error).about(&request))
}

/// A request of an MCP client. Its path is checked once more by the daemon, which knows the server's URL.
fn call(asked: &mut Asked<'_>, body: Incoming) -> Result<Request<Streamed>, Failure> {
    let named = asked.named().ok_or_else(Failure::not_found)?;
    asked.desk.broker.configured(asked.caller, &named).map_err(|_| Failure::not_found())?;
    let fields = std::mem::take(&mut asked.fields);
    let fields = relay::fields_to_pass(&asked.method, fields, !body.is_end_stream())?;
    let mut request = Request::new(Box::pin(body.map_err(io::Error::other)) as Streamed);
    *request.method_mut() = asked.method.clone();
    *request.uri_mut() = asked.uri.path_and_query().map(|target| Uri::from(target.clone())).ok_or_else(Failure::bug)?;
    *request.headers_mut() = fields;
    request.headers_mut().insert(HOST, LOCALHOST);
    Ok(request)
}

const LOCALHOST: HeaderValue = HeaderValue::from_static("localhost");

fn without_body(target: &str) -> Result<Request<Streamed>, Failure> {
    with_body(Method::GET, target, String::new())
}

fn with_json(asked: &Asked<'_>, document: &serde_json::Value) -> Result<Request<Streamed>, Failure> {
    let mut request = with_body(Method::POST, asked.uri.path(), document.to_string())?;
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(request)
}

fn with_body(method: Method, target: &str, body: String) -> Result<Request<Streamed>, Failure> {
    let body = Full::new(Bytes::from(body)).map_err(io::Error::other);
    let mut request = Request::new(Box::pin(body) as Streamed);
    *request.method_mut() = method;
    *request.uri_mut() = target.parse().map_err(|_| Failure::bug())?;
    request.headers_mut().insert(HOST, LOCALHOST);
    Ok(request)
}
