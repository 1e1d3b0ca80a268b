//! The API on loopback TCP, for clients that cannot connect to a Unix socket.
//!
//! Any process and any page in a browser can connect to loopback. So each request must present the secret that only the daemon's
//! user can read. Its caller is then that user, and nothing else is known of it. `/mcp/NAME` can also be reached without: many
//! MCP clients can only be given a URL. Its caller is then the user that owns the connecting socket ([`super::owner`]), whom a rule
//! must name.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::Path;
use std::sync::Arc;

use futures_util::future::try_join_all;
use hyper::Request;
use hyper::body::Incoming;
use safeconduct_listener::{self as listener, Begun, Limits, Places, Seat, Seats};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::course::Course;
use super::descriptors::Share;
use super::desk::{Desk, State};
use super::funnel::{Answers, Finished};
use super::gate::Pass;
use super::oauth::Clients;
use super::owner::{Ends, Owner, Owners, Peer};
use super::place;
use super::secret::LoopbackSecret;
use super::{relay_threads, route};
use crate::caller::Caller;

/// Anybody on this machine can connect, and shows the secret with the first request.
const PLACES: Places = Places { all: 2_048, user: 512, strangers: 64 };

/// Why there is no listener on TCP.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be bound.
    #[error("{address}: {error}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The system's error.
        error: io::Error,
    },
    /// The service manager passed a listener that other machines can reach.
    #[error("the inherited listener {0} is not loopback")]
    NotLoopback(SocketAddr),
    /// The service manager passed a listener that is not configured.
    #[error("the inherited listener {0} is not the one that `http` in [listen] names")]
    NotConfigured(SocketAddr),
    /// The service manager passed a socket on which nothing listens.
    #[error("the inherited socket {0} is not listening")]
    NotListening(SocketAddr),
    /// The address of a listener that was passed cannot be determined.
    #[error("the inherited listener: {0}")]
    Inherited(io::Error),
    /// The secret cannot be written.
    #[error("the secret of the loopback listener: {0}")]
    Secret(place::Error),
}

impl Error {
    /// The cure.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Bind { error, .. } if error.kind() == io::ErrorKind::AddrInUse => {
                "another program, perhaps another daemon, listens there: choose another port for `http` or `health` in [listen]".to_owned()
            }
            Self::Bind { .. } => "choose an address of this machine, and a port that we may take".to_owned(),
            Self::NotLoopback(_) => "write `ListenStream=127.0.0.1:PORT` in the socket unit".to_owned(),
            Self::NotConfigured(address) => {
                format!("set `http = \"{address}\"` in [listen], or take it out of the socket unit")
            }
            Self::NotListening(_) => place::PASS_A_LISTENER.to_owned(),
            Self::Inherited(_) => return None,
            Self::Secret(_) => "it lies beside the socket: choose a directory that we can write and others cannot, with `socket` in [listen]".to_owned(),
        })
    }
}

/// What is configured.
pub(crate) struct Wanted<'a> {
    /// The addresses.
    pub(crate) addresses: &'a [SocketAddr],
    /// Does whoever owns the connecting socket count?
    pub(crate) counts_owners: bool,
}

/// The bound listeners with their secret.
pub(crate) struct Http {
    listeners: Vec<StdListener>,
    secret: Arc<LoopbackSecret>,
    owners: Arc<Owners>,
}

/// Who asks on one connection.
struct Connection {
    pass: Pass,
    owners: Arc<Owners>,
    ends: Option<Ends>,
    peer: Peer,
    /// Whoever has the secret.
    proved: Caller,
    /// Whoever has not, and is not known otherwise.
    unproved: Caller,
}

impl Http {
    /// Takes the listeners that the service manager passed, binds the other configured addresses and writes the secret
    /// beside the socket. `None` if no address is configured.
    pub(crate) fn open(
        inherited: Vec<StdListener>,
        wanted: Wanted<'_>,
        socket: &Path,
        own_uid: u32,
    ) -> Result<Option<Self>, Error> {
        let Wanted { addresses: configured, counts_owners } = wanted;
        let mut listeners = Vec::new();
        for listener in inherited {
            listeners.push((configured_one(&listener, configured)?, listener));
        }
        let wanted = configured.iter().filter(|address| !listeners.iter().any(|(taken, _)| taken == *address));
        let bound = bind_each(wanted, !listeners.is_empty())?;
        listeners.extend(bound);
        if listeners.is_empty() {
            return Ok(None);
        }
        let directory = socket.parent().unwrap_or_else(|| Path::new("/"));
        place::check_directory(directory, own_uid).map_err(Error::Secret)?;
        let secret = Arc::new(LoopbackSecret::beside(socket).map_err(Error::Secret)?);
        let first = listeners.first().and_then(|(_, listener)| listener.local_addr().ok());
        let owners = match first.filter(|_| counts_owners) {
            Some(address) => Owners::open(address),
            None => Owners::off(),
        };
        let listeners = listeners.into_iter().map(|(_, listener)| listener).collect();
        Ok(Some(Self { listeners, secret, owners: Arc::new(owners) }))
    }

    /// The clients of the token endpoint on this listener, whose files lie beside the socket.
    pub(crate) fn oauth_clients(&self, socket: &Path, own_uid: u32) -> Result<Clients, Error> {
        let secret = Arc::clone(&self.secret);
        Clients::beside(socket, secret, self.owners.are_told(), own_uid).map_err(Error::Secret)
    }

    /// Where it listens.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Where the secret is.
    pub(crate) fn secret(&self) -> &Path {
        self.secret.path()
    }

    /// The descriptors that its connections can take.
    pub(crate) fn descriptors(&self) -> usize {
        self.listeners.len() * PLACES.descriptors(1)
    }

    /// Serves until the daemon stops. Requests that run are finished.
    pub(crate) async fn serve(&self, state: Arc<State>, course: &Course, share: Share) -> io::Result<()> {
        let places = share.places(PLACES, 1);
        let all = self.listeners.iter().map(|listener| self.serve_one(listener, &state, course, places));
        try_join_all(all).await.map(drop)
    }

    async fn serve_one(
        &self,
        bound: &StdListener,
        state: &Arc<State>,
        course: &Course,
        places: Places,
    ) -> io::Result<()> {
        let bound = into_tokio(bound)?;
        let accept = || accept(&bound);
        let seats = Seats::new(places);
        listener::accept_all(&course.stop, accept, |stream| {
            let (state, own_uid) = (Arc::clone(state), state.fixed().uid);
            let Some(seat) = seats.take(listener::Owner::Stranger) else { return };
            let connection = self.connection(&stream, own_uid);
            course.tasks.spawn(connection.served(state, course.clone(), seat, stream));
        })
        .await
    }
}

impl Http {
    fn connection(&self, stream: &tokio::net::TcpStream, own_uid: u32) -> Connection {
        let ends = stream.local_addr().and_then(|local| Ok(Ends { local, peer: stream.peer_addr()? }));
        Connection {
            pass: Pass::Secret(Arc::clone(&self.secret)),
            owners: Arc::clone(&self.owners),
            ends: ends.ok(),
            peer: Peer::default(),
            proved: Caller::by_tcp(own_uid),
            unproved: Caller::unproved(),
        }
    }
}

impl Connection {
    /// Serves the connection, here or on a thread of the data path.
    async fn served(self, state: Arc<State>, course: Course, seat: Seat, mut stream: tokio::net::TcpStream) {
        let begun = listener::beginning(Limits::API, &course.stop, &mut stream, &seat, relay_threads::is_decided);
        let Some(first) = begun.await else { return };
        let stop = course.stop.clone();
        let Some((runtime, place)) = course.relay.for_connection(&first) else {
            return self.serve(state, stop, seat, Begun::new(first, Box::new(stream))).await;
        };
        let Ok(stream) = stream.into_std() else { return };
        let served = async move {
            let _place = place;
            if let Ok(stream) = tokio::net::TcpStream::from_std(stream) {
                // What can be written without waiting is known only after this runtime has looked. hyper drops the answer to an
                // `Upgrade` that it cannot write at once.
                drop(stream.writable().await);
                self.serve(state, stop, seat, Begun::new(first, Box::new(stream))).await;
            }
        };
        course.tasks.spawn_on(served, &runtime);
    }

    /// Answers its requests.
    async fn serve(self, state: Arc<State>, stop: CancellationToken, seat: Seat, stream: Begun<'_>) {
        let answer = |request: Request<Incoming>| self.answer(state.desk(), &seat, request);
        listener::connection(Limits::API, stop, stream, &seat, &Answers(answer)).await;
    }

    fn answer<'a>(&'a self, desk: Desk<'a>, seat: &'a Seat, request: Request<Incoming>) -> Finished<'a> {
        // Without the secret nobody knows who asks, so no record may name the daemon's own user for it.
        if self.pass.is_shown(request.headers()) {
            seat.belongs_to(self.proved.uid);
            return route::answer(&self.pass, desk, &self.proved, request);
        }
        let asks = route::asks_for_owner(request.uri(), request.headers());
        let Some(ends) = self.ends.filter(|_| asks) else {
            return route::answer(&self.pass, desk, &self.unproved, request);
        };
        match self.owners.at_once(ends) {
            Some(owner) => self.answer_owner(owner, desk, seat, request),
            None => Finished::after(async move {
                let owner = Owners::of_table(ends).await;
                self.answer_owner(owner, desk, seat, request).awaited().await
            }),
        }
    }

    /// Answers whoever owns the connecting socket.
    fn answer_owner<'a>(
        &'a self,
        owner: Owner,
        desk: Desk<'a>,
        seat: &'a Seat,
        request: Request<Incoming>,
    ) -> Finished<'a> {
        let caller = self.peer.caller(owner, &self.owners).unwrap_or(&self.unproved);
        // Whom no rule names stays a stranger.
        if caller.is_known() && desk.broker.foreign(caller, desk.fixed.uid).is_none() {
            seat.belongs_to(caller.uid);
        }
        route::answer(&self.pass, desk, caller, request)
    }
}

/// Binds these addresses: one, or the two of `localhost`. A machine may lack the one or the other (it has no IPv6, or nothing
/// else), so an address that is missing fails only if there is no other listener.
pub(super) fn bind_each<'a>(
    wanted: impl Iterator<Item = &'a SocketAddr>,
    mut has_another: bool,
) -> Result<Vec<(SocketAddr, StdListener)>, Error> {
    let (mut listeners, mut missing) = (Vec::new(), None);
    for address in wanted {
        let address = match listeners.first() {
            // The second address of `localhost` with port 0 gets the port of the first.
            Some((first, _)) if address.port() == 0 => SocketAddr::new(address.ip(), SocketAddr::port(first)),
            _ => *address,
        };
        match bind(address) {
            Err(Error::Bind { address, error }) if is_missing(&error) => missing = Some(Error::Bind { address, error }),
            bound => {
                listeners.push(bound?);
                has_another = true;
            }
        }
    }
    match missing {
        Some(error) if !has_another => Err(error),
        _ => Ok(listeners),
    }
}

/// Binds an address.
pub(super) fn bind(address: SocketAddr) -> Result<(SocketAddr, StdListener), Error> {
    let bound = StdListener::bind(address).and_then(|listener| Ok((listener.local_addr()?, listener)));
    bound.map_err(|error| Error::Bind { address, error })
}

/// A copy of the listener for the runtime. The original stays open and keeps the address.
pub(super) fn into_tokio(listener: &StdListener) -> io::Result<TcpListener> {
    let listener = listener.try_clone()?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// The next connection, without Nagle's algorithm: answers are small and written at once.
pub(super) async fn accept(listener: &TcpListener) -> io::Result<tokio::net::TcpStream> {
    let (stream, _) = listener.accept().await?;
    drop(stream.set_nodelay(true));
    Ok(stream)
}

/// An inherited listener must be loopback and configured.
fn configured_one(listener: &StdListener, configured: &[SocketAddr]) -> Result<SocketAddr, Error> {
    let address = listener.local_addr().map_err(Error::Inherited)?;
    if !address.ip().is_loopback() {
        return Err(Error::NotLoopback(address));
    }
    if !place::is_listening(listener).map_err(Error::Inherited)? {
        return Err(Error::NotListening(address));
    }
    if configured.contains(&address) { Ok(address) } else { Err(Error::NotConfigured(address)) }
}

/// Does the machine lack this loopback address, because it has no IPv6 (or IPv4)?
fn is_missing(error: &io::Error) -> bool {
    use nix::errno::Errno;
    let missing = [Errno::EADDRNOTAVAIL, Errno::EAFNOSUPPORT].map(|errno| errno as i32);
    error.raw_os_error().is_some_and(|code| missing.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(address: &str) -> (SocketAddr, StdListener) {
        bind(address.parse().expect("an address")).expect("free")
    }

    #[test]
    fn an_inherited_listener_must_be_loopback_and_configured() {
        let (wide, all) = listener("0.0.0.0:0");
        assert!(matches!(configured_one(&all, &[wide]), Err(Error::NotLoopback(_))));
        let (address, one) = listener("127.0.0.1:0");
        assert!(matches!(configured_one(&one, &[]), Err(Error::NotConfigured(_))));
        assert_eq!(configured_one(&one, &[address]).expect("it is"), address);
    }

    #[tokio::test]
    async fn an_inherited_socket_that_does_not_listen_is_refused() {
        let silent = tokio::net::TcpSocket::new_v4().expect("a socket");
        silent.bind("127.0.0.1:0".parse().expect("an address")).expect("free");
        let address = silent.local_addr().expect("bound");
        let silent = StdListener::from(std::os::fd::AsFd::as_fd(&silent).try_clone_to_owned().expect("cloned"));
        assert!(matches!(configured_one(&silent, &[address]), Err(Error::NotListening(_))));
    }

    #[test]
    fn an_address_that_the_machine_lacks_fails_only_without_another() {
        // No machine has the first (RFC 5737), which stands for 127.0.0.1 on a machine with IPv6 alone.
        let [missing, there] =
            ["192.0.2.1:0", "127.0.0.1:0"].map(|text| text.parse::<SocketAddr>().expect("an address"));
        for wanted in [[missing, there], [there, missing]] {
            let bound = bind_each(wanted.iter(), false).expect("one is there");
            assert_eq!(bound.iter().map(|(address, _)| address.ip()).collect::<Vec<_>>(), [there.ip()]);
        }
        assert!(matches!(bind_each([missing].iter(), false), Err(Error::Bind { .. })));
        assert!(bind_each([missing].iter(), true).expect("a service manager passed the other").is_empty());
        let (taken, _held) = listener("127.0.0.1:0");
        assert!(matches!(bind_each([there, taken].iter(), false), Err(Error::Bind { .. })), "it is there and taken");
    }

    #[test]
    fn a_taken_port_is_said_with_its_cure() {
        let (address, _held) = listener("127.0.0.1:0");
        let error = bind(address).expect_err("taken");
        assert!(error.hint().expect("a cure").contains("another port"), "{error}");
    }
}
