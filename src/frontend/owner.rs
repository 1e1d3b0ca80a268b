//! The user that owns the other end of a loopback connection.
//!
//! On TCP a connection does not carry its user, but both ends are sockets of this machine, and the kernel says who owns a socket:
//! one question by netlink for the exact pair of addresses ([`diag`]), which takes microseconds. Where the system refuses
//! netlink (a seccomp filter, a kernel without `inet_diag`), the table in `/proc/net` is read instead ([`table`]), which takes
//! milliseconds; the log says so once at the start. Where neither can be had, only the secret opens the listener.
//!
//! The answer counts only for a connection that is established and whose socket a process still holds. The user is that of the
//! socket's maker and does not change with the process that holds it. A forwarder (an SSH tunnel, a container's port) connects as
//! itself: user 0 and the overflow user stand for too many others, so only a rule that names them lets them in
//! ([`Caller::by_owner`]).

use std::io;
use std::net::SocketAddr;
use std::sync::OnceLock;

use crate::blocking::{self, Kind};
use crate::caller::Caller;

#[cfg(target_os = "linux")]
mod diag;
#[cfg(not(target_os = "linux"))]
#[path = "owner/elsewhere.rs"]
mod diag;
mod table;

use diag::Diag;

/// Users without a number here, for example of another user namespace, have this one (user_namespaces(7)).
const OVERFLOW: &str = "/proc/sys/kernel/overflowuid";
const USUAL_OVERFLOW: u32 = 65_534;

/// The two ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    /// Ours.
    pub(super) local: SocketAddr,
    /// The one whose owner is looked for.
    pub(super) peer: SocketAddr,
}

/// Who owns the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// This user.
    User(u32),
    /// Nobody: it is not established, or no process holds it any more.
    Nobody,
    /// The system does not say, or it is not to be asked.
    Untold,
}

/// Asks the kernel who owns the other end of a connection.
pub(super) struct Owners {
    asks: Asks,
    overflow: u32,
}

enum Asks {
    Diag(Diag),
    /// Netlink is refused.
    Table,
    /// The operator has turned it off.
    Nobody,
}

impl Owners {
    /// `listening` is an address on which this process listens: whether the kernel answers is tried on it.
    pub(super) fn open(listening: SocketAddr) -> Self {
        let asks = match Diag::open().and_then(|diag| diag.try_out(listening).map(|()| diag)) {
            Ok(diag) => Asks::Diag(diag),
            Err(error) => {
                tracing::warn!(
                    %error,
                    "the kernel does not answer sock_diag: the owner of a loopback connection is read from /proc/net, which is slow"
                );
                Asks::Table
            }
        };
        let overflow = std::fs::read_to_string(OVERFLOW).ok().and_then(|text| text.trim().parse().ok());
        Self { asks, overflow: overflow.unwrap_or(USUAL_OVERFLOW) }
    }

    /// Owners do not count on this listener.
    pub(super) fn off() -> Self {
        Self { asks: Asks::Nobody, overflow: USUAL_OVERFLOW }
    }

    /// Is there anything to be asked?
    pub(super) fn are_told(&self) -> bool {
        !matches!(self.asks, Asks::Nobody)
    }

    /// Asks now, if that needs no waiting.
    pub(super) fn at_once(&self, ends: Ends) -> Option<Owner> {
        match &self.asks {
            Asks::Diag(diag) => diag.owner(ends).ok(),
            Asks::Table => None,
            Asks::Nobody => Some(Owner::Untold),
        }
    }

    /// Reads the table.
    pub(super) async fn of_table(ends: Ends) -> Owner {
        let read = blocking::run(Kind::Programs, move || table::owner(ends)).await;
        read.map_err(io::Error::from).and_then(|read| read).unwrap_or_else(|error| {
            debug!(%error, "the owner of a loopback connection cannot be told");
            Owner::Untold
        })
    }

    /// The caller that a user is.
    fn caller(&self, uid: u32) -> Caller {
        if uid == 0 || uid == self.overflow { Caller::by_owner(uid) } else { Caller::by_tcp(uid) }
    }
}

/// The caller at the other end of one connection. It is asked for anew for each request, and must stay the same.
#[derive(Default)]
pub(super) struct Peer(OnceLock<Caller>);

impl Peer {
    /// The caller, if its user can be told and is the one of the first request.
    pub(super) fn caller(&self, owner: Owner, owners: &Owners) -> Option<&Caller> {
        let uid = match owner {
            Owner::User(uid) => uid,
            Owner::Nobody | Owner::Untold => return None,
        };
        let first = self.0.get_or_init(|| owners.caller(uid));
        (first.uid == uid).then_some(first)
    }
}

/// An address of IPv4 in the form of IPv6 is that of IPv4.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn own() -> u32 {
        nix::unistd::geteuid().as_raw()
    }

    /// A listener, a connection to it, and the ends as the listener sees them.
    fn connected(address: &str) -> Option<(TcpListener, TcpStream, TcpStream, Ends)> {
        let listener = TcpListener::bind(address).ok()?;
        let client = TcpStream::connect(listener.local_addr().ok()?).ok()?;
        let (ours, peer) = listener.accept().ok()?;
        let local = ours.local_addr().ok()?;
        Some((listener, client, ours, Ends { local, peer }))
    }

    /// Machines without IPv6 have one of the two.
    const ADDRESSES: [&str; 2] = ["127.0.0.1:0", "[::1]:0"];

    #[tokio::test]
    async fn the_kernel_says_who_connected_and_its_table_says_the_same() {
        let mut tried = 0;
        for (listener, client, _ours, ends) in ADDRESSES.into_iter().filter_map(connected) {
            let owners = Owners::open(listener.local_addr().expect("bound"));
            if let Asks::Diag(_) = owners.asks {
                assert_eq!(owners.at_once(ends), Some(Owner::User(own())), "{ends:?}");
                let turned = Ends { local: ends.peer, peer: ends.local };
                assert_eq!(owners.at_once(turned), Some(Owner::User(own())), "our own end has an owner too");
            }
            assert_eq!(Owners::of_table(ends).await, Owner::User(own()), "{ends:?}");
            drop(client);
            tried += 1;
        }
        assert!(tried > 0);
    }

    #[tokio::test]
    async fn a_connection_that_is_over_or_never_was_has_no_owner() {
        for (listener, client, ours, ends) in ADDRESSES.into_iter().filter_map(connected) {
            let owners = Owners::open(listener.local_addr().expect("bound"));
            let is_told = matches!(owners.asks, Asks::Diag(_));
            let nobody = |ends| !is_told || owners.at_once(ends) == Some(Owner::Nobody);
            // A look-up of a pair that does not exist finds the listener, which is no connection.
            let never = Ends { local: SocketAddr::new(ends.local.ip(), 1), peer: ends.local };
            assert!(nobody(never) && Owners::of_table(never).await == Owner::Nobody, "{ends:?}");
            drop(client);
            assert!(nobody(ends) && Owners::of_table(ends).await == Owner::Nobody, "{ends:?}");
            drop((ours, listener));
            assert!(nobody(ends) && Owners::of_table(ends).await == Owner::Nobody, "{ends:?}");
        }
    }

    #[test]
    fn a_socket_of_ipv6_that_connects_to_an_ipv4_address_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let port = listener.local_addr().expect("bound").port();
        let Ok(client) = TcpStream::connect(format!("[::ffff:127.0.0.1]:{port}")) else { return };
        let (ours, peer) = listener.accept().expect("it connected");
        let ends = Ends { local: ours.local_addr().expect("bound"), peer };
        let owners = Owners::open(listener.local_addr().expect("bound"));
        if let Asks::Diag(_) = owners.asks {
            assert_eq!(owners.at_once(ends), Some(Owner::User(own())));
        }
        assert_eq!(table::owner(ends).expect("readable"), Owner::User(own()));
        drop(client);
    }

    #[test]
    fn a_caller_stays_the_one_of_the_first_request() {
        let (owners, peer) = (Owners::off(), Peer::default());
        assert_eq!(peer.caller(Owner::Nobody, &owners), None);
        assert_eq!(peer.caller(Owner::User(1), &owners).map(|caller| caller.uid), Some(1));
        assert_eq!(peer.caller(Owner::User(2), &owners), None, "its socket is another one now");
        assert_eq!(peer.caller(Owner::Untold, &owners), None);
        assert_eq!(owners.at_once(Ends { local: any(), peer: any() }), Some(Owner::Untold));
    }

    fn any() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 1))
    }
}
