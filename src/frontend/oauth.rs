//! `POST /oauth/token`: the token endpoint of RFC 6749 section 4.4, for MCP clients that can be given a `client_id` and a
//! `client_secret` and nothing else. Only with `[listen] oauth_token = true`.
//!
//! `client_id` is the name of a server, and the secret opens that server alone ([`Clients`]). They come by HTTP Basic or in the
//! form, never by both, and never in the query. The caller is the user that owns the connecting socket; where
//! `http_owner = false` keeps it from being asked, the daemon's own user, who alone can read the secret. Policy, audit and limits
//! are those of `/v1/token`; errors have the form of RFC 6749 section 5.2.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::HeaderMap;
use hyper::Method;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use secrecy::SecretString;
use url::form_urlencoded;
use zeroize::Zeroizing;

use super::answer::{Answer, Failure, Outcome};
use super::dialect;
use super::funnel::Asked;
use super::query;
use crate::broker::{self, Action, Least, Target};
use crate::caller::Caller;
use crate::oauth::{Resource, Scopes};

mod clients;

pub(crate) use clients::{Clients, file_of};

pub(crate) const PATH: &str = "/oauth/token";

/// Every parameter that counts is short.
const BODY_CAP: usize = 16 * 1024;

/// `POST /oauth/token`
pub(super) async fn token(asked: &Asked<'_>, body: Incoming) -> Outcome {
    let Some(clients) = &asked.desk.fixed.oauth else { return Err(Failure::not_found()) };
    if asked.method != Method::POST {
        return Err(Failure::method_not_allowed("POST".to_owned()));
    }
    if asked.uri.query().is_some() {
        return Err(Failure::asked("the parameters belong into the body; a query is written to logs"));
    }
    if !is_form(&asked.fields) {
        return Err(Failure::asked("the body must be application/x-www-form-urlencoded"));
    }
    let basic = basic(&asked.fields)?;
    let form = Form::read(&query::whole(body, BODY_CAP).await?)?;
    let (name, secret) = form.client(basic)?;
    if !clients.is(&name, &secret) {
        return Err(Failure::bad_client("the client is unknown, or its secret is not the one of this start"));
    }
    // Whoever has the secret is no forwarder's client, so no rule has to name root.
    let user = if clients.counts_owners() { asked.caller.uid } else { asked.desk.fixed.uid };
    let over_tcp = Caller::by_tcp(user);
    let is_on_socket = asked.caller.gid.is_some();
    let caller = if is_on_socket { asked.caller } else { &over_tcp };
    if !caller.is_known() {
        let failure = Failure::bad_client("the owner of the connecting socket cannot be told");
        return Err(failure.hint(Some("`http_owner = false` in [listen] lets the secret alone count".to_owned())));
    }
    given(asked, caller, &form.request(name)?, &form.resources).await
}

/// The token for a client that has proved itself.
async fn given(asked: &Asked<'_>, caller: &Caller, request: &broker::Request, resources: &[Resource]) -> Outcome {
    let broker = &asked.desk.broker;
    let server = broker.configured(caller, &request.target);
    let server = server.map_err(|error| Failure::from(error).about(request))?;
    if !resources.iter().all(|resource| resource.stands_for(&server.url)) {
        return Err(Failure::bad_target("`resource` is not the server of this client").about(request));
    }
    let lease = broker.token(caller, request).await?;
    let around = dialect::token_json(&lease.token, &asked.desk.fixed.clock);
    Ok(Answer::token(&lease.token, around))
}

fn is_form(fields: &HeaderMap) -> bool {
    let mut types = fields.get_all(CONTENT_TYPE).iter();
    let (Some(media), None) = (types.next().and_then(|value| value.to_str().ok()), types.next()) else { return false };
    let essence = media.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// A client and its secret.
type Client = (String, SecretString);

/// The client of `Authorization: Basic`, whose two parts are encoded as in a form (RFC 6749 section 2.3.1).
fn basic(fields: &HeaderMap) -> Result<Option<Client>, Failure> {
    let mut shown = fields.get_all(AUTHORIZATION).iter();
    let Some(value) = shown.next() else { return Ok(None) };
    if shown.next().is_some() {
        return Err(Failure::asked("there are two Authorization fields"));
    }
    let bad = || Failure::bad_client("Authorization is not Basic with a client and its secret");
    let (scheme, credentials) = value.as_bytes().split_at_checked(SCHEME.len()).ok_or_else(bad)?;
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return Err(bad());
    }
    let pair = Zeroizing::new(STANDARD.decode(credentials.trim_ascii()).map_err(|_| bad())?);
    let text = std::str::from_utf8(&pair).map_err(|_| bad())?;
    let (name, secret) = text.split_once(':').ok_or_else(bad)?;
    Ok(Some((decoded(name), SecretString::from(decoded(secret)))))
}

const SCHEME: &[u8] = b"basic ";

fn decoded(part: &str) -> String {
    form_urlencoded::parse(part.as_bytes()).next().map(|(name, _)| name.into_owned()).unwrap_or_default()
}

/// The parameters that count. Others are ignored, and so is one without a value (RFC 6749 section 3.2).
#[derive(Default)]
struct Form {
    grant_type: Option<String>,
    client_id: Option<String>,
    client_secret: Option<SecretString>,
    has_assertion: bool,
    scope: Option<String>,
    resources: Vec<Resource>,
}

impl Form {
    fn read(body: &[u8]) -> Result<Self, Failure> {
        let mut form = Self::default();
        for (name, value) in form_urlencoded::parse(body).filter(|(_, value)| !value.is_empty()) {
            let is_second = match &*name {
                "grant_type" => form.grant_type.replace(value.into_owned()).is_some(),
                "client_id" => form.client_id.replace(value.into_owned()).is_some(),
                "client_secret" => form.client_secret.replace(SecretString::from(value.into_owned())).is_some(),
                "client_assertion" => std::mem::replace(&mut form.has_assertion, true),
                "scope" => form.scope.replace(value.into_owned()).is_some(),
                "resource" => {
                    let resource = Resource::parse(&value).map_err(|_| Failure::bad_target("`resource` is no URL"))?;
                    form.resources.push(resource);
                    false
                }
                _ => false,
            };
            if is_second {
                return Err(Failure::asked("a parameter is given twice"));
            }
        }
        Ok(form)
    }

    /// The client, which proves itself in one way.
    fn client(&self, basic: Option<Client>) -> Result<Client, Failure> {
        match (basic, &self.client_id, &self.client_secret) {
            (Some(_), _, Some(_)) => Err(Failure::asked("the client proves itself in two ways")),
            (Some(_), ..) | (_, _, Some(_)) if self.has_assertion => {
                Err(Failure::asked("the client proves itself in two ways"))
            }
            (Some((name, _)), Some(other), None) if name != *other => {
                Err(Failure::asked("`client_id` is not the client of the Authorization field"))
            }
            (Some(client), _, None) => Ok(client),
            (None, Some(name), Some(secret)) => Ok((name.clone(), secret.clone())),
            (None, ..) => Err(Failure::bad_client("there is no `client_id` with a `client_secret`")),
        }
    }

    fn request(&self, name: String) -> Result<broker::Request, Failure> {
        match self.grant_type.as_deref() {
            Some("client_credentials") => {}
            Some(_) => return Err(Failure::bad_grant("`grant_type` can only be `client_credentials`")),
            None => return Err(Failure::asked("`grant_type` is missing")),
        }
        let scopes = match &self.scope {
            Some(text) if !query::is_short(text) => {
                return Err(Failure::bad_scope("`scope` names more than 128 scopes, or is longer than 4 KiB"));
            }
            Some(text) => Some(Scopes::parse(text).map_err(|why| Failure::bad_scope(&why.to_string()))?),
            None => None,
        };
        Ok(broker::Request {
            target: Target::Name(name),
            scopes,
            least: Least::Of(std::time::Duration::ZERO),
            fresh: false,
            action: Action::Token,
            helper: false,
            may_be_a_retry: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;
    use crate::token::expose;

    fn code<T>(outcome: Result<T, Failure>) -> String {
        outcome.err().map(|failure| failure.code().to_owned()).unwrap_or_default()
    }

    fn form(text: &str) -> Form {
        Form::read(text.as_bytes()).unwrap_or_else(|failure| panic!("{text}: {}", failure.words()))
    }

    #[test]
    fn a_parameter_counts_once_and_one_without_a_value_not_at_all() {
        for name in ["grant_type", "client_id", "client_secret", "client_assertion", "scope"] {
            let body = format!("{name}=a&{name}=a");
            assert_eq!(code(Form::read(body.as_bytes())), "invalid_request", "{name}");
        }
        let sparse = form("grant_type=client_credentials&scope=&resource=&audience=x&audience=y");
        let request = sparse.request("demo".to_owned()).unwrap_or_else(|failure| panic!("{}", failure.words()));
        assert!(request.scopes.is_none() && sparse.resources.is_empty());
        assert_eq!(code(Form::read(b"resource=no+url")), "invalid_target");
    }

    #[test]
    fn only_one_grant_is_served_and_a_scope_has_its_form() {
        let of = |text: &str| code(form(text).request("demo".to_owned()));
        assert_eq!(of("scope=a"), "invalid_request");
        for grant in ["authorization_code", "refresh_token", "password", "Client_Credentials"] {
            assert_eq!(of(&format!("grant_type={grant}")), "unsupported_grant_type", "{grant}");
        }
        for scope in ["%22a%22", "a%5Cb", "%C3%A9", &"a".repeat(5_000)] {
            assert_eq!(of(&format!("grant_type=client_credentials&scope={scope}")), "invalid_scope", "{scope}");
        }
        assert_eq!(of("grant_type=client_credentials&scope=a+b"), "");
    }

    #[test]
    fn a_client_proves_itself_in_one_way() {
        let by = || Some(("demo".to_owned(), SecretString::from("s".to_owned())));
        let of = |text: &str, basic: Option<Client>| code(form(text).client(basic));
        assert_eq!(of("client_id=demo&client_secret=s", None), "");
        assert_eq!((of("", by()), of("client_id=demo", by())), (String::new(), String::new()));
        assert_eq!(of("client_secret=s", by()), "invalid_request");
        assert_eq!(of("client_id=other", by()), "invalid_request");
        assert_eq!(of("client_id=demo&client_secret=s&client_assertion=x", None), "invalid_request");
        for text in ["", "client_id=demo", "client_secret=s", "client_assertion=x", "client_id=demo&client_secret="] {
            assert_eq!(of(text, None), "invalid_client", "{text}");
        }
    }

    #[test]
    fn basic_is_read_as_rfc_6749_writes_it() {
        let fields = |values: &[&str]| {
            let mut fields = HeaderMap::new();
            for value in values {
                fields.append(AUTHORIZATION, HeaderValue::from_str(value).expect("a value"));
            }
            fields
        };
        let good = format!("bASIC {}", STANDARD.encode("a%2Eb:s%2B"));
        let read = basic(&fields(&[&good])).unwrap_or_else(|failure| panic!("{}", failure.words()));
        let (name, secret) = read.expect("one is there");
        assert_eq!((name.as_str(), expose(&secret)), ("a.b", "s+"));
        assert!(basic(&fields(&[])).is_ok_and(|none| none.is_none()));
        assert_eq!(code(basic(&fields(&[&good, &good]))), "invalid_request");
        let unpaired = format!("Basic {}", STANDARD.encode("demo"));
        for bad in ["Basic", "Basic !", "Bearer x", "Basi", &unpaired] {
            assert_eq!(code(basic(&fields(&[bad]))), "invalid_client", "{bad}");
        }
    }
}
