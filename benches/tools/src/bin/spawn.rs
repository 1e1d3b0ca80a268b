//! Times processes: `run` a command many times to its end, or `start` a daemon many times until it answers.
//!
//! CPU is what the kernel charged to the children between two readings; only one child exists at a time, so the
//! difference is that child's own user and system time.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::time::TimeValLike;
use nix::unistd::Pid;
use serde_json::json;
use safeconduct_bench_tools::Result;
use safeconduct_bench_tools::stats::median;
use safeconduct_bench_tools::wire::{Answer, Protocol};

/// The time limit for a daemon's first answer, and for its end.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two tries to connect: short against a millisecond, long enough to leave the core to the daemon.
const PAUSE: Duration = Duration::from_micros(50);

#[derive(Parser)]
struct Flags {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Subcommand)]
enum Mode {
    /// Runs a command to its end; it must exit 0 and print something the first time.
    Run {
        #[command(flatten)]
        what: What,
    },
    /// Starts a daemon and waits for its first answer, then ends it.
    Start {
        #[arg(long)]
        socket: PathBuf,
        #[arg(long, value_enum, default_value = "http")]
        protocol: Protocol,
        /// Path, or oidc-agent's account. For oidc-agent any answer counts, since no account is loaded at start.
        #[arg(long, default_value = "/healthz")]
        ask: String,
        #[command(flatten)]
        what: What,
    },
}

#[derive(Args)]
struct What {
    #[arg(long, default_value_t = 50)]
    count: usize,
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

impl What {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.command[0]);
        command
            .args(&self.command[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }
}

fn main() -> Result<()> {
    match Flags::parse().mode {
        Mode::Run { what } => run(&what),
        Mode::Start {
            socket,
            protocol,
            ask,
            what,
        } => start(&socket, &protocol.request(&ask), protocol, &what),
    }
}

fn run(what: &What) -> Result<()> {
    let first = what.command().stdout(Stdio::piped()).output()?;
    if !first.status.success() || first.stdout.is_empty() {
        return Err(format!("{} does not work: {}", what.command[0], first.status).into());
    }
    let (mut wall, mut cpu) = (Vec::new(), Vec::new());
    for _ in 0..what.count {
        let charged = children_cpu_us()?;
        let begun = Instant::now();
        // The errors stay visible. A failed run is not a sample.
        let status = what.command().status()?;
        wall.push(begun.elapsed().as_secs_f64() * 1e3);
        cpu.push((children_cpu_us()? - charged) as f64 / 1e3);
        if !status.success() {
            return Err(format!("{} failed: {status}", what.command[0]).into());
        }
    }
    println!(
        "{}",
        json!({ "wall_ms": figure(&wall), "cpu_ms": figure(&cpu), "runs": wall.len() })
    );
    Ok(())
}

/// User and system time of all children waited for so far, in microseconds.
fn children_cpu_us() -> Result<i64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    Ok(usage.user_time().num_microseconds() + usage.system_time().num_microseconds())
}

/// Three decimals, because helpers take about a millisecond.
fn figure(samples: &[f64]) -> Option<f64> {
    median(samples).map(|value| (value * 1e3).round() / 1e3)
}

fn start(socket: &Path, request: &[u8], protocol: Protocol, what: &What) -> Result<()> {
    let mut ready = Vec::new();
    for _ in 0..what.count {
        if socket.exists() {
            std::fs::remove_file(socket)?;
        }
        let begun = Instant::now();
        let mut child = what.command().spawn()?;
        let answered = wait_for_answer(&mut child, socket, request, protocol, begun);
        let took = begun.elapsed();
        end(&mut child)?;
        answered?;
        ready.push(took.as_secs_f64() * 1e3);
    }
    println!(
        "{}",
        json!({ "ready_ms": figure(&ready), "starts": ready.len() })
    );
    Ok(())
}

fn wait_for_answer(
    child: &mut Child,
    socket: &Path,
    request: &[u8],
    protocol: Protocol,
    begun: Instant,
) -> Result<()> {
    while begun.elapsed() < PATIENCE {
        if answers(socket, request, protocol) {
            return Ok(());
        }
        if let Some(status) = child.try_wait()? {
            return Err(format!("the daemon ended before it answered: {status}").into());
        }
        sleep(PAUSE);
    }
    Err("the daemon did not answer in time".into())
}

fn answers(socket: &Path, request: &[u8], protocol: Protocol) -> bool {
    let Ok(mut stream) = UnixStream::connect(socket) else {
        return false;
    };
    let mut received = [0; 16 * 1024];
    let asked = stream
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| stream.write_all(request));
    let Ok(read) = asked.and_then(|()| stream.read(&mut received)) else {
        return false;
    };
    match protocol {
        Protocol::Http | Protocol::Mcp => {
            protocol.judge(&received[..read], false) == Answer::Complete { ok: true }
        }
        Protocol::OidcAgent => read > 0,
    }
}

/// Asks the child to end, and kills it after a while.
fn end(child: &mut Child) -> Result<()> {
    if child.try_wait()?.is_some() {
        return Ok(());
    }
    kill(Pid::from_raw(child.id().try_into()?), Signal::SIGTERM)?;
    let asked = Instant::now();
    while child.try_wait()?.is_none() {
        if asked.elapsed() > PATIENCE {
            child.kill()?;
            child.wait()?;
        }
        sleep(Duration::from_millis(1));
    }
    Ok(())
}
