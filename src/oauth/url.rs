//! URLs as OAuth uses them: the MCP server's, an issuer's, a resource's.
//!
//! Issuers and resources are compared as strings (RFC 8414 section 3.3, RFC 9728 section 3.3), so each type keeps the text
//! it was given. Parsing only decides whether that text is safe to build requests from.

use std::fmt;
use std::sync::Arc;

use url::Url;

use super::{quoted_words, segment};

/// Why a URL cannot identify a server or issuer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadUrl {
    /// Not a URL at all.
    #[error("not an absolute URL")]
    NotAbsolute,
    /// Something other than http and https.
    #[error("the scheme is {0:?}; https is needed")]
    Scheme(String),
    /// `user:password@` hides the real host from a reader.
    #[error("it has a user name or password")]
    Userinfo,
    /// A fragment never reaches the server (RFC 8707 section 2, RFC 9728 section 1.2).
    #[error("it has a fragment")]
    Fragment,
    /// A query is not part of an issuer (RFC 8414 section 2).
    #[error("it has a query")]
    Query,
    /// Parsers disagree about backslashes, blanks and control characters.
    #[error("it has a backslash, blank or control character")]
    Characters,
    /// With dot segments one URL would have several spellings.
    #[error("its path has dot segments")]
    DotSegments,
    /// Many servers decode it into a path of another meaning.
    #[error("its path has an encoded slash, backslash or NUL")]
    EncodedSlash,
    /// A final dot makes another spelling of the same host.
    #[error("its host ends in a dot")]
    FinalDot,
    /// It could hide its end from a reader.
    #[error("it is longer than 2 KiB")]
    TooLong,
    /// It could be shown as something else (bidirectional and invisible characters).
    #[error("it is not plain ASCII; such characters are percent-encoded in a URL")]
    NotAscii,
    /// Non-ASCII names can imitate another host (homographs).
    #[error("its host is not plain ASCII")]
    Host,
}

/// The most bytes of a URL.
const MOST: usize = 2 * 1_024;

/// A URL that keeps its original text, checked so that all parsers read it alike.
#[derive(Clone)]
struct Text {
    text: Arc<str>,
    url: Url,
}

impl Text {
    fn parse(text: &str) -> Result<Self, BadUrl> {
        if text.len() > MOST {
            return Err(BadUrl::TooLong);
        }
        if text.bytes().any(|byte| byte == b'\\' || byte <= b' ' || byte == 0x7f) {
            return Err(BadUrl::Characters);
        }
        let (scheme, rest) = text.split_once("://").ok_or(BadUrl::NotAbsolute)?;
        if !scheme.eq_ignore_ascii_case("https") && !scheme.eq_ignore_ascii_case("http") {
            return Err(BadUrl::Scheme(scheme.chars().take(20).collect()));
        }
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        // The `url` crate would take the next path segment as the host.
        if authority.is_empty() {
            return Err(BadUrl::NotAbsolute);
        }
        if !authority.is_ascii() || authority.contains('%') {
            return Err(BadUrl::Host);
        }
        if !text.is_ascii() {
            return Err(BadUrl::NotAscii);
        }
        if text.contains('#') {
            return Err(BadUrl::Fragment);
        }
        segment::check_path(rest[authority.len()..].split('?').next().unwrap_or_default())?;
        let url = Url::parse(text).map_err(|_| BadUrl::NotAbsolute)?;
        if authority.contains('@') || !url.username().is_empty() || url.password().is_some() {
            return Err(BadUrl::Userinfo);
        }
        match url.host_str() {
            None => return Err(BadUrl::NotAbsolute),
            Some(host) if host.ends_with('.') => return Err(BadUrl::FinalDot),
            Some(_) => {}
        }
        Ok(Self { text: text.into(), url })
    }

    /// The canonical spelling: lower-case scheme and host, no default port, no trailing slash.
    fn normal(&self) -> String {
        let mut url = self.url.clone();
        let trimmed = url.path().trim_end_matches('/').to_owned();
        url.set_path(&trimmed);
        let text = url.to_string();
        if url.query().is_none() { text.trim_end_matches('/').to_owned() } else { text }
    }
}

/// The URL of an MCP server as configured or asked for.
#[derive(Clone)]
pub struct ServerUrl {
    text: Text,
    normal: Arc<str>,
}

impl ServerUrl {
    /// Parses an absolute http(s) URL without userinfo, fragment, backslash, dot segments or a non-ASCII host.
    pub fn parse(text: &str) -> Result<Self, BadUrl> {
        let text = Text::parse(text)?;
        let normal = text.normal().into();
        Ok(Self { text, normal })
    }

    /// The original text.
    pub fn as_str(&self) -> &str {
        &self.text.text
    }

    /// The parsed form.
    pub fn url(&self) -> &Url {
        &self.text.url
    }

    /// Is `other` the same URL in any spelling, or a path below it?
    pub fn covers(&self, other: &Self) -> bool {
        self.normal == other.normal
            || (self.same_origin(other)
                && self.url().query().is_none()
                && below(&self.normal_path(), &other.normal_path()))
    }

    /// The canonical spelling.
    pub(crate) fn normal(&self) -> &str {
        &self.normal
    }

    /// Orders URLs that cover the same server: a larger value is a narrower URL.
    pub(crate) fn depth(&self) -> usize {
        self.normal.len()
    }

    /// Same scheme, host and port?
    pub fn same_origin(&self, other: &Self) -> bool {
        self.url().origin() == other.url().origin()
    }

    fn normal_path(&self) -> String {
        self.url().path().trim_end_matches('/').to_owned()
    }
}

impl PartialEq for ServerUrl {
    fn eq(&self, other: &Self) -> bool {
        self.normal == other.normal
    }
}

impl Eq for ServerUrl {}

/// Leaves out the query, which may hold a secret.
impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str().split('?').next().unwrap_or_default())
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

fn below(parent: &str, child: &str) -> bool {
    child == parent || child.strip_prefix(parent).is_some_and(|rest| rest.starts_with('/'))
}

/// The identifier of an authorization server, byte for byte as published.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Issuer(Arc<str>);

impl Issuer {
    /// Parses an issuer identifier (RFC 8414 section 2: no query, no fragment).
    pub fn parse(text: &str) -> Result<Self, BadUrl> {
        let parsed = Text::parse(text)?;
        if parsed.url.query().is_some() {
            return Err(BadUrl::Query);
        }
        Ok(Self(parsed.text))
    }

    /// Takes a name that is only displayed, never contacted: the platform's, when its token is used directly.
    pub(crate) fn verbatim(text: &str) -> Self {
        Self(quoted_words(text).into())
    }

    /// The text as published.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The possible URLs of its metadata, in the order of the MCP authorization specification: RFC 8414 path insertion,
    /// OpenID path insertion, OpenID path appending. Without a path the last two are equal.
    pub fn metadata_urls(&self) -> Vec<String> {
        let Some((origin, path)) = split_origin(&self.0) else { return Vec::new() };
        let path = path.trim_end_matches('/');
        let mut urls = vec![
            format!("{origin}/.well-known/oauth-authorization-server{path}"),
            format!("{origin}/.well-known/openid-configuration{path}"),
        ];
        if !path.is_empty() {
            urls.push(format!("{origin}{path}/.well-known/openid-configuration"));
        }
        urls
    }
}

impl fmt::Display for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// `scheme://authority` and the rest, as text, so that no parser changes a byte.
fn split_origin(text: &str) -> Option<(&str, &str)> {
    let authority = text.find("://")? + 3;
    let end = text[authority..].find(['/', '?', '#']).map_or(text.len(), |at| authority + at);
    Some((&text[..end], &text[end..]))
}

/// The identifier of a protected resource (RFC 8707), byte for byte as it is sent.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Resource(Arc<str>);

impl Resource {
    /// Parses a resource identifier.
    pub fn parse(text: &str) -> Result<Self, BadUrl> {
        Text::parse(text).map(|parsed| Self(parsed.text))
    }

    /// Takes the operator's configured text without a check.
    pub fn verbatim(text: &str) -> Self {
        Self(text.into())
    }

    /// The text as sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Does this identifier cover `server`: the same URL, or a same-origin prefix of it that ends at a
    /// segment boundary (RFC 9728 section 3.3, with the relaxation that the MCP SDKs share)?
    pub fn stands_for(&self, server: &ServerUrl) -> bool {
        ServerUrl::parse(&self.0).is_ok_and(|own| own.covers(server))
    }

    /// Is it the URL of `server`, in any spelling?
    pub(crate) fn is(&self, server: &ServerUrl) -> bool {
        ServerUrl::parse(&self.0).is_ok_and(|own| own == *server)
    }

    /// Its own well-known place (RFC 9728 section 3.1).
    pub(crate) fn metadata_url(&self) -> Option<ServerUrl> {
        Self::metadata_urls(&ServerUrl::parse(&self.0).ok()?).into_iter().next()
    }

    /// The possible URLs of the metadata of `server`: the path inserted after the well-known segment, the same without a final
    /// slash, which some servers do not expect there, then the root (RFC 9728 section 3.1).
    pub(crate) fn metadata_urls(server: &ServerUrl) -> Vec<ServerUrl> {
        let Some((origin, rest)) = split_origin(server.as_str()) else { return Vec::new() };
        const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";
        let mut places: Vec<ServerUrl> = Vec::new();
        for rest in [if rest == "/" { "" } else { rest }, rest.trim_end_matches('/'), ""] {
            if let Ok(place) = ServerUrl::parse(&format!("{origin}{WELL_KNOWN}{rest}"))
                && places.iter().all(|known| known.as_str() != place.as_str())
            {
                places.push(place);
            }
        }
        places
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// Does the host of a URL name this machine, by one of its three usual names?
pub(crate) fn names_this_machine(host: &str) -> bool {
    ["127.0.0.1", "[::1]", "localhost"].contains(&host)
}

/// The host of a URL as configuration names it: lower case, IPv6 in brackets.
pub(crate) fn host_of(url: &Url) -> &str {
    url.host_str().unwrap_or_default()
}

/// The same for a text. Empty if it is no URL.
pub(crate) fn host_in(text: &str) -> String {
    Url::parse(text).map(|url| host_of(&url).to_owned()).unwrap_or_default()
}
