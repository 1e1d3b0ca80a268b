//! The load generator: one thread, raw bytes, one JSON line with the figures.
//!
//! `kept` and `new` use a blocking socket and one request at a time. `throughput` and `burst` drive many sockets from one
//! epoll loop. `burst` connects without blocking, as event-loop clients do: a full backlog is a refusal, not a wait.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use mio::{Events, Interest, Poll, Token};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use safeconduct_bench_tools::Result;
use safeconduct_bench_tools::stats::{Latencies, round2};
use safeconduct_bench_tools::wire::{Answer, Protocol, head_length};

/// The time limit of a run.
const DEADLINE: Duration = Duration::from_secs(60);
/// Longer than any answer here; an answer that does not fit is an error, not a reallocation in the measured path.
const BUFFER: usize = 64 * 1024;

#[derive(Parser)]
struct Flags {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Subcommand)]
enum Mode {
    /// One request; prints the answer's body.
    Once {
        #[command(flatten)]
        target: Target,
        /// Print status line and headers too.
        #[arg(long)]
        raw: bool,
    },
    /// Sequential requests on one connection.
    Kept {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        amount: Amount,
    },
    /// Sequential requests, each on a connection of its own.
    New {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        amount: Amount,
    },
    /// Requests on several kept connections at once.
    Throughput {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        amount: Amount,
        #[arg(long, default_value_t = 16)]
        connections: usize,
    },
    /// Clients that all connect at the same moment, without blocking, and ask once.
    Burst {
        #[command(flatten)]
        target: Target,
        #[arg(long, default_value_t = 1000)]
        clients: usize,
    },
}

#[derive(Args)]
struct Target {
    /// The Unix socket to dial.
    #[arg(long, required_unless_present = "tcp")]
    socket: Option<PathBuf>,
    /// A loopback address to dial instead (`once` and `kept` only).
    #[arg(long, conflicts_with = "socket")]
    tcp: Option<String>,
    #[arg(long, value_enum, default_value = "http")]
    protocol: Protocol,
    /// Path and query, or oidc-agent's account.
    #[arg(long)]
    ask: String,
}

impl Target {
    fn request(&self) -> Vec<u8> {
        self.protocol.request(&self.ask)
    }

    fn unix(&self) -> Result<&Path> {
        self.socket
            .as_deref()
            .ok_or_else(|| "this mode needs --socket".into())
    }
}

#[derive(Args)]
struct Amount {
    #[arg(long, default_value_t = 5000)]
    count: usize,
    /// Requests before the first one that counts.
    #[arg(long, default_value_t = 200)]
    warmup: usize,
}

fn main() -> Result<()> {
    match Flags::parse().mode {
        Mode::Once { target, raw } => once(&target, raw),
        Mode::Kept { target, amount } => print(kept(&target, &amount)?),
        Mode::New { target, amount } => print(new(&target, &amount)?),
        Mode::Throughput {
            target,
            amount,
            connections,
        } => print(throughput(&target, &amount, connections)?),
        Mode::Burst { target, clients } => print(burst(&target, clients)?),
    }
}

fn print(figures: Value) -> Result<()> {
    println!("{figures}");
    Ok(())
}

fn once(target: &Target, raw: bool) -> Result<()> {
    let mut buffer = vec![0; BUFFER];
    let (length, ok) = match (&target.socket, &target.tcp) {
        (Some(path), _) => ask(
            &mut dial(path)?,
            &target.request(),
            target.protocol,
            &mut buffer,
        )?,
        (None, Some(address)) => ask(
            &mut dial_tcp(address)?,
            &target.request(),
            target.protocol,
            &mut buffer,
        )?,
        (None, None) => return Err("once needs --socket or --tcp".into()),
    };
    let answer = &buffer[..length];
    let skip = if raw {
        0
    } else {
        head_length(answer).unwrap_or(0)
    };
    io::stdout().write_all(&answer[skip..])?;
    if ok {
        Ok(())
    } else {
        Err("the answer is a refusal".into())
    }
}

fn kept(target: &Target, amount: &Amount) -> Result<Value> {
    let request = target.request();
    let mut buffer = vec![0; BUFFER];
    if let Some(address) = &target.tcp {
        let mut stream = dial_tcp(address)?;
        return sequential(amount, || {
            ask(&mut stream, &request, target.protocol, &mut buffer)
        });
    }
    let mut stream = dial(target.unix()?)?;
    sequential(amount, || {
        ask(&mut stream, &request, target.protocol, &mut buffer)
    })
}

fn new(target: &Target, amount: &Amount) -> Result<Value> {
    let request = target.request();
    let mut buffer = vec![0; BUFFER];
    let path = target.unix()?;
    sequential(amount, || {
        ask(&mut dial(path)?, &request, target.protocol, &mut buffer)
    })
}

/// Runs the warm-up and the counted requests; the first failure ends the run, since a figure with failures in it compares nothing.
fn sequential(
    amount: &Amount,
    mut request: impl FnMut() -> Result<(usize, bool)>,
) -> Result<Value> {
    let begun = Instant::now();
    let mut latencies = Latencies::with_capacity(amount.count);
    let mut counted_from = begun;
    for index in 0..amount.warmup + amount.count {
        if index == amount.warmup {
            counted_from = Instant::now();
        }
        let sent = Instant::now();
        let (_, ok) = request()?;
        if !ok {
            return Err("the answer is a refusal".into());
        }
        if index >= amount.warmup {
            latencies.push(sent.elapsed());
        }
        if begun.elapsed() > DEADLINE {
            return Err("the run did not end in time".into());
        }
    }
    Ok(figures(&latencies, counted_from.elapsed()))
}

fn figures(latencies: &Latencies, took: Duration) -> Value {
    let mut figures = latencies.summary();
    figures.insert("requests".into(), json!(latencies.len()));
    figures.insert(
        "rps".into(),
        json!(round2(latencies.len() as f64 / took.as_secs_f64())),
    );
    Value::Object(figures)
}

fn dial(path: &Path) -> Result<UnixStream> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    Ok(stream)
}

fn dial_tcp(address: &str) -> Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    Ok(stream)
}

/// One request and its whole answer: the number of bytes, and whether the answer is correct.
fn ask(
    stream: &mut (impl Read + Write),
    request: &[u8],
    protocol: Protocol,
    buffer: &mut [u8],
) -> Result<(usize, bool)> {
    stream.write_all(request)?;
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..])?;
        filled += read;
        match protocol.judge(&buffer[..filled], read == 0) {
            Answer::Complete { ok } => return Ok((filled, ok)),
            Answer::Incomplete if read == 0 => {
                return Err("the server closed before its answer was complete".into());
            }
            Answer::Incomplete => {}
        }
    }
}

fn throughput(target: &Target, amount: &Amount, connections: usize) -> Result<Value> {
    let request = target.request();
    let mut poll = Poll::new()?;
    let mut clients = Vec::with_capacity(connections);
    for index in 0..connections {
        let mut client = Client::connect(target.unix()?)?;
        poll.registry()
            .register(&mut client.stream, Token(index), Interest::READABLE)?;
        client.send(&request)?;
        clients.push(client);
    }
    let total = amount.warmup + amount.count;
    let (begun, mut counted_from, mut answered) = (Instant::now(), Instant::now(), 0);
    let mut latencies = Latencies::with_capacity(amount.count);
    let mut events = Events::with_capacity(connections);
    while answered < total {
        wait(&mut poll, &mut events, begun)?;
        for event in &events {
            let client = &mut clients[event.token().0];
            match client.receive(target.protocol)? {
                Answer::Incomplete => continue,
                Answer::Complete { ok: false } => return Err("the answer is a refusal".into()),
                Answer::Complete { ok: true } => {}
            }
            answered += 1;
            if answered == amount.warmup {
                counted_from = Instant::now();
            } else if answered > amount.warmup && answered <= total {
                latencies.push(client.sent.elapsed());
            }
            client.send(&request)?;
        }
    }
    Ok(figures(&latencies, counted_from.elapsed()))
}

fn burst(target: &Target, count: usize) -> Result<Value> {
    raise_descriptor_limit()?;
    let request = target.request();
    let path = target.unix()?;
    let mut poll = Poll::new()?;
    let mut clients = Vec::with_capacity(count);
    let (mut refused, mut rejected, mut errors) = (0, 0, 0);
    let begun = Instant::now();
    for _ in 0..count {
        match Client::connect(path) {
            Ok(client) => clients.push(Some(client)),
            // EAGAIN is how a Unix socket says that its backlog is full.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionRefused
                ) =>
            {
                refused += 1;
            }
            Err(error) => return Err(format!("cannot connect: {error}").into()),
        }
    }
    for (index, slot) in clients.iter_mut().enumerate() {
        let Some(client) = slot else { continue };
        poll.registry()
            .register(&mut client.stream, Token(index), Interest::READABLE)?;
        if client.send(&request).is_err() {
            errors += 1;
            *slot = None;
        }
    }
    let mut latencies = Latencies::with_capacity(count);
    let mut events = Events::with_capacity(count);
    let mut waiting = clients.iter().flatten().count();
    while waiting > 0 {
        if wait(&mut poll, &mut events, begun).is_err() {
            errors += waiting;
            break;
        }
        for event in &events {
            let slot = &mut clients[event.token().0];
            let Some(client) = slot else { continue };
            match client.receive(target.protocol) {
                Ok(Answer::Incomplete) => continue,
                Ok(Answer::Complete { ok: true }) => latencies.push(begun.elapsed()),
                Ok(Answer::Complete { ok: false }) => rejected += 1,
                Err(_) => errors += 1,
            }
            waiting -= 1;
            *slot = None;
        }
    }
    let mut figures = latencies.summary();
    for (name, value) in [
        ("ok", latencies.len()),
        ("refused", refused),
        ("rejected", rejected),
        ("errors", errors),
    ] {
        figures.insert(name.into(), json!(value));
    }
    figures.insert("not_served".into(), json!(count - latencies.len()));
    Ok(Value::Object(figures))
}

/// Waits for events until the run's deadline.
fn wait(poll: &mut Poll, events: &mut Events, begun: Instant) -> Result<()> {
    let left = DEADLINE
        .checked_sub(begun.elapsed())
        .ok_or("the run did not end in time")?;
    match poll.poll(events, Some(left)) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
        other => Ok(other?),
    }
}

/// Raises the limit of descriptors: the usual soft limit of 1024 is too close to a thousand sockets.
fn raise_descriptor_limit() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}

/// One non-blocking connection with at most one request in flight.
struct Client {
    stream: mio::net::UnixStream,
    sent: Instant,
    buffer: Vec<u8>,
    filled: usize,
}

impl Client {
    fn connect(path: &Path) -> io::Result<Self> {
        let stream = mio::net::UnixStream::connect(path)?;
        Ok(Self {
            stream,
            sent: Instant::now(),
            buffer: Vec::new(),
            filled: 0,
        })
    }

    /// A request is far smaller than an empty socket buffer, so a partial write is an error.
    fn send(&mut self, request: &[u8]) -> io::Result<()> {
        self.filled = 0;
        self.sent = Instant::now();
        self.stream.write_all(request)
    }

    /// Events are edge-triggered, so this reads until the answer is complete or the socket is empty.
    fn receive(&mut self, protocol: Protocol) -> Result<Answer> {
        loop {
            if self.buffer.len() - self.filled < 4096 {
                self.buffer.resize(self.buffer.len() + 8192, 0);
            }
            let read = match self.stream.read(&mut self.buffer[self.filled..]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Answer::Incomplete);
                }
                other => other?,
            };
            self.filled += read;
            match protocol.judge(&self.buffer[..self.filled], read == 0) {
                Answer::Incomplete if read == 0 => {
                    return Err("the server closed before its answer was complete".into());
                }
                Answer::Incomplete if self.filled > BUFFER => {
                    return Err("the answer is too long".into());
                }
                Answer::Incomplete => {}
                complete => return Ok(complete),
            }
        }
    }
}
