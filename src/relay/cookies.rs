//! The cookies of MCP servers. Balancers set them to find the instance that has a session. Pure.
//!
//! No client sees a cookie. It is kept for the session in which the server set it, or, outside of sessions, for the caller at
//! this server, and goes back to no other. A session begins with those of its caller.
//!
//! Cookies follow RFC 6265, as far as it applies here: `Path`, `Secure`, `Max-Age` and `Expires`. `Domain` is ignored, because
//! each goes back to the origin that set it and to no other, also if the configuration names another one later.
//!
//! **Bounds.** A jar keeps at most 16 cookies and 4 KiB. A user has at most 256 jars, all together 1,024. Beyond that the jar
//! that was unused the longest is forgotten: of the user that is over its bound, else of the user that has most.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use cookie::{Cookie, Expiration};
use hyper::HeaderMap;
use hyper::header::{HeaderValue, SET_COOKIE};
use url::{Position, Url};

use super::session::{Key, SessionId};
use crate::oauth::Scopes;

/// The most cookies of one jar.
const COOKIES: usize = 16;
/// The most text of one jar.
const BYTES: usize = 4 * 1_024;
/// The most jars of one user.
const OF_USER: usize = 256;
/// The most jars.
const OF_ALL: usize = 1_024;

/// To whom cookies belong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    uid: u32,
    /// The configured name.
    server: Arc<str>,
    of: Of,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Of {
    /// The id that the client holds.
    Session(SessionId),
    /// Callers of one user can differ in what they may have.
    Caller(Option<Scopes>),
}

impl Owner {
    /// A caller with this ceiling, outside of sessions.
    pub(super) fn caller(uid: u32, server: &Arc<str>, ceiling: Option<Scopes>) -> Self {
        Self { uid, server: Arc::clone(server), of: Of::Caller(ceiling) }
    }

    pub(super) fn session(key: &Key) -> Self {
        Self { uid: key.uid, server: Arc::clone(&key.server), of: Of::Session(key.id.clone()) }
    }
}

/// All cookies.
#[derive(Debug, Default)]
pub(super) struct Cookies {
    /// The one that was unused the longest comes first.
    jars: Vec<(Owner, Jar)>,
}

#[derive(Clone, Debug, Default)]
struct Jar {
    /// Where all of them came from.
    origin: String,
    cookies: Vec<Kept>,
}

#[derive(Clone)]
struct Kept {
    name: String,
    value: String,
    path: String,
    /// `None`: as long as the jar.
    until: Option<SystemTime>,
}

/// Whoever has a cookie may be taken for the caller, so it is never shown.
impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a cookie")
    }
}

impl Cookies {
    /// Is there none of anybody?
    pub(super) fn is_empty(&self) -> bool {
        self.jars.is_empty()
    }

    /// The field for a request to this URL.
    pub(super) fn field(&mut self, owner: &Owner, url: &Url, now: SystemTime) -> Option<HeaderValue> {
        let at = self.jars.iter().position(|(known, _)| known == owner)?;
        let used = self.jars.remove(at);
        let text = used.1.field(url, now);
        self.jars.push(used);
        let mut value = HeaderValue::from_str(&text?).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Keeps what the answer to a request to this URL sets.
    pub(super) fn learn(&mut self, owner: &Owner, answer: &HeaderMap, url: &Url, now: SystemTime) {
        let mut jar = self.take(owner);
        if jar.origin != origin(url) {
            jar = Jar { origin: origin(url).to_owned(), cookies: Vec::new() };
        }
        for value in answer.get_all(SET_COOKIE) {
            let cookie = value.to_str().ok().and_then(|text| Cookie::parse(text).ok());
            if let Some(cookie) = cookie.filter(|cookie| cookie.secure() != Some(true) || url.scheme() == "https") {
                jar.set(&cookie, url.path(), now);
            }
        }
        self.put(owner, jar);
    }

    /// A session of this caller begins.
    pub(super) fn begin(&mut self, session: &Owner, caller: &Owner) {
        let jar = self.jars.iter().find(|(known, _)| known == caller).map(|(_, jar)| jar.clone());
        self.forget(session);
        self.put(session, jar.unwrap_or_default());
    }

    pub(super) fn forget(&mut self, owner: &Owner) {
        self.jars.retain(|(known, _)| known != owner);
    }

    fn take(&mut self, owner: &Owner) -> Jar {
        let at = self.jars.iter().position(|(known, _)| known == owner);
        at.map(|at| self.jars.remove(at).1).unwrap_or_default()
    }

    fn put(&mut self, owner: &Owner, jar: Jar) {
        if jar.cookies.is_empty() {
            return;
        }
        self.jars.push((owner.clone(), jar));
        while let Some(loser) = self.loser(owner.uid) {
            let Some(at) = self.jars.iter().position(|(owner, _)| owner.uid == loser) else { return };
            self.jars.remove(at);
        }
    }

    /// Whose jar is to be forgotten, if one is.
    fn loser(&self, uid: u32) -> Option<u32> {
        if self.jars.iter().filter(|(owner, _)| owner.uid == uid).count() > OF_USER {
            return Some(uid);
        }
        if self.jars.len() <= OF_ALL {
            return None;
        }
        let mut counts: HashMap<u32, usize> = HashMap::new();
        for (owner, _) in &self.jars {
            *counts.entry(owner.uid).or_default() += 1;
        }
        counts.into_iter().max_by_key(|(_, count)| *count).map(|(uid, _)| uid)
    }
}

impl Jar {
    /// RFC 6265 section 5.3, for a request to this path.
    fn set(&mut self, cookie: &Cookie<'_>, requested: &str, now: SystemTime) {
        let (name, value) = (cookie.name(), cookie.value());
        // A `Max-Age` goes before an `Expires` (section 4.1.2.2).
        let until = match (cookie.max_age(), cookie.expires()) {
            (Some(age), _) if !age.is_positive() => Some(now),
            (Some(age), _) => now.checked_add(age.unsigned_abs()),
            (None, Some(Expiration::DateTime(at))) => Some(SystemTime::from(at)),
            (None, Some(Expiration::Session) | None) => None,
        };
        let path = match cookie.path() {
            Some(path) if path.starts_with('/') => path,
            _ => default_path(requested),
        };
        self.cookies.retain(|kept| !(kept.name == name && kept.path == path) && kept.is_good(now));
        let is_plain = [name, value].iter().all(|text| HeaderValue::from_str(text).is_ok());
        let size = name.len() + value.len() + path.len();
        if until.is_some_and(|until| until <= now) || name.is_empty() || !is_plain || size > BYTES {
            return;
        }
        self.cookies.push(Kept { name: name.to_owned(), value: value.to_owned(), path: path.to_owned(), until });
        while self.cookies.len() > COOKIES || self.cookies.iter().map(Kept::size).sum::<usize>() > BYTES {
            self.cookies.remove(0);
        }
    }

    /// RFC 6265 section 5.4: longer paths first, then older cookies.
    fn field(&self, url: &Url, now: SystemTime) -> Option<String> {
        if self.origin != origin(url) {
            return None;
        }
        let is_sent = |kept: &&Kept| kept.is_good(now) && kept.is_for(url.path());
        let mut sent: Vec<&Kept> = self.cookies.iter().filter(is_sent).collect();
        sent.sort_by_key(|kept| std::cmp::Reverse(kept.path.len()));
        let pairs: Vec<String> = sent.into_iter().map(|kept| format!("{}={}", kept.name, kept.value)).collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }
}

impl Kept {
    fn size(&self) -> usize {
        self.name.len() + self.value.len() + self.path.len()
    }

    fn is_good(&self, now: SystemTime) -> bool {
        self.until.is_none_or(|until| until > now)
    }

    /// RFC 6265 section 5.1.4.
    fn is_for(&self, requested: &str) -> bool {
        requested
            .strip_prefix(&*self.path)
            .is_some_and(|rest| rest.is_empty() || self.path.ends_with('/') || rest.starts_with('/'))
    }
}

fn origin(url: &Url) -> &str {
    &url[..Position::AfterPort]
}

/// The path up to its last slash, without it (RFC 6265 section 5.1.4).
fn default_path(requested: &str) -> &str {
    match requested.rfind('/') {
        None | Some(0) => "/",
        Some(at) => &requested[..at],
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn caller(uid: u32) -> Owner {
        Owner::caller(uid, &"files".into(), None)
    }

    fn session(uid: u32, id: &str) -> Owner {
        let id = SessionId::parse(id).expect("an id");
        Owner::session(&Key { uid, server: "files".into(), id })
    }

    fn url() -> Url {
        Url::parse("https://mcp.example/a/mcp").expect("a URL")
    }

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn set(cookies: &mut Cookies, owner: &Owner, lines: &[&str]) {
        set_at(cookies, owner, lines, &url());
    }

    fn set_at(cookies: &mut Cookies, owner: &Owner, lines: &[&str], url: &Url) {
        let mut answer = HeaderMap::new();
        for line in lines {
            answer.append(SET_COOKIE, line.parse().expect("a value"));
        }
        cookies.learn(owner, &answer, url, NOW);
    }

    fn sent(cookies: &mut Cookies, owner: &Owner, path: &str, after: u64) -> String {
        let url = Url::parse(&format!("https://mcp.example{path}")).expect("a URL");
        let field = cookies.field(owner, &url, NOW + Duration::from_secs(after));
        field.map(|value| value.to_str().expect("ASCII").to_owned()).unwrap_or_default()
    }

    #[test]
    fn each_attribute_counts() {
        for (lines, path, after, expected) in [
            (&["a=1"][..], "/a/mcp", 0, "a=1"),
            (&["a=\"1 2\"; HttpOnly; SameSite=None"], "/a/mcp", 0, "a=\"1 2\""),
            (&["a=1; Domain=other.example"], "/a/mcp", 0, "a=1"),
            (&["a=1", "b=2", "a=3"], "/a/mcp", 0, "b=2; a=3"),
            // The default path is that of the request.
            (&["a=1"], "/a/more", 0, "a=1"),
            (&["a=1"], "/b", 0, ""),
            (&["a=1; Path=/"], "/b", 0, "a=1"),
            (&["a=1; Path=relative"], "/b", 0, ""),
            (&["a=1; Path=/a/mc"], "/a/mcp", 0, ""),
            (&["a=1; Path=/", "b=2; Path=/a/mcp"], "/a/mcp", 0, "b=2; a=1"),
            (&["a=1; Max-Age=5"], "/a/mcp", 4, "a=1"),
            (&["a=1; Max-Age=5"], "/a/mcp", 5, ""),
            (&["a=1; Max-Age=5; Expires=Thu, 01 Jan 1970 00:00:00 GMT"], "/a/mcp", 4, "a=1"),
            (&["a=1", "a=; Max-Age=0"], "/a/mcp", 0, ""),
            (&["a=1", "a=; Max-Age=-1"], "/a/mcp", 0, ""),
            (&["a=1", "a=; Expires=Thu, 01 Jan 1970 00:00:00 GMT"], "/a/mcp", 0, ""),
            (&["a=1; Expires=Thu, 01 Jan 1970 00:00:09 GMT"], "/a/mcp", 8, "a=1"),
            (&["a=1; Expires=Thu, 01 Jan 1970 00:00:09 GMT"], "/a/mcp", 9, ""),
            (&["=1", "a", ""], "/a/mcp", 0, ""),
        ] {
            let mut cookies = Cookies::default();
            set(&mut cookies, &caller(1), lines);
            assert_eq!(sent(&mut cookies, &caller(1), path, after), expected, "{lines:?} {path} {after}");
        }
    }

    #[test]
    fn a_secure_cookie_is_not_kept_without_tls() {
        let mut cookies = Cookies::default();
        let plain = Url::parse("http://127.0.0.1/mcp").expect("a URL");
        set_at(&mut cookies, &caller(1), &["a=1; Secure", "b=2"], &plain);
        assert_eq!(cookies.field(&caller(1), &plain, NOW), Some(HeaderValue::from_static("b=2")));
    }

    #[test]
    fn a_cookie_goes_back_to_its_owner_alone() {
        let mut cookies = Cookies::default();
        set(&mut cookies, &session(1, "A"), &["a=1"]);
        set(&mut cookies, &caller(1), &["b=2"]);
        let server = "files".into();
        let narrow = Owner::caller(1, &server, Scopes::parse("a").ok());
        let elsewhere = Owner::caller(1, &"other".into(), None);
        for other in [session(2, "A"), session(1, "B"), caller(2), narrow, elsewhere] {
            assert_eq!(sent(&mut cookies, &other, "/a/mcp", 0), "", "{other:?}");
        }
        assert_eq!(sent(&mut cookies, &session(1, "A"), "/a/mcp", 0), "a=1");
        cookies.forget(&session(1, "A"));
        assert_eq!(sent(&mut cookies, &session(1, "A"), "/a/mcp", 0), "");
    }

    #[test]
    fn a_server_that_moved_gets_no_cookie_of_the_one_before() {
        let mut cookies = Cookies::default();
        set(&mut cookies, &caller(1), &["a=1; Path=/"]);
        let moved = Url::parse("https://other.example/a/mcp").expect("a URL");
        assert_eq!(cookies.field(&caller(1), &moved, NOW), None);
        set_at(&mut cookies, &caller(1), &["b=2"], &moved);
        assert_eq!(cookies.field(&caller(1), &moved, NOW), Some(HeaderValue::from_static("b=2")));
    }

    #[test]
    fn a_session_begins_with_the_cookies_of_its_caller() {
        let mut cookies = Cookies::default();
        set(&mut cookies, &caller(1), &["a=1"]);
        set(&mut cookies, &session(1, "A"), &["old=1"]);
        cookies.begin(&session(1, "A"), &caller(1));
        set(&mut cookies, &session(1, "A"), &["b=2"]);
        assert_eq!(sent(&mut cookies, &session(1, "A"), "/a/mcp", 0), "a=1; b=2");
        assert_eq!(sent(&mut cookies, &caller(1), "/a/mcp", 0), "a=1");
    }

    #[test]
    fn a_jar_is_bounded_in_number_and_size() {
        let mut cookies = Cookies::default();
        for number in 0..100 {
            set(&mut cookies, &caller(1), &[&format!("c{number}=1")]);
        }
        let field = sent(&mut cookies, &caller(1), "/a/mcp", 0);
        assert!(field.starts_with("c84=1; ") && field.ends_with("; c99=1"), "{field}");
        for number in 0..100 {
            set(&mut cookies, &caller(1), &[&format!("c{number}={}", "x".repeat(1_000))]);
        }
        assert!(sent(&mut cookies, &caller(1), "/a/mcp", 0).len() < BYTES);
        set(&mut cookies, &caller(2), &[&format!("c={}", "x".repeat(BYTES))]);
        assert_eq!(sent(&mut cookies, &caller(2), "/a/mcp", 0), "");
    }

    #[test]
    fn no_user_makes_another_forgotten() {
        let mut cookies = Cookies::default();
        set(&mut cookies, &caller(1), &["a=1"]);
        for number in 0..2 * OF_USER {
            set(&mut cookies, &session(2, &format!("{number}")), &["a=1"]);
        }
        assert_eq!(cookies.jars.len(), OF_USER + 1);
        for uid in 3..8 {
            for number in 0..OF_USER {
                set(&mut cookies, &session(uid, &format!("{number}")), &["a=1"]);
            }
        }
        assert_eq!(cookies.jars.len(), OF_ALL);
        assert_eq!(sent(&mut cookies, &caller(1), "/a/mcp", 0), "a=1");
    }

    #[test]
    fn a_cookie_is_never_shown() {
        let mut cookies = Cookies::default();
        set(&mut cookies, &session(1, "secret-id"), &["secret-name=secret-value"]);
        assert!(!format!("{cookies:?}").contains("secret"));
    }
}
