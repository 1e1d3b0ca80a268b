//! Who asks, and whether a browser or a proxy does. Every request passes the gate before its path is looked at.
//!
//! On the socket the kernel says who connected; on TCP a secret does. A web page must not reach any listener: a request is
//! refused if it has a header that only browsers or proxies send, or a `Host` that is not this machine (DNS rebinding).

use std::os::fd::AsRawFd;
use std::sync::Arc;

use hyper::header::{AUTHORIZATION, HeaderValue};
use hyper::{HeaderMap, Uri};
use nix::sys::socket::{MsgFlags, recv};
use tokio::net::UnixStream;

use super::desk::Desk;
use super::secret::LoopbackSecret;
use crate::caller::{Caller, Facts, Needs, Why};
use crate::process::{Connected, Process};

/// Why a request is refused at the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A browser sent it.
    Browser,
    /// A proxy sent it, so the caller is not known.
    Forwarded,
    /// Its `Host` is not this machine.
    Host,
}

impl Refusal {
    /// A stable code for the audit.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::Browser => "browser",
            Self::Forwarded => "forwarded",
            Self::Host => "foreign_host",
        }
    }

    /// For people.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Browser => "requests of browsers are refused",
            Self::Forwarded => "forwarded requests are refused",
            Self::Host => "the Host must be localhost, 127.0.0.1 or [::1]",
        }
    }
}

/// The process at the other end, as the kernel recorded it when it connected. The hints for the audit are read now, while
/// the request is still being written, so that the request does not wait for them.
pub(super) fn caller(stream: &UnixStream, desk: &Desk<'_>) -> std::io::Result<Caller> {
    let peer = stream.peer_cred()?;
    let caller = Caller::on_socket(peer.uid(), peer.gid(), peer.pid());
    if desk.broker.records() {
        caller.hints();
    }
    Ok(caller)
}

/// Holds the process that connected, so that no other can take its id, and what it is now. Only if a rule that may match its
/// user needs more facts than the kernel gives with the connection.
pub(super) fn process(stream: &UnixStream, caller: &Caller, desk: &Desk<'_>) -> Option<Result<Connected, Why>> {
    desk.broker.needs(caller).map(|needs| Process::connected(stream, caller.pid, &needs))
}

/// Has the other side closed it already, without a word?
pub(super) fn has_left(stream: &UnixStream) -> bool {
    let (mut one, flags) = ([0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT);
    recv(stream.as_raw_fd(), &mut one, flags) == Ok(0)
}

/// The caller of one request, with the facts that its rules need, as they are now.
pub(super) async fn look(
    caller: &Caller,
    process: Option<&Result<Process, Why>>,
    needs: &Needs,
    desk: &Desk<'_>,
) -> Caller {
    let facts = match process {
        Some(Ok(process)) => process.facts(needs, &desk.fixed.digests, caller.uid).await,
        Some(Err(why)) => Facts::unknown(why),
        None => Facts::unknown(&Why::Earlier),
    };
    caller.with(facts)
}

/// What a listener asks of those who connect to it.
pub(super) enum Pass {
    /// Nothing: the kernel says who they are.
    Kernel,
    /// The secret, as `Authorization: Bearer`.
    Secret(Arc<LoopbackSecret>),
    /// Nothing, and nobody is known. Other machines may reach the listener, by any name.
    Anyone,
}

impl Pass {
    /// Does the request present the secret? It must have one such field: a second one could be meant for somebody else.
    pub(super) fn is_shown(&self, headers: &HeaderMap) -> bool {
        let Self::Secret(secret) = self else { return true };
        let mut fields = headers.get_all(AUTHORIZATION).iter();
        match (fields.next().map(|field| field.as_bytes().split_at_checked(SCHEME.len())), fields.next()) {
            (Some(Some((scheme, shown))), None) => scheme.eq_ignore_ascii_case(SCHEME) && secret.is(shown),
            _ => false,
        }
    }

    /// Where to find the secret.
    pub(super) fn hint(&self) -> Option<String> {
        let Self::Secret(secret) = self else { return None };
        Some(format!("it is in {}, new at each start; the Unix socket needs none", secret.path().display()))
    }
}

/// The scheme is compared without case (RFC 9110 section 11.1).
const SCHEME: &[u8] = b"bearer ";

/// Judges a request by its head: no browser, no proxy, and the name of this machine.
pub(super) fn admit(pass: &Pass, target: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    let mut hosts = Hosts::None;
    // A local client sends two or three fields, so one pass over them is faster than a look-up of each name.
    for (name, value) in headers {
        match name.as_str() {
            "host" => hosts = hosts.and(value),
            "origin" | "referer" | "sec-fetch-site" => return Err(Refusal::Browser),
            "forwarded" | "x-forwarded-for" | "x-forwarded-host" | "x-forwarded-proto" | "x-real-ip" | "via" => {
                return Err(Refusal::Forwarded);
            }
            _ => {}
        }
    }
    // An absolute target overrides Host (RFC 9112 section 3.2.2), and no local client sends one.
    let is_ours = target.authority().is_none() && (matches!(pass, Pass::Anyone) || hosts.is_local());
    if is_ours { Ok(()) } else { Err(Refusal::Host) }
}

/// The Host fields of a request.
enum Hosts<'a> {
    None,
    One(&'a HeaderValue),
    More,
}

impl<'a> Hosts<'a> {
    fn and(self, value: &'a HeaderValue) -> Self {
        if matches!(self, Self::None) { Self::One(value) } else { Self::More }
    }

    fn is_local(&self) -> bool {
        matches!(self, Self::One(value) if value.to_str().is_ok_and(is_local))
    }
}

/// `localhost`, `127.0.0.1` or `[::1]`, with any port.
fn is_local(host: &str) -> bool {
    // Local clients send this at the socket. Not to parse it saves 1 % of a request for a cached token.
    if host == "localhost" {
        return true;
    }
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
    use hyper::header::{HOST, HeaderName};

    use super::*;

    #[tokio::test]
    async fn a_connection_that_was_closed_without_a_word_is_left() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        assert!(!has_left(&ours));
        theirs.try_write(b"G").expect("there is room");
        drop(theirs);
        assert!(!has_left(&ours), "it has a word");
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        drop(theirs);
        assert!(has_left(&ours));
    }

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
        assert_eq!(admit(&Pass::Anyone, &path(), &headers(&[("host", "10.1.2.3:9464")])), Ok(()));
        let page = headers(&[("host", "10.1.2.3:9464"), ("origin", "https://evil.example")]);
        assert_eq!(admit(&Pass::Anyone, &path(), &page), Err(Refusal::Browser));
    }

    fn path() -> Uri {
        Uri::from_static("/v1/token")
    }

    #[test]
    fn an_absolute_target_is_refused() {
        let target = Uri::from_static("http://evil.example/v1/token");
        assert_eq!(admit(&Pass::Kernel, &target, &headers(&[("host", "localhost")])), Err(Refusal::Host));
    }

    #[test]
    fn local_hosts_pass_with_any_port() {
        for host in ["localhost", "LOCALHOST:80", "127.0.0.1:7878", "[::1]", "[::1]:1"] {
            assert_eq!(admit(&Pass::Kernel, &path(), &headers(&[("host", host)])), Ok(()), "{host}");
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
            assert_eq!(admit(&Pass::Kernel, &path(), &headers(&[("host", host)])), Err(Refusal::Host), "{host}");
        }
        assert_eq!(admit(&Pass::Kernel, &path(), &HeaderMap::new()), Err(Refusal::Host));
        let mut two = headers(&[("host", "localhost")]);
        two.append(HOST, HeaderValue::from_static("evil.example"));
        assert_eq!(admit(&Pass::Kernel, &path(), &two), Err(Refusal::Host));
    }

    #[test]
    fn browsers_and_proxies_are_refused_whatever_the_host() {
        for name in ["origin", "referer", "sec-fetch-site"] {
            assert_eq!(
                admit(&Pass::Kernel, &path(), &headers(&[("host", "localhost"), (name, "x")])),
                Err(Refusal::Browser),
                "{name}"
            );
        }
        assert_eq!(
            admit(&Pass::Kernel, &path(), &headers(&[("host", "localhost"), ("x-forwarded-for", "x")])),
            Err(Refusal::Forwarded)
        );
    }
}
