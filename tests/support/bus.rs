//! `FakeBus`: a D-Bus session bus without a working secret service: the service does not exist or never answers, or the bus itself
//! never answers.
//!
//! Implements the part of the D-Bus specification that a client needs: the handshake (section "Authentication Protocol"), one answer
//! to each call of the bus's own methods, and errors.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{JoinHandle, JoinSet};

/// The maximum size of a client's message.
const CAP: usize = 64 * 1024;

const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manners {
    /// The bus accepts connections and says nothing at all.
    Mute,
    /// The bus works; there is no secret service.
    Empty,
    /// The bus works; the secret service never answers.
    Silent,
}

pub struct FakeBus {
    directory: TempDir,
    connections: Arc<AtomicUsize>,
    unanswered: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl FakeBus {
    pub fn start(manners: Manners) -> Self {
        let directory = tempfile::Builder::new().prefix("scb").tempdir_in("/tmp").expect("/tmp is writable");
        let socket = UnixListener::bind(directory.path().join("bus")).expect("the directory is new");
        let (connections, unanswered) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let task = tokio::spawn(accept(socket, manners, Arc::clone(&connections), Arc::clone(&unanswered)));
        Self { directory, connections, unanswered, task }
    }

    /// The value of `DBUS_SESSION_BUS_ADDRESS`.
    pub fn address(&self) -> String {
        format!("unix:path={}", self.socket().display())
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("bus")
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Waits until a client waits for an answer that never comes; fails after ten seconds.
    pub async fn is_waited_for(&self) {
        for _ in 0..1_000 {
            if self.unanswered.load(Ordering::SeqCst) > 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("nobody asked the secret service");
    }
}

impl Drop for FakeBus {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(socket: UnixListener, manners: Manners, connections: Arc<AtomicUsize>, unanswered: Arc<AtomicUsize>) {
    let mut clients = JoinSet::new();
    while let Ok((stream, _)) = socket.accept().await {
        while clients.try_join_next().is_some() {}
        connections.fetch_add(1, Ordering::SeqCst);
        let unanswered = Arc::clone(&unanswered);
        // Errors at the end of a connection do not matter.
        clients.spawn(async move { drop(serve(BufReader::new(stream), manners, &unanswered).await) });
    }
}

async fn serve(mut stream: BufReader<UnixStream>, manners: Manners, unanswered: &AtomicUsize) -> io::Result<()> {
    if manners == Manners::Mute {
        unanswered.fetch_add(1, Ordering::SeqCst);
        std::future::pending::<()>().await;
    }
    admit(&mut stream).await?;
    let mut serial = 0;
    loop {
        let call = Call::read(&mut stream).await?;
        let answer = match (call.destination.as_str(), call.member.as_str(), manners) {
            ("org.freedesktop.DBus", "Hello", _) => Answer::Text(":1.1"),
            ("org.freedesktop.DBus", "GetNameOwner", Manners::Silent) => Answer::Text(":1.2"),
            ("org.freedesktop.DBus", "GetNameOwner", _) => Answer::Error("org.freedesktop.DBus.Error.NameHasNoOwner"),
            ("org.freedesktop.DBus", ..) => Answer::Nothing,
            (_, _, Manners::Silent) => {
                unanswered.fetch_add(1, Ordering::SeqCst);
                continue;
            }
            _ => Answer::Error("org.freedesktop.DBus.Error.ServiceUnknown"),
        };
        serial += 1;
        stream.write_all(&answer.to_message(serial, call.serial)).await?;
    }
}

/// Every client is accepted, because only our user can enter the directory.
async fn admit(stream: &mut BufReader<UnixStream>) -> io::Result<()> {
    loop {
        let mut line = Vec::new();
        if (&mut *stream).take(CAP as u64).read_until(b'\n', &mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // The first byte of a connection is zero.
        let line = String::from_utf8_lossy(&line).trim_matches(['\0', '\r', '\n']).to_owned();
        let answer: &[u8] = match line.split(' ').next() {
            Some("AUTH") => b"OK 0123456789abcdef0123456789abcdef\r\n",
            Some("NEGOTIATE_UNIX_FD") => b"AGREE_UNIX_FD\r\n",
            Some("BEGIN") => return Ok(()),
            _ => b"ERROR\r\n",
        };
        stream.write_all(answer).await?;
    }
}

/// A method call, in little-endian as our clients send it.
struct Call {
    serial: u32,
    destination: String,
    member: String,
}

impl Call {
    async fn read(stream: &mut BufReader<UnixStream>) -> io::Result<Self> {
        let mut fixed = [0; 16];
        stream.read_exact(&mut fixed).await?;
        let number = |at: usize| u32::from_le_bytes(fixed[at..at + 4].try_into().expect("four bytes"));
        let (body, serial, fields) = (number(4) as usize, number(8), number(12) as usize);
        if fixed[0] != b'l' || fields > CAP || body > CAP {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut rest = vec![0; fields.next_multiple_of(8) + body];
        stream.read_exact(&mut rest).await?;
        let text = |code: u8| field(&rest[..fields], code).unwrap_or_default();
        Ok(Self { serial, destination: text(6), member: text(3) })
    }
}

/// The text of one header field. Each begins at a multiple of eight: its code, its signature, its value.
fn field(fields: &[u8], wanted: u8) -> Option<String> {
    let mut at = 0;
    while at < fields.len() {
        let (code, kind) = (*fields.get(at)?, *fields.get(at + 2)?);
        let number = |at: usize| Some(u32::from_le_bytes(fields.get(at..at + 4)?.try_into().ok()?) as usize);
        let (from, length, end) = match kind {
            b's' | b'o' => (at + 8, number(at + 4)?, at + 8 + number(at + 4)? + 1),
            b'g' => (at + 5, usize::from(*fields.get(at + 4)?), at + 5 + usize::from(*fields.get(at + 4)?) + 1),
            _ => (at + 4, 0, at + 8),
        };
        if code == wanted {
            return Some(String::from_utf8_lossy(fields.get(from..from + length)?).into_owned());
        }
        at = end.next_multiple_of(8);
    }
    None
}

enum Answer {
    Nothing,
    Text(&'static str),
    Error(&'static str),
}

impl Answer {
    fn to_message(&self, serial: u32, to: u32) -> Vec<u8> {
        let mut fields = Vec::new();
        put(&mut fields, 5, b'u', &to.to_le_bytes());
        put(&mut fields, 6, b's', &text(":1.1"));
        put(&mut fields, 7, b's', &text("org.freedesktop.DBus"));
        let (kind, body) = match self {
            Self::Nothing => (METHOD_RETURN, Vec::new()),
            Self::Text(said) => {
                put(&mut fields, 8, b'g', b"\x01s\0");
                (METHOD_RETURN, text(said))
            }
            Self::Error(name) => {
                put(&mut fields, 4, b's', &text(name));
                (ERROR, Vec::new())
            }
        };
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("a short message").to_le_bytes();
        let mut message = vec![b'l', kind, 1, 1];
        message.extend([length(&body), serial.to_le_bytes(), length(&fields)].concat());
        message.extend(fields);
        message.resize(message.len().next_multiple_of(8), 0);
        message.extend(body);
        message
    }
}

fn put(fields: &mut Vec<u8>, code: u8, kind: u8, value: &[u8]) {
    fields.resize(fields.len().next_multiple_of(8), 0);
    fields.extend([code, 1, kind, 0]);
    fields.extend(value);
}

fn text(text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len()).expect("a short text").to_le_bytes();
    [&length[..], text.as_bytes(), b"\0"].concat()
}
