//! The daemon's client, for our own commands: it connects to the daemon's socket, sends one request and reads the answer.
//!
//! A helper runs for every request of its client, so this uses no async runtime, no TLS and no logger, and reads no file.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    self as sys, AddressFamily, SockFlag, SockType, UnixAddr, getsockopt, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use zeroize::Zeroizing;

use crate::clock::Clock;

mod answerer;
mod place;

pub(crate) use answerer::Answerer;
pub(crate) use place::{Place, may_be_ours, places};
use place::{nobody_at, passed_over, passed_over_at};

/// Larger than any answer of the API, tokens of 32 KiB included.
const ANSWER_CAP: usize = 256 * 1024;

/// An answer of the daemon.
pub(crate) struct Reply {
    /// The status.
    pub status: u16,
    /// The body; it may hold a token.
    pub body: Zeroizing<Vec<u8>>,
    /// Who refuses, if it is a refusal.
    pub from: Option<Answerer>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Nobody listens at any of the places. Only then may a command do the work in its own process, if it looked there by itself.
    #[error("{}{}", nobody_at(places, killed.as_ref()), passed_over(passed.as_ref()))]
    Absent {
        /// The places.
        places: Vec<Place>,
        /// A socket that is there and was passed over, with the user whose directory it lies in.
        passed: Option<(PathBuf, u32)>,
        /// The directory of a step of this job whose daemon was killed.
        killed: Option<PathBuf>,
    },
    /// There is a socket, and this process may not connect to it.
    #[error("{}: {error}", path.display())]
    Forbidden {
        /// The socket.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// The path that was named is too long for a socket.
    #[error("{} is longer than the path of a socket may be", path.display())]
    TooLong {
        /// The path.
        path: PathBuf,
    },
    /// At a compiled-in path, another user listens.
    #[error("{} belongs to a process of uid {uid}, which is neither ours nor root's", path.display())]
    Foreign {
        /// The socket.
        path: PathBuf,
        /// The user who listens.
        uid: u32,
    },
    /// Somebody listens and does not answer in time.
    #[error("the daemon at {} gives no answer within {} s", path.display(), limit.as_secs())]
    TimedOut {
        /// The socket.
        path: PathBuf,
        /// The limit.
        limit: Duration,
    },
    /// The connection ends before the answer does: the daemon is ending, or was killed.
    #[error("the daemon at {} ended the connection before its answer was complete", path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
    },
    /// The answer is not one of this program.
    #[error("what listens at {} does not answer like safeconduct: {what}", path.display())]
    Strange {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

impl Error {
    /// May a command do the work in its own process? Not if somebody named a socket: they meant that daemon.
    pub(crate) fn lets_work_here(&self) -> bool {
        matches!(self, Self::Absent { places, .. } if !places.iter().any(|place| place.named))
    }

    /// Is there a socket that was passed over?
    pub(crate) fn has_passed_over(&self) -> bool {
        matches!(self, Self::Absent { passed: Some(_), .. })
    }
}

/// Sends `request` (method and target) to the first daemon that listens. `limit` bounds the whole exchange.
pub(crate) fn ask(
    places: &[Place],
    request: &str,
    body: Option<&str>,
    own_uid: u32,
    limit: Duration,
) -> Result<Reply, Error> {
    let (stream, place) = first(places, own_uid, Some(limit))?;
    speak(stream, &place.path, (request, body), Limit { whole: limit, tell: None })
}

/// How long to wait for an answer, and whom to tell after two seconds that it does not come.
#[derive(Clone, Copy)]
pub(crate) struct Limit<'a> {
    /// The whole exchange.
    pub whole: Duration,
    /// Is given the socket.
    pub tell: Option<&'a dyn Fn(&Path)>,
}

/// Who waits longer than this is told for what.
pub(crate) const NOTICE: Duration = Duration::from_secs(2);

/// Sends `request` to the daemons of a CI job's steps, the newest first, until one answers that it serves what is asked for.
/// Where there is no such daemon, this is [`ask`]. If none serves it, the answer is that of the newest.
pub(crate) fn ask_steps(
    places: &[Place],
    (request, body): (&str, Option<&str>),
    own_uid: u32,
    limit: Limit<'_>,
    is_not_served: impl Fn(&Reply) -> bool,
) -> Result<Reply, Error> {
    let (mut rest, mut newest) = (places, None);
    loop {
        let asked = first(rest, own_uid, Some(limit.whole)).and_then(|(stream, found)| {
            let at = rest.iter().position(|place| place == found).unwrap_or_default();
            Ok((at, speak(stream, &found.path, (request, body), limit)?))
        });
        match (asked, newest) {
            (Ok((at, reply)), before) if rest[at].of_step && is_not_served(&reply) => {
                rest = &rest[at + 1..];
                newest = Some(before.unwrap_or(reply));
            }
            // The machine's own daemon is not asked for what those of the job refuse.
            (Ok((at, _)), Some(reply)) if !rest[at].of_step => return Ok(reply),
            (Ok((_, reply)), _) => return Ok(reply),
            // The one that fails for now may be the one that serves it.
            (Err(error @ (Error::Broken { .. } | Error::TimedOut { .. })), _) | (Err(error), None) => {
                return Err(error);
            }
            (Err(_), Some(reply)) => return Ok(reply),
        }
    }
}

/// Connects to the first daemon that listens, without waiting: one that does not accept is [`Error::TimedOut`]. The connection is
/// non-blocking.
pub(crate) fn connect(places: &[Place], own_uid: u32) -> Result<UnixStream, Error> {
    first(places, own_uid, None).map(|(stream, _)| stream)
}

/// The first place where a daemon listens, which is found without waiting.
pub(crate) fn listening(places: &[Place], own_uid: u32) -> Result<&Place, Error> {
    first(places, own_uid, None).map(|(_, place)| place)
}

/// The process that listens at the first place where a daemon does, as this process may see it.
pub(crate) fn listener(places: &[Place], own_uid: u32) -> Result<Option<i32>, Error> {
    let (stream, place) = first(places, own_uid, None)?;
    let peer = getsockopt(&stream, sockopt::PeerCredentials);
    let peer = peer.map_err(|error| Error::Forbidden { path: place.path.clone(), error: error.into() })?;
    Ok(Some(peer.pid()).filter(|pid| *pid > 0))
}

/// Without a limit nothing is waited for.
fn first(places: &[Place], own_uid: u32, limit: Option<Duration>) -> Result<(UnixStream, &Place), Error> {
    let mut refused = None;
    for place in places {
        match dial(place, own_uid, limit) {
            Ok(Some(stream)) => return Ok((stream, place)),
            Ok(None) => {}
            // A system socket that we may not use, or another user's, must not hide our own daemon at a later path.
            Err(error @ (Error::Forbidden { .. } | Error::Foreign { .. })) => refused = refused.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    if let Some(error) = refused {
        return Err(error);
    }
    let passed = places.iter().find_map(|place| passed_over_at(place, own_uid));
    let killed = places.iter().find(|place| place.of_step && place.path.exists());
    let killed = killed.and_then(|place| place.path.parent()).map(Path::to_owned);
    Err(Error::Absent { places: places.to_vec(), passed, killed })
}

/// The user whose process listens there, according to the kernel.
pub(crate) fn owner(place: &Place, limit: Duration) -> io::Result<u32> {
    let stream = open(&place.path, Some(limit))?;
    Ok(getsockopt(&stream, sockopt::PeerCredentials)?.uid())
}

/// Connects. `None` means that nobody listens there; only then may the next path be tried, or this process do the work.
fn dial(place: &Place, own_uid: u32, limit: Option<Duration>) -> Result<Option<UnixStream>, Error> {
    let path = &place.path;
    let forbidden = |error: io::Error| Error::Forbidden { path: path.clone(), error };
    if !may_be_ours(place, own_uid) {
        return Ok(None);
    }
    let stream = match open(path, limit) {
        Ok(stream) => stream,
        Err(error) => {
            return match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory => Ok(None),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                    Err(Error::TimedOut { path: path.clone(), limit: limit.unwrap_or_default() })
                }
                // No daemon can be at such a path. One that was not named is passed over: it comes from `RUNNER_TEMP`.
                _ if error.raw_os_error() == Some(Errno::ENAMETOOLONG as i32) => {
                    if place.named {
                        Err(Error::TooLong { path: path.clone() })
                    } else {
                        Ok(None)
                    }
                }
                _ => Err(forbidden(error)),
            };
        }
    };
    if !place.named {
        let peer = getsockopt(&stream, sockopt::PeerCredentials).map_err(|error| forbidden(error.into()))?;
        if peer.uid() != own_uid && peer.uid() != 0 {
            return Err(Error::Foreign { path: path.clone(), uid: peer.uid() });
        }
    }
    Ok(Some(stream))
}

/// The time-outs are set before `connect`, because the send time-out also bounds a `connect` that waits for a full backlog.
fn open(path: &Path, limit: Option<Duration>) -> io::Result<UnixStream> {
    let waits = if limit.is_some() { SockFlag::empty() } else { SockFlag::SOCK_NONBLOCK };
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC | waits, None)?;
    if let Some(limit) = limit {
        // The kernel takes a time-out of zero for none.
        let limit = limit.max(Duration::from_millis(1));
        let seconds = i64::try_from(limit.as_secs()).unwrap_or(i64::MAX);
        let limit_value = TimeVal::new(seconds, limit.subsec_micros().into());
        setsockopt(&socket, sockopt::SendTimeout, &limit_value)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &limit_value)?;
    }
    sys::connect(std::os::fd::AsRawFd::as_raw_fd(&socket), &UnixAddr::new(path)?)?;
    Ok(UnixStream::from(socket))
}

fn speak(
    mut stream: UnixStream,
    path: &Path,
    (request, body): (&str, Option<&str>),
    Limit { whole: limit, mut tell }: Limit<'_>,
) -> Result<Reply, Error> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::TimedOut { path: path.to_owned(), limit },
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Error::Broken { path: path.to_owned() },
        _ => Error::Strange { path: path.to_owned(), what: error.to_string() },
    };
    let strange = |what: &str| Error::Strange { path: path.to_owned(), what: what.to_owned() };
    let body = body.map_or_else(String::new, |body| {
        let media = "Content-Type: application/json\r\nAccept: application/json, text/event-stream";
        format!("{media}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    });
    let end = if body.is_empty() { "\r\n" } else { "" };
    let head = format!("{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{body}{end}");
    stream.write_all(head.as_bytes()).map_err(failed)?;
    // The buffer begins small, because clearing it costs more than reading. It grows by a copy, and the old one is cleared.
    let mut answer = Zeroizing::new(vec![0; 2 * 1024]);
    let (clock, mut filled) = (Clock::system(), 0);
    let asked = clock.boot();
    tell = tell.filter(|_| limit > NOTICE);
    if tell.is_some() {
        stream.set_read_timeout(Some(NOTICE)).map_err(failed)?;
    }
    loop {
        let read = stream.read(&mut answer[filled..]);
        if let (Err(error), Some(told)) = (&read, tell)
            && error.kind() == io::ErrorKind::WouldBlock
        {
            told(path);
            tell = None;
            let left = limit.saturating_sub(clock.boot().since(asked)).max(Duration::from_millis(1));
            stream.set_read_timeout(Some(left)).map_err(failed)?;
            continue;
        }
        match read.map_err(failed)? {
            0 => return Err(Error::Broken { path: path.to_owned() }),
            // The socket's time-out bounds one read only; a peer that sends a byte now and then would never reach it.
            _ if clock.boot().since(asked) > limit => return Err(failed(io::ErrorKind::TimedOut.into())),
            more => filled += more,
        }
        // Content-Length says when the answer is complete. To wait for the end of the connection would cost another read.
        match parse(&answer[..filled]) {
            Parsed::Whole(reply) if reply.status < 400 => return Ok(reply),
            Parsed::Whole(reply) => {
                let pid = getsockopt(&stream, sockopt::PeerCredentials).ok().map(|peer| peer.pid());
                let from = Answerer { path: path.to_owned(), pid: pid.filter(|pid| *pid > 0) };
                return Ok(Reply { from: Some(from), ..reply });
            }
            Parsed::Part if filled < answer.len() => {}
            Parsed::Part if filled < ANSWER_CAP => {
                let mut larger = Zeroizing::new(vec![0; 4 * filled]);
                larger[..filled].copy_from_slice(&answer);
                answer = larger;
            }
            Parsed::Part | Parsed::Strange => return Err(strange("no HTTP answer")),
        }
    }
}

enum Parsed {
    Whole(Reply),
    Part,
    Strange,
}

/// Reads an answer of our own daemon. An HTTP library would ask the processor for its instruction sets first, which costs a
/// helper in a virtual machine 2 % of its time.
fn parse(answer: &[u8]) -> Parsed {
    const VERSION: &[u8] = b"HTTP/1.1 ";
    if !answer.starts_with(&VERSION[..VERSION.len().min(answer.len())]) {
        return Parsed::Strange;
    }
    let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return Parsed::Part };
    let Ok(head) = std::str::from_utf8(&answer[VERSION.len()..end]) else { return Parsed::Strange };
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').next()?.parse().ok());
    let mut fields = lines.filter_map(|line| line.split_once(':'));
    let announced = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let announced = announced.and_then(|(_, length)| length.trim().parse::<usize>().ok());
    // Our daemon always sends Content-Length, except with 204.
    let (Some(status), Some(length)) = (status, announced.or_else(|| (status == Some(204)).then_some(0))) else {
        return Parsed::Strange;
    };
    match answer[end + 4..].get(..length) {
        Some(body) => Parsed::Whole(Reply { status, body: Zeroizing::new(body.to_vec()), from: None }),
        None => Parsed::Part,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Env;

    #[test]
    fn a_flag_beats_the_variable_and_both_are_final() {
        let vars = [("SAFECONDUCT_SOCKET", "/variable"), ("RUNNER_TEMP", "/runner")];
        let env = Env::from_vars(vars.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(
            places(Some(&PathBuf::from("/flag")), &env),
            [Place { path: "/flag".into(), named: true, of_step: false }]
        );
        assert_eq!(places(None, &env), [Place { path: "/variable".into(), named: true, of_step: false }]);
        let unnamed = places(None, &Env::from_vars([]));
        assert!(!unnamed.is_empty() && unnamed.iter().all(|place| !place.named));
    }

    #[test]
    fn half_an_answer_is_none() {
        let whole = |text: &[u8]| matches!(parse(text), Parsed::Whole(_));
        let part = |text: &[u8]| matches!(parse(text), Parsed::Part);
        assert!(whole(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcd"));
        assert!(part(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcd"));
        assert!(part(b"HTTP/1.1 200 OK\r\n"));
        assert!(matches!(parse(b"SSH-2.0-x\r\n"), Parsed::Strange));
        assert!(matches!(parse(b"HTTP/1.1 200 OK\r\n\r\n"), Parsed::Strange));
        assert!(matches!(parse(b"HTTP/1.1 two hundred\r\nContent-Length: 0\r\n\r\n"), Parsed::Strange));
        assert!(matches!(parse(b"HTTP/1.1 204 No Content\r\n\r\n"), Parsed::Whole(Reply { status: 204, .. })));
        let huge = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n";
        assert!(matches!(parse(huge), Parsed::Strange));
    }

    #[test]
    fn a_place_without_socket_is_absent_and_one_without_permission_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = |name: &str| Place { path: dir.path().join(name), named: true, of_step: false };
        let gone = ask(&[place("nothing.sock")], "GET /healthz", None, 0, Duration::from_secs(1));
        assert!(matches!(gone, Err(Error::Absent { .. })));
        let nowhere = Error::Absent { places: places(None, &Env::from_vars([])), passed: None, killed: None };
        assert!(nowhere.lets_work_here() && nowhere.to_string().starts_with("no daemon is running; looked at /"));
        let named = gone.err().expect("nobody is there");
        assert!(!named.lets_work_here(), "who names a socket means that daemon");
        assert!(named.to_string().contains("nothing.sock, which `--socket`"), "{named}");
        let stale = std::os::unix::net::UnixListener::bind(dir.path().join("stale.sock")).expect("bound");
        drop(stale);
        let refused = ask(&[place("stale.sock")], "GET /healthz", None, 0, Duration::from_secs(1));
        assert!(matches!(refused, Err(Error::Absent { .. })));
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_said_if_it_was_named_and_else_passed_over() {
        let path = PathBuf::from(format!("/{}/safeconduct.sock", "x".repeat(110)));
        let ask = |named| {
            let place = Place { path: path.clone(), named, of_step: false };
            ask(&[place], "GET /healthz", None, 0, Duration::from_secs(1)).map(|_| ()).expect_err("nobody is there")
        };
        assert!(matches!(ask(true), Error::TooLong { .. }));
        assert!(matches!(ask(false), Error::Absent { .. }));
    }

    #[test]
    fn a_silent_daemon_is_a_time_out_and_never_absent() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("silent.sock");
        let _silent = std::os::unix::net::UnixListener::bind(&path).expect("bound");
        let outcome =
            ask(&[Place { path, named: true, of_step: false }], "GET /healthz", None, 0, Duration::from_millis(50));
        assert!(matches!(outcome, Err(Error::TimedOut { .. })));
    }

    #[test]
    fn a_connection_that_would_have_to_wait_is_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("full.sock");
        let _full = std::os::unix::net::UnixListener::bind(&path).expect("bound");
        let places = [Place { path, named: true, of_step: false }];
        let mut accepted = Vec::new();
        let refused = loop {
            match connect(&places, 0) {
                Ok(stream) if accepted.len() < 100_000 => accepted.push(stream),
                Ok(_) => panic!("its backlog has no end"),
                Err(error) => break error,
            }
        };
        // Where the limit of open files is lower than the backlog, that is told instead.
        assert!(matches!(refused, Error::TimedOut { .. } | Error::Forbidden { .. }), "{refused}");
        assert!(!accepted.is_empty());
    }

    #[test]
    fn a_daemon_that_goes_away_before_its_answer_is_complete_is_no_other_program() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("killed.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).expect("bound");
        let said = [&b""[..], b"HTTP", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"];
        let serve = std::thread::spawn(move || {
            for (number, text) in said.into_iter().cycle().take(2 * said.len()).enumerate() {
                let (mut stream, _) = listener.accept().expect("a caller");
                // Unread bytes make the end a reset.
                if number >= said.len() {
                    let mut request = [0; 1_024];
                    let _ = stream.read(&mut request).expect("it asks");
                }
                stream.write_all(text).expect("written");
            }
        });
        for _ in 0..2 * said.len() {
            let place = Place { path: path.clone(), named: true, of_step: false };
            let outcome = ask(&[place], "GET /healthz", None, 0, Duration::from_secs(10));
            assert!(matches!(outcome, Err(Error::Broken { .. })), "{:?}", outcome.err());
        }
        serve.join().expect("it served");
    }

    #[test]
    fn a_foreign_daemon_in_a_directory_of_root_is_refused() {
        let own = nix::unistd::geteuid().as_raw();
        let bind = |path: &Path| std::os::unix::net::UnixListener::bind(path);
        let squatter = tempfile::Builder::new().make(bind).expect("bound");
        // Root's daemons are trusted, so the squatter must be seen from another user's side when we are root.
        if own != 0 {
            let place = Place { path: squatter.path().to_owned(), named: false, of_step: false };
            let outcome = ask(&[place], "GET /healthz", None, own + 1, Duration::from_millis(50));
            assert!(matches!(outcome, Err(Error::Foreign { .. })), "the directory for temporary files is root's");
        }
    }

    #[test]
    fn a_directory_of_another_user_is_a_place_where_nobody_of_ours_listens() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("squatted.sock");
        let _squatter = std::os::unix::net::UnixListener::bind(&path).expect("bound");
        let link = tempfile::tempdir().expect("a directory");
        std::os::unix::fs::symlink(dir.path(), link.path().join("linked")).expect("linked");
        let places = [path.clone(), link.path().join("linked/squatted.sock")].map(|path| Place {
            path,
            named: false,
            of_step: false,
        });
        let ask_as = |places: &[Place], uid| ask(places, "GET /healthz", None, uid, Duration::from_millis(50));
        // The directory is ours, so it is foreign to the next user. Root's would be trusted.
        let own = nix::unistd::geteuid().as_raw();
        if own == 0 {
            std::os::unix::fs::chown(dir.path(), Some(4711), None).expect("we are root");
            std::os::unix::fs::lchown(link.path().join("linked"), Some(4711), None).expect("we are root");
        }
        let other = if own == 0 { 4712 } else { own + 1 };
        for place in &places {
            assert!(matches!(ask_as(std::slice::from_ref(place), other), Err(Error::Absent { .. })), "{place:?}");
        }
        let named = Place { path, named: true, of_step: false };
        assert!(matches!(ask_as(&[named], other), Err(Error::TimedOut { .. })), "who names it trusts it");
    }
}
