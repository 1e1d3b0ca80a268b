//! One question to the kernel about one TCP socket: sock_diag(7), in the exact form, which looks the socket up by its two
//! addresses and reads no table.
//!
//! The message is a `nlmsghdr` and an `inet_diag_req_v2`; the answer is a `nlmsghdr` and an `inet_diag_msg`, or an error.
//! Numbers are in the machine's byte order, ports and addresses in that of the network.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::libc::{AF_INET, AF_INET6};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recvfrom, sendto, socket,
};

use super::{Ends, Owner, plain};

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
/// `NLMSG_ERROR`.
const ERROR: u16 = 2;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// `TCP_ESTABLISHED`.
const ESTABLISHED: u8 = 1;
const TCP: u8 = 6;
const HEADER: usize = 16;
/// A header, 8 bytes, and the identity of a socket.
const QUESTION: usize = HEADER + 8 + 48;
/// A header, 4 bytes, the identity of a socket, and five numbers.
const ANSWER: usize = HEADER + 4 + 48 + 20;
/// Answers to earlier questions that nobody waited for are passed over.
const STALE: usize = 8;

/// A netlink socket. Its questions are answered before sendto(2) returns.
pub(super) struct Diag(Mutex<Asked>);

struct Asked {
    socket: OwnedFd,
    number: u32,
}

impl Diag {
    pub(super) fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Netlink, SockType::Datagram, flags, SockProtocol::NetlinkSockDiag)?;
        Ok(Self(Mutex::new(Asked { socket, number: 0 })))
    }

    /// Fails if the kernel does not find a socket that is there: our own, which listens. Without its module `inet_diag` it says
    /// of every socket that there is none.
    pub(super) fn try_out(&self, listening: SocketAddr) -> io::Result<()> {
        let nowhere = match listening {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        self.ask(Ends { local: nowhere, peer: listening })?;
        Ok(())
    }

    /// Who owns the other end.
    pub(super) fn owner(&self, ends: Ends) -> io::Result<Owner> {
        match self.ask(ends) {
            Ok(found) if found.is_of(ends) => Ok(Owner::User(found.uid)),
            Ok(_) => Ok(Owner::Nobody),
            Err(Errno::ENOENT) => Ok(Owner::Nobody),
            Err(error) => Err(error.into()),
        }
    }

    fn ask(&self, ends: Ends) -> Result<Found, Errno> {
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        asked.number = asked.number.wrapping_add(1);
        let Asked { socket, number } = &*asked;
        let kernel = NetlinkAddr::new(0, 0);
        sendto(socket.as_raw_fd(), &question(*number, ends), &kernel, MsgFlags::empty())?;
        let mut answer = [0; 512];
        for _ in 0..STALE {
            let (length, from) = recvfrom::<NetlinkAddr>(socket.as_raw_fd(), &mut answer)?;
            let is_kernels = from.is_some_and(|from| from.pid() == 0);
            match read(answer.get(..length).unwrap_or_default(), *number) {
                Some(found) if is_kernels => return found,
                _ => {}
            }
        }
        Err(Errno::EPROTO)
    }
}

/// The question for the socket at the other end.
fn question(number: u32, ends: Ends) -> [u8; QUESTION] {
    let (peer, local) = (plain(ends.peer), plain(ends.local));
    let family = if peer.is_ipv4() { AF_INET } else { AF_INET6 };
    let length = u32::try_from(QUESTION).unwrap_or_default();
    let mut bytes = [0; QUESTION];
    let mut at = 0;
    let mut put = |part: &[u8]| {
        bytes[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    };
    put(&length.to_ne_bytes());
    put(&BY_FAMILY.to_ne_bytes());
    put(&REQUEST.to_ne_bytes());
    put(&number.to_ne_bytes());
    put(&0_u32.to_ne_bytes());
    put(&[u8::try_from(family).unwrap_or_default(), TCP, 0, 0]);
    // All states: the answer says which it is.
    put(&u32::MAX.to_ne_bytes());
    put(&peer.port().to_be_bytes());
    put(&local.port().to_be_bytes());
    put(&address(peer.ip()));
    put(&address(local.ip()));
    // Any interface, and no cookie of an earlier answer.
    put(&0_u32.to_ne_bytes());
    put(&u64::MAX.to_ne_bytes());
    bytes
}

fn address(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&ip.octets());
            bytes
        }
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// A socket that the kernel has found.
#[derive(Debug)]
struct Found {
    state: u8,
    source: SocketAddr,
    destination: SocketAddr,
    uid: u32,
    inode: u32,
}

impl Found {
    /// Is it the other end of this connection, which is open and held by a process?
    fn is_of(&self, ends: Ends) -> bool {
        let ends = (plain(ends.peer), plain(ends.local));
        self.state == ESTABLISHED && self.inode != 0 && (plain(self.source), plain(self.destination)) == ends
    }
}

/// Reads the answer to the question of this number; `None` if it is none.
fn read(answer: &[u8], number: u32) -> Option<Result<Found, Errno>> {
    if u32_at(answer, 8)? != number {
        return None;
    }
    match u16_at(answer, 4)? {
        ERROR => {
            let code = i32::from_ne_bytes(answer.get(HEADER..HEADER + 4)?.try_into().ok()?);
            Some(Err(Errno::from_raw(code.wrapping_neg())))
        }
        BY_FAMILY if answer.len() >= ANSWER => Some(found(&answer[HEADER..]).ok_or(Errno::EPROTO)),
        _ => Some(Err(Errno::EPROTO)),
    }
}

/// `inet_diag_msg`: family, state, two more bytes, the identity of the socket, then expiry, two queues, user and inode.
fn found(message: &[u8]) -> Option<Found> {
    let (family, state) = (i32::from(*message.first()?), *message.get(1)?);
    let port = |at: usize| Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?));
    let ip = |at: usize| match family {
        AF_INET => Some(IpAddr::from(<[u8; 4]>::try_from(message.get(at..at + 4)?).ok()?)),
        AF_INET6 => Some(IpAddr::from(<[u8; 16]>::try_from(message.get(at..at + 16)?).ok()?)),
        _ => None,
    };
    Some(Found {
        state,
        source: SocketAddr::new(ip(8)?, port(4)?),
        destination: SocketAddr::new(ip(24)?, port(6)?),
        uid: u32_at(message, 64)?,
        inode: u32_at(message, 68)?,
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_cut_or_to_another_question_is_none() {
        let mut whole = vec![0; ANSWER];
        whole[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
        whole[8..12].copy_from_slice(&7_u32.to_ne_bytes());
        whole[HEADER] = 2;
        whole[HEADER + 1] = ESTABLISHED;
        assert!(matches!(read(&whole, 7), Some(Ok(found)) if found.uid == 0 && found.inode == 0));
        assert!(read(&whole, 8).is_none());
        for length in 12..ANSWER {
            assert!(matches!(read(&whole[..length], 7), Some(Err(Errno::EPROTO))), "{length}");
        }
        for length in 0..12 {
            assert!(read(&whole[..length], 7).is_none(), "{length}");
        }
        whole[HEADER] = 99;
        assert!(matches!(read(&whole, 7), Some(Err(Errno::EPROTO))), "an unknown family");
    }

    #[test]
    fn a_socket_that_is_closing_or_held_by_nobody_is_no_peer() {
        let [peer, local] = ["127.0.0.1:5", "127.0.0.1:6"].map(|text| text.parse::<SocketAddr>().expect("an address"));
        let of = |state, inode, source| {
            Found { state, source, destination: local, uid: 1, inode }.is_of(Ends { local, peer })
        };
        assert!(of(ESTABLISHED, 9, peer));
        assert!(!of(ESTABLISHED, 0, peer), "no process holds it");
        assert!(!of(10, 9, peer) && !of(8, 9, peer) && !of(4, 9, peer), "it listens or closes");
        assert!(!of(ESTABLISHED, 9, local), "another pair");
        assert!(of(ESTABLISHED, 9, "[::ffff:127.0.0.1]:5".parse().expect("an address")), "the same address");
    }
}
