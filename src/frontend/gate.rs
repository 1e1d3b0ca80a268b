//! Who asks, and whether it is a browser. Passed before anything else is looked at.
//!
//! On the socket the kernel says who connected; on TCP a secret does. No page may reach a listener of ours: a request with a header
//! that only browsers or proxies send, or with a `Host` that DNS rebinding would bring, is refused.

use std::borrow::Cow;
use std::sync::Arc;

use hyper::header::{AUTHORIZATION, HOST};
use hyper::{HeaderMap, Uri};
use tokio::net::UnixStream;

use super::api::State;
use super::secret::LoopbackSecret;
use crate::caller::{Caller, Facts, Process, Why};

/// Why a request goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// A browser sent it.
    #[error("requests of browsers are refused")]
    Browser,
    /// A proxy sent it: the caller would be the proxy.
    #[error("forwarded requests are refused")]
    Forwarded,
    /// A name that is not this machine's.
    #[error("the Host must be localhost, 127.0.0.1 or [::1]")]
    Host,
}

impl Refusal {
    /// A stable code for records.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Browser => "browser",
            Self::Forwarded => "forwarded",
            Self::Host => "foreign_host",
        }
    }
}

/// The process at the other end, as the kernel recorded it when it connected. What the audit says of it besides is read
/// now: it is nearest to that moment, and the request is still being written, so that nobody waits for it.
pub(crate) fn caller(stream: &UnixStream, state: &State) -> std::io::Result<Caller> {
    let peer = stream.peer_cred()?;
    let caller = Caller::on_socket(peer.uid(), peer.gid(), peer.pid());
    if state.broker.now().records() {
        caller.hints();
    }
    Ok(caller)
}

/// Holds the process that connected, if a rule that may match its user asks for more than that. Else nothing is spent on it.
pub(crate) fn process(stream: &UnixStream, caller: &Caller, state: &State) -> Option<Result<Process, Why>> {
    state.broker.now().needs(caller).map(|_| Process::connected(stream, caller.pid))
}

/// The caller of one request, with what its rules ask for as that is now.
pub(crate) async fn look<'a>(
    caller: &'a Caller,
    process: Option<&Result<Process, Why>>,
    state: &State,
) -> Cow<'a, Caller> {
    let Some(needs) = state.broker.now().needs(caller) else { return Cow::Borrowed(caller) };
    let facts = match process {
        // In a box: most connections never need the room.
        Some(Ok(process)) => Box::pin(process.facts(&needs, &state.digests)).await,
        Some(Err(why)) => Facts::unknown(why),
        None => Facts::unknown(&Why::Earlier),
    };
    Cow::Owned(caller.with(facts))
}

/// What a listener asks of those who connect to it.
pub(crate) enum Pass {
    /// Nothing: the kernel has said who they are.
    Kernel,
    /// The secret, as `Authorization: Bearer`.
    Secret(Arc<LoopbackSecret>),
}

impl Pass {
    /// Is it shown? One field, with the one secret: a second one could be meant for somebody else.
    pub(super) fn is_shown(&self, headers: &HeaderMap) -> bool {
        let Self::Secret(secret) = self else { return true };
        let mut fields = headers.get_all(AUTHORIZATION).iter();
        match (fields.next().map(|field| field.as_bytes().split_at_checked(SCHEME.len())), fields.next()) {
            (Some(Some((scheme, shown))), None) => scheme.eq_ignore_ascii_case(SCHEME) && secret.is(shown),
            _ => false,
        }
    }
}

/// The scheme is compared without case (RFC 9110 section 11.1).
const SCHEME: &[u8] = b"bearer ";

/// Looks at the request's head alone.
pub(crate) fn admit(target: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    admit_from_anywhere(target, headers)?;
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next().map(|host| host.to_str()), hosts.next()) {
        (Some(Ok(host)), None) if is_local(host) => Ok(()),
        _ => Err(Refusal::Host),
    }
}

/// The same for a listener that other machines may reach by whatever name: no browser, no proxy.
pub(super) fn admit_from_anywhere(target: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    // A local client sends two or three fields: looking at each is quicker than looking for each name.
    for name in headers.keys() {
        match name.as_str() {
            "origin" | "referer" | "sec-fetch-site" => return Err(Refusal::Browser),
            "forwarded" | "x-forwarded-for" | "x-forwarded-host" | "x-forwarded-proto" | "x-real-ip" | "via" => {
                return Err(Refusal::Forwarded);
            }
            _ => {}
        }
    }
    // An absolute target takes the place of Host (RFC 9112 section 3.2.2), and no local client sends one.
    if target.authority().is_some() { Err(Refusal::Host) } else { Ok(()) }
}

/// `localhost`, `127.0.0.1` or `[::1]`, with any port.
fn is_local(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((name, after)) => (name, after.strip_prefix(':').or_else(|| after.is_empty().then_some(""))),
            None => return false,
        },
        None => match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, Some("")),
        },
    };
    let bracketed = host.starts_with('[');
    let named = if bracketed { name == "::1" } else { name.eq_ignore_ascii_case("localhost") || name == "127.0.0.1" };
    named && port.is_some_and(|port| port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn the_secret_is_shown_once_and_whole() {
        let directory = tempfile::tempdir().expect("a directory");
        let secret = LoopbackSecret::beside(&directory.path().join("w.sock")).expect("written");
        let text = std::fs::read_to_string(secret.path()).expect("there");
        let pass = Pass::Secret(Arc::new(secret));
        let shown = |fields: &[String]| {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(AUTHORIZATION, HeaderValue::from_str(field).expect("a field"));
            }
            pass.is_shown(&headers)
        };
        let good = format!("Bearer {text}");
        assert!(shown(std::slice::from_ref(&good)) && shown(&[format!("bearer {text}")]));
        for bad in
            [text.clone(), format!("Basic {text}"), format!("Bearer  {text}"), "Bearer ".to_owned(), "B".to_owned()]
        {
            assert!(!shown(std::slice::from_ref(&bad)), "{bad:?}");
        }
        assert!(!shown(&[]) && !shown(&[good.clone(), good]));
        assert!(Pass::Kernel.is_shown(&HeaderMap::new()));
    }

    #[test]
    fn where_other_machines_may_ask_any_host_will_do_and_browsers_will_not() {
        assert_eq!(admit_from_anywhere(&path(), &headers(&[("host", "10.1.2.3:9464")])), Ok(()));
        let page = headers(&[("host", "10.1.2.3:9464"), ("origin", "https://evil.example")]);
        assert_eq!(admit_from_anywhere(&path(), &page), Err(Refusal::Browser));
    }

    fn path() -> Uri {
        Uri::from_static("/v1/token")
    }

    #[test]
    fn an_absolute_target_is_refused() {
        let target = Uri::from_static("http://evil.example/v1/token");
        assert_eq!(admit(&target, &headers(&[("host", "localhost")])), Err(Refusal::Host));
    }

    #[test]
    fn local_hosts_pass_with_any_port() {
        for host in ["localhost", "LOCALHOST:80", "127.0.0.1:7878", "[::1]", "[::1]:1"] {
            assert_eq!(admit(&path(), &headers(&[("host", host)])), Ok(()), "{host}");
        }
    }

    #[test]
    fn dns_rebinding_is_refused_by_its_host() {
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.2",
            "[::2]",
            "[::1",
            "::1",
            "localhost:x",
            "[::1]x",
            "",
        ] {
            assert_eq!(admit(&path(), &headers(&[("host", host)])), Err(Refusal::Host), "{host}");
        }
        assert_eq!(admit(&path(), &HeaderMap::new()), Err(Refusal::Host));
        let mut two = headers(&[("host", "localhost")]);
        two.append(HOST, HeaderValue::from_static("evil.example"));
        assert_eq!(admit(&path(), &two), Err(Refusal::Host));
    }

    #[test]
    fn browsers_and_proxies_are_refused_whatever_the_host() {
        for name in ["origin", "referer", "sec-fetch-site"] {
            assert_eq!(
                admit(&path(), &headers(&[("host", "localhost"), (name, "x")])),
                Err(Refusal::Browser),
                "{name}"
            );
        }
        assert_eq!(
            admit(&path(), &headers(&[("host", "localhost"), ("x-forwarded-for", "x")])),
            Err(Refusal::Forwarded)
        );
    }
}
