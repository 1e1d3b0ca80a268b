//! The parameters of the API, in the query or in a small JSON body. Each is known, or the request is refused.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::Method;
use hyper::body::{Body, Incoming};
use serde::Deserialize;
use url::form_urlencoded;
use zeroize::Zeroizing;

use super::answer::Failure;
use crate::broker::{self, Action, Head, Least, Target};
use crate::oauth::{Scopes, ServerUrl};

/// A request body is a small JSON object.
const BODY_CAP: usize = 64 * 1024;
const BODY_LIMIT: Duration = Duration::from_secs(10);
/// The most scopes that a request may name, and how long they may be together.
const SCOPES: usize = 128;
const SCOPE_BYTES: usize = 4 * 1024;

/// The parameters of a query.
#[derive(Default)]
pub(super) struct Query<'a> {
    server: Option<Cow<'a, str>>,
    scopes: Vec<Cow<'a, str>>,
    min_ttl: Option<Cow<'a, str>>,
    fresh: Option<Cow<'a, str>>,
    caller_is: Option<Cow<'a, str>>,
    unlisted: Option<Cow<'a, str>>,
    method: Option<Cow<'a, str>>,
    url: Option<Cow<'a, str>>,
    body_sha256: Option<Cow<'a, str>>,
    dpop_nonce: Option<Cow<'a, str>>,
}

impl<'a> Query<'a> {
    /// Fails if a parameter is not one of `known`, or is given twice and is not `scope`.
    pub(super) fn read(text: &'a str, known: &[&str]) -> Result<Self, Failure> {
        let mut query = Self::default();
        for (name, value) in pairs(text) {
            let place = match &*name {
                _ if !known.contains(&&*name) => return Err(unknown(known)),
                "scope" => {
                    query.scopes.push(value);
                    continue;
                }
                "server" => &mut query.server,
                "min_ttl" => &mut query.min_ttl,
                "fresh" => &mut query.fresh,
                "use" => &mut query.caller_is,
                "unlisted" => &mut query.unlisted,
                "method" => &mut query.method,
                "url" => &mut query.url,
                "body_sha256" => &mut query.body_sha256,
                "dpop_nonce" => &mut query.dpop_nonce,
                _ => return Err(unknown(known)),
            };
            if place.replace(value).is_some() {
                return Err(Failure::asked(&format!("{name} is given twice")));
            }
        }
        Ok(query)
    }

    /// The request for a token.
    pub(super) fn request(&self, action: Action) -> Result<broker::Request, Failure> {
        let server =
            self.server.as_deref().ok_or_else(|| Failure::asked("`server` is missing: a configured name or URL"))?;
        let scopes = self.scopes()?;
        let is_helper = match self.caller_is.as_deref() {
            None => false,
            Some("helper") => true,
            Some(_) => return Err(Failure::asked("`use` can only be `helper`")),
        };
        let least = match self.min_ttl.as_deref() {
            None if is_helper => Least::ForHelper,
            None => Least::Of(Duration::ZERO),
            Some(seconds) => Least::Of(Duration::from_secs(
                seconds.parse().map_err(|_| Failure::asked("`min_ttl` is a number of seconds"))?,
            )),
        };
        let fresh = match self.fresh.as_deref() {
            None | Some("0") => false,
            Some("1") => true,
            Some(_) => return Err(Failure::asked("`fresh` is 0 or 1")),
        };
        let (helper, may_be_a_retry) = (is_helper, action == Action::Headers && is_helper);
        Ok(broker::Request { target: target(server)?, scopes, least, fresh, action, helper, may_be_a_retry })
    }

    /// The scopes that the caller names, if any. They are part of a cache key, so each request may name a few only.
    fn scopes(&self) -> Result<Option<Scopes>, Failure> {
        if self.scopes.is_empty() {
            return Ok(None);
        }
        let text = self.scopes.join(" ");
        if !is_short(&text) {
            return Err(Failure::asked("`scope` names more than 128 scopes, or is longer than 4 KiB"));
        }
        Scopes::parse(&text).map(Some).map_err(|why| Failure::asked(&why.to_string()))
    }

    /// Credential helpers are asked about every URL there is. With `unlisted=0` they get a token for a configured server
    /// only, even where the daemon serves other URLs too.
    pub(super) fn configured_only(&self) -> Result<bool, Failure> {
        match self.unlisted.as_deref() {
            None | Some("1") => Ok(false),
            Some("0") => Ok(true),
            Some(_) => Err(Failure::asked("`unlisted` is 0 or 1")),
        }
    }

    /// The request that the headers are for.
    pub(super) fn head(&self) -> Result<Option<Head>, Failure> {
        let (url, method, nonce) = (self.url.as_deref(), self.method.as_deref(), self.dpop_nonce.as_deref());
        let body_sha256 = self.body_sha256.as_deref().map(|text| text.to_ascii_lowercase());
        if body_sha256.as_deref().is_some_and(|text| text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit())) {
            return Err(Failure::asked("`body_sha256` is not the 64 hexadecimal digits of a SHA-256"));
        }
        let Some(url) = url else { return Ok(None) };
        let url = ServerUrl::parse(url).map_err(|why| Failure::asked(&format!("`url`: {why}")))?;
        if method.is_some_and(|method| Method::from_bytes(method.as_bytes()).is_err()) {
            return Err(Failure::asked("`method` is no HTTP method"));
        }
        if nonce.is_some_and(|nonce| !broker::is_nonce(nonce)) {
            return Err(Failure::asked("`dpop_nonce` is not the nonce of a server (RFC 9449 section 8.1)"));
        }
        Ok(Some(Head { method: method.map(str::to_owned), url, nonce: nonce.map(str::to_owned), body_sha256 }))
    }
}

fn unknown(known: &[&str]) -> Failure {
    Failure::asked(&format!("unknown parameter; this path knows: {}", known.join(", ")))
}

/// The values of a query that may only name servers.
pub(super) fn servers(text: &str) -> Result<Vec<String>, Failure> {
    let named = pairs(text).map(|(name, value)| (name == "server").then(|| value.into_owned()));
    named.collect::<Option<_>>().ok_or_else(|| unknown(&["server"]))
}

/// The parameters of a query in the form of browsers. One without escapes, which is the usual one, is only split.
fn pairs(text: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    fn read(pair: &str) -> Option<(Cow<'_, str>, Cow<'_, str>)> {
        if pair.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
            return form_urlencoded::parse(pair.as_bytes()).next();
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((Cow::Borrowed(name), Cow::Borrowed(value)))
    }
    text.split('&').filter(|pair| !pair.is_empty()).filter_map(read)
}

/// A configured name, or a URL.
pub(super) fn target(text: &str) -> Result<Target, Failure> {
    // `contains` prepares a search, which takes longer than to look at a short name.
    if !text.as_bytes().windows(3).any(|part| part == b"://") {
        return Ok(Target::Name(text.to_owned()));
    }
    ServerUrl::parse(text).map(Target::Url).map_err(|why| Failure::asked(&format!("`server`: {why}")))
}

/// The body of `/v1/reject`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rejected {
    pub(super) server: String,
    pub(super) access_token_sha256: String,
}

/// The body of `/v1/revoke`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Named {
    pub(super) server: String,
}

/// Are these scopes few enough to be part of a cache key?
pub(super) fn is_short(scopes: &str) -> bool {
    scopes.len() <= SCOPE_BYTES && scopes.split(' ').filter(|scope| !scope.is_empty()).count() <= SCOPES
}

/// Reads a JSON body, within its limits of size and time.
pub(super) async fn read<T: Wire>(body: Incoming) -> Result<T, Failure> {
    let bytes = whole(body, BODY_CAP).await?;
    serde_json::from_slice(&bytes)
        .map_err(|_| Failure::asked(&format!("the body is not the JSON object that this path wants: {}", T::EXAMPLE)))
}

/// A body, with the example that its error shows.
pub(super) trait Wire: serde::de::DeserializeOwned {
    const EXAMPLE: &'static str;
}

impl Wire for Rejected {
    const EXAMPLE: &'static str =
        r#"{"server":"NAME or URL","access_token_sha256":"its SHA-256, hexadecimal or base64url"}"#;
}

impl Wire for Named {
    const EXAMPLE: &'static str = r#"{"server":"NAME or URL"}"#;
}

/// Reads a body of so many bytes at most, within its limit of time. It may hold a secret.
pub(super) async fn whole(body: Incoming, cap: usize) -> Result<Zeroizing<Vec<u8>>, Failure> {
    match tokio::time::timeout(BODY_LIMIT, copied(Limited::new(body, cap))).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(Failure::asked(&format!("the body is larger than {} KiB or broken off", cap / 1024))),
        Err(_) => Err(Failure::asked("the body did not come within 10 s")),
    }
}

/// The whole body, copied piece by piece: a piece of one byte that is kept as it came keeps the buffer that it was read into.
async fn copied<B: Body<Data = Bytes> + Unpin>(mut body: B) -> Result<Zeroizing<Vec<u8>>, B::Error> {
    let mut whole = Zeroizing::new(Vec::new());
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame?.data_ref() {
            whole.extend_from_slice(data);
        }
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::Arc;
    use std::task::{Context, Poll};

    use hyper::body::Frame;
    use hyper::{HeaderMap, Request};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use safeconduct_listener::{self as listener, Begun, Limits, Owner, Places, Reply, Seats, Service};

    use super::super::answer::{Answer, Dialect};
    use super::*;

    #[test]
    fn a_query_without_escapes_is_read_like_any_other() {
        for text in [
            "",
            "a=b",
            "a",
            "a=",
            "=b",
            "a=b=c",
            "a=b&c=d",
            "a&&b",
            "&a=b&",
            "&&&a=b&&",
            "é=é&é",
            "=",
            "&",
            "a=b&a=c",
            "s=https://x/y?z",
            "a=b%26c+d&e=f",
            "%61=b&+=%",
            "a%3Db",
        ] {
            assert_eq!(
                pairs(text).collect::<Vec<_>>(),
                form_urlencoded::parse(text.as_bytes()).collect::<Vec<_>>(),
                "{text}"
            );
        }
    }

    #[test]
    fn a_request_that_names_too_many_scopes_is_refused() {
        let named = |scopes: &[String]| {
            let text = format!("server=a&scope={}", scopes.join("&scope="));
            let query = Query::read(&text, &["server", "scope"]).unwrap_or_else(|_| panic!("known parameters"));
            query.request(Action::Token).map_err(|failure| failure.code().to_owned())
        };
        let many = |count: usize| (0..count).map(|i| i.to_string()).collect::<Vec<_>>();
        let refused = Err("invalid_request".to_owned());
        assert_eq!(named(&many(128)).map(|request| request.scopes.unwrap_or_default().iter().count()), Ok(128));
        assert_eq!(named(&many(129)).map(drop), refused);
        assert_eq!(named(&[many(129).join("+")]).map(drop), refused, "in one parameter");
        assert_eq!(named(&["s".repeat(4 * 1024)]).map(drop), Ok(()));
        assert_eq!(named(&["s".repeat(4 * 1024 + 1)]).map(drop), refused);
        assert_eq!(named(&["s".repeat(2 * 1024), "s".repeat(2 * 1024)]).map(drop), refused, "together");
    }

    /// A body that comes byte by byte, each in a buffer of its own.
    struct Drip {
        left: usize,
        buffers: Arc<()>,
    }

    struct Buffer(#[expect(dead_code, reason = "it counts buffers")] Arc<()>);

    impl AsRef<[u8]> for Buffer {
        fn as_ref(&self) -> &[u8] {
            b" "
        }
    }

    impl Body for Drip {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            assert_eq!(Arc::strong_count(&self.buffers), 1, "the buffer before is given back");
            if self.left == 0 {
                return Poll::Ready(None);
            }
            self.left -= 1;
            let buffer = Buffer(Arc::clone(&self.buffers));
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_owner(buffer)))))
        }
    }

    #[tokio::test]
    async fn a_body_that_comes_byte_by_byte_keeps_no_buffer() {
        let whole = copied(Drip { left: 60_000, buffers: Arc::default() }).await;
        assert_eq!(whole.map(|whole| whole.len()), Ok(60_000));
    }

    /// Reads a body, and refuses it.
    struct Reader;

    impl Service for Reader {
        fn answer(&self, request: Request<Incoming>) -> Reply<'_> {
            Reply::Later(Box::pin(async {
                match read::<Named>(request.into_body()).await {
                    Ok(_) => Answer::empty().into_response(HeaderMap::new()),
                    Err(failure) => failure.into_response(Dialect::Oauth, HeaderMap::new(), false),
                }
            }))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_request_body_is_not_waited_for_for_ever() {
        let (ours, mut theirs) = duplex(64 * 1024);
        let seats = Seats::new(Places { all: 1, user: 1, strangers: 1 });
        let seat = seats.take(Owner::User(1)).expect("nobody else wants it");
        let served = listener::connection(
            Limits::API,
            Default::default(),
            Begun::new(Vec::new(), Box::new(ours)),
            &seat,
            &Reader,
        );
        let begun = tokio::time::Instant::now();
        let client = async move {
            let half = b"POST /v1/reject HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n{";
            theirs.write_all(half).await.expect("there is room");
            let mut line = [0; 12];
            theirs.read_exact(&mut line).await.expect("an answer");
            assert_eq!(&line, b"HTTP/1.1 400");
            assert_eq!(begun.elapsed().as_secs(), BODY_LIMIT.as_secs());
        };
        tokio::join!(served, client);
    }
}
