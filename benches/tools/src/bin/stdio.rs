//! The bridges' rows: an MCP server, and a client of commands that speak MCP on stdin and stdout.
//!
//! `stdio serve` prints `{"address"}` and answers MCP over HTTP there, with one JSON document for each request.
//! The others start a command. `start` times it from just before its start to its first line, which answers `initialize`.
//! `calls` times calls of a tool, one at a time, with the message of `load --protocol mcp`. `hold` starts several commands, makes some
//! calls with each, and prints the memory of all of them, with the processes that they started.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use safeconduct_bench_tools::Result;
use safeconduct_bench_tools::stats::{Latencies, median};
use safeconduct_bench_tools::wire::CALL;
use serde_json::{Value, json};

/// The time limit of a run. The commands end with it, because their stdin does.
const DEADLINE: Duration = Duration::from_secs(120);
/// For the end of a command whose stdin is closed.
const PATIENCE: Duration = Duration::from_secs(5);
/// After the last call, before memory is read.
const SETTLED: Duration = Duration::from_secs(1);

#[derive(Parser)]
struct Flags {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Subcommand)]
enum Mode {
    Serve,
    Start {
        #[arg(long, default_value_t = 10)]
        count: usize,
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    Calls {
        #[arg(long, default_value_t = 2000)]
        count: usize,
        /// Calls before the first one that counts.
        #[arg(long, default_value_t = 200)]
        warmup: usize,
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    Hold {
        #[arg(long, default_value_t = 1)]
        count: usize,
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

fn main() -> Result<()> {
    let mode = Flags::parse().mode;
    if let Mode::Serve = mode {
        return serve();
    }
    thread::spawn(|| {
        thread::sleep(DEADLINE);
        eprintln!("stdio: the run did not end in time");
        std::process::exit(1);
    });
    let figures = match mode {
        Mode::Serve => return serve(),
        Mode::Start { count, command } => start(&command, count)?,
        Mode::Calls {
            count,
            warmup,
            command,
        } => calls(&command, count, warmup)?,
        Mode::Hold { count, command } => hold(&command, count)?,
    };
    println!("{figures}");
    Ok(())
}

/// A command that speaks MCP on stdin and stdout.
struct Session {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    line: String,
}

impl Session {
    fn spawn(command: &[String]) -> Result<Self> {
        let mut child = Command::new(&command[0])
            .args(&command[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take().ok_or("stdin is piped")?;
        let stdout = BufReader::new(child.stdout.take().ok_or("stdout is piped")?);
        let line = String::new();
        Ok(Self {
            child,
            stdin,
            stdout,
            line,
        })
    }

    /// Spawned, and answered once.
    fn begin(command: &[String]) -> Result<Self> {
        let mut session = Self::spawn(command)?;
        let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": "2025-11-25",
            "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}});
        session.ask(&format!("{hello}\n"))?;
        Ok(session)
    }

    fn ready(&mut self) -> Result<()> {
        let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        Ok(writeln!(self.stdin, "{ready}")?)
    }

    /// One line, and the line that answers it.
    fn ask(&mut self, line: &str) -> Result<()> {
        self.stdin.write_all(line.as_bytes())?;
        self.line.clear();
        if self.stdout.read_line(&mut self.line)? == 0 {
            return Err("the command ended".into());
        }
        if self.line.contains("\"result\"") {
            Ok(())
        } else {
            Err(format!("no result: {}", self.line).into())
        }
    }

    /// Closes its stdin, and kills it if that does not end it. Errors of a run come before, so that its end is none.
    fn end(self) -> Result<()> {
        let Self {
            mut child,
            stdin,
            stdout,
            ..
        } = self;
        drop((stdin, stdout));
        let asked = Instant::now();
        while child.try_wait()?.is_none() {
            if asked.elapsed() > PATIENCE {
                child.kill()?;
                child.wait()?;
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

fn start(command: &[String], count: usize) -> Result<Value> {
    let mut replies = Vec::with_capacity(count);
    for _ in 0..count {
        let begun = Instant::now();
        let session = Session::begin(command)?;
        replies.push(begun.elapsed().as_secs_f64() * 1e3);
        session.end()?;
    }
    Ok(
        json!({ "reply_ms": median(&replies).map(|value| (value * 1e3).round() / 1e3), "starts": count }),
    )
}

fn calls(command: &[String], count: usize, warmup: usize) -> Result<Value> {
    let mut session = Session::begin(command)?;
    session.ready()?;
    let call = format!("{CALL}\n");
    for _ in 0..warmup {
        session.ask(&call)?;
    }
    let mut latencies = Latencies::with_capacity(count);
    for _ in 0..count {
        let sent = Instant::now();
        session.ask(&call)?;
        latencies.push(sent.elapsed());
    }
    session.end()?;
    Ok(Value::Object(latencies.summary()))
}

fn hold(command: &[String], count: usize) -> Result<Value> {
    let mut sessions = Vec::with_capacity(count);
    for _ in 0..count {
        let mut session = Session::begin(command)?;
        session.ready()?;
        for _ in 0..20 {
            session.ask(&format!("{CALL}\n"))?;
        }
        sessions.push(session);
    }
    thread::sleep(SETTLED);
    let (mut rss, mut pss) = (0, 0);
    for session in &sessions {
        for pid in family(session.child.id()) {
            let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
            rss += kilobytes(&rollup, "Rss:")?;
            pss += kilobytes(&rollup, "Pss:")?;
        }
    }
    for session in sessions {
        session.end()?;
    }
    let megabytes = |kilobytes: u64| (kilobytes * 1024) as f64 / 1e6;
    Ok(json!({ "rss_mb": megabytes(rss), "pss_mb": megabytes(pss), "commands": count }))
}

/// A process and all that it started. One that ended meanwhile has none.
fn family(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    for task in tasks.into_iter().flatten().flatten() {
        let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        let children = children
            .split_whitespace()
            .filter_map(|child| child.parse().ok());
        all.extend(children.flat_map(family));
    }
    all
}

fn kilobytes(rollup: &str, field: &str) -> Result<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    Ok(number
        .ok_or_else(|| format!("the kernel says no {field}"))?
        .parse()?)
}

fn serve() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!(
        "{}",
        json!({ "address": listener.local_addr()?.to_string() })
    );
    for stream in listener.incoming() {
        let stream = stream?;
        // A client that leaves ends its thread.
        thread::spawn(move || drop(answer(stream)));
    }
    Ok(())
}

fn answer(stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let is_post = line.starts_with("POST ");
        let length = body_length(&mut reader, &mut line)?;
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let (status, document) = if is_post {
            say(&serde_json::from_slice(&body)?)
        } else {
            ("405 Method Not Allowed", String::new())
        };
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{document}",
            document.len()
        );
        reader.get_mut().write_all(answer.as_bytes())?;
    }
}

/// Reads the fields.
fn body_length(reader: &mut impl BufRead, line: &mut String) -> Result<usize> {
    let mut length = 0;
    loop {
        line.clear();
        if reader.read_line(line)? == 0 || line.trim().is_empty() {
            return Ok(length);
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse()?;
        }
    }
}

/// The status and the document that answer a message.
fn say(message: &Value) -> (&'static str, String) {
    let Some(id) = message.get("id") else {
        return ("202 Accepted", String::new());
    };
    let result = match message["method"].as_str() {
        Some("initialize") => {
            json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
            "serverInfo": {"name": "bench", "version": "1"}})
        }
        Some("tools/list") => {
            json!({"tools": [{"name": "add", "inputSchema": {"type": "object"}}]})
        }
        Some("tools/call") => json!({"content": [{"type": "text", "text": "3"}], "isError": false}),
        Some("ping") => json!({}),
        _ => {
            let error = json!({"code": -32601, "message": "no such method"});
            return (
                "200 OK",
                json!({"jsonrpc": "2.0", "id": id, "error": error}).to_string(),
            );
        }
    };
    (
        "200 OK",
        json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string(),
    )
}
