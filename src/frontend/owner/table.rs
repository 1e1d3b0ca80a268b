//! The owner of a TCP socket in the kernel's table of all of them: `/proc/self/net/tcp` and `tcp6` (proc_pid_net(5)).

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Ends, Owner, plain};

/// A socket of IPv6 can connect to an address of IPv4, so both are looked at.
const TABLES: [&str; 2] = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
/// Enough for 400,000 sockets.
const CAP: u64 = 64 * 1024 * 1024;
/// The longest line that is looked at, in bytes.
const LINE: usize = 1_024;

/// Who owns the other end of this connection. Fails if a table that is there cannot be read.
pub(super) fn owner(ends: Ends) -> io::Result<Owner> {
    for table in TABLES {
        let file = match File::open(table) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            file => file?,
        };
        let mut lines = BufReader::new(file.take(CAP));
        let mut line = Vec::with_capacity(LINE);
        loop {
            line.clear();
            if lines.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            if let Some(uid) = std::str::from_utf8(&line).ok().and_then(|line| owner_in(line, ends)) {
                return Ok(Owner::User(uid));
            }
        }
    }
    Ok(Owner::Nobody)
}

/// The owner, if the line is about the other end, which is open and held by a process.
fn owner_in(line: &str, ends: Ends) -> Option<u32> {
    let mut fields = line.split_ascii_whitespace();
    let (source, destination) = (address(fields.nth(1)?)?, address(fields.next()?)?);
    let is_established = fields.next()? == "01";
    // The queues, a timer, and repetitions come between.
    let (uid, inode) = (fields.nth(3)?.parse().ok()?, fields.nth(1)?);
    let is_it = (source, destination) == (plain(ends.peer), plain(ends.local));
    (is_it && is_established && inode != "0").then_some(uid)
}

/// `0100007F:1F90`. Each four bytes of the address are a number in the machine's byte order.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| Some(u32::from_str_radix(ip.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    let ip = match ip.len() {
        8 => IpAddr::from(Ipv4Addr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let mut octets = [0; 16];
            octets.chunks_exact_mut(4).zip(words).for_each(|(part, word)| part.copy_from_slice(&word));
            IpAddr::from(Ipv6Addr::from(octets))
        }
        _ => return None,
    };
    Some(plain(SocketAddr::new(ip, port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(peer: &str, local: &str) -> Ends {
        Ends { local: local.parse().expect("an address"), peer: peer.parse().expect("an address") }
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_line_is_about_one_open_connection() {
        let four = "  10: 0100007F:9C40 0100007F:1EC6 01 00000000:00000000 00:00000000 00000000  1000        0 71234 1 0 20 4 30 10 -1";
        let wanted = ends("127.0.0.1:40000", "127.0.0.1:7878");
        assert_eq!(owner_in(four, wanted), Some(1000));
        assert_eq!(owner_in(four, ends("127.0.0.1:7878", "127.0.0.1:40000")), None, "our own end");
        assert_eq!(owner_in(&four.replace(" 01 ", " 08 "), wanted), None, "it closes");
        assert_eq!(owner_in(&four.replace(" 71234 ", " 0 "), wanted), None, "no process holds it");
        let six = "   1: 00000000000000000000000001000000:9C40 00000000000000000000000001000000:1EC6 01 00000000:00000000 00:00000000 00000000  1001        0 71235 1 0";
        assert_eq!(owner_in(six, ends("[::1]:40000", "[::1]:7878")), Some(1001));
        let mapped = "   1: 0000000000000000FFFF00000100007F:9C40 0000000000000000FFFF00000100007F:1EC6 01 00000000:00000000 00:00000000 00000000  1002        0 71235 1 0";
        assert_eq!(owner_in(mapped, wanted), Some(1002));
        for line in ["", "  sl  local_address rem_address   st tx_queue", "0: x:y z:w 01", "0: 0100007F:9C40"] {
            assert_eq!(owner_in(line, wanted), None, "{line:?}");
        }
    }
}
