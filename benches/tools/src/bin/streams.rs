//! Event streams for the proxy's rows: an MCP server whose streams are silent or never stop, and a client that holds many of them.
//!
//! `streams serve` prints `{"address"}` and answers each request on a connection of its own: a path that ends in `idle` with one
//! event and then silence, one that ends in `flood` with events without end, any other with a small JSON document.
//! `streams hold` opens `--count` streams on a Unix socket, prints `{"open"}` when each has had its first bytes, and reads on
//! until it is ended.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use clap::{Parser, Subcommand};
use safeconduct_bench_tools::Result;
use safeconduct_bench_tools::wire::head_length;
use serde_json::json;

/// Enough for a loop of reads and writes: there are hundreds of threads.
const STACK: usize = 64 * 1024;
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Parser)]
struct Flags {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Subcommand)]
enum Mode {
    Serve,
    Hold {
        #[arg(long)]
        socket: PathBuf,
        #[arg(long)]
        ask: String,
        #[arg(long, default_value_t = 256)]
        count: usize,
    },
}

fn main() -> Result<()> {
    match Flags::parse().mode {
        Mode::Serve => serve(),
        Mode::Hold { socket, ask, count } => hold(&socket, &ask, count),
    }
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
        spawn(move || drop(answer(stream)))?;
    }
    Ok(())
}

fn answer(mut stream: TcpStream) -> Result<()> {
    let (mut head, mut piece) = (Vec::new(), [0; 4096]);
    while head_length(&head).is_none() {
        let read = stream.read(&mut piece)?;
        if read == 0 {
            return Ok(());
        }
        head.extend_from_slice(&piece[..read]);
    }
    let line = String::from_utf8_lossy(&head);
    let path = line.split(' ').nth(1).unwrap_or_default();
    if !path.ends_with("idle") && !path.ends_with("flood") {
        let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
        return Ok(stream.write_all(answer.as_bytes())?);
    }
    stream.write_all(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
    )?;
    let event = format!("data: {}\n\n", "x".repeat(1000));
    let chunk = format!("{:x}\r\n{event}\r\n", event.len());
    stream.write_all(chunk.as_bytes())?;
    if path.ends_with("flood") {
        loop {
            stream.write_all(chunk.as_bytes())?;
        }
    }
    // Until the client leaves.
    while stream.read(&mut piece)? > 0 {}
    Ok(())
}

fn hold(socket: &PathBuf, ask: &str, count: usize) -> Result<()> {
    let (send, opened) = channel();
    for _ in 0..count {
        let mut stream = UnixStream::connect(socket)?;
        write!(
            stream,
            "GET {ask} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
        )?;
        let send = send.clone();
        spawn(move || {
            let mut piece = [0; 32 * 1024];
            let mut read = stream.read(&mut piece).unwrap_or(0);
            // The other side waits for it, or has given up.
            let _ = send.send(piece[..read].starts_with(b"HTTP/1.1 200"));
            while read > 0 {
                read = stream.read(&mut piece).unwrap_or(0);
            }
        })?;
    }
    for _ in 0..count {
        if !opened.recv_timeout(PATIENCE)? {
            return Err("a stream was refused".into());
        }
    }
    println!("{}", json!({ "open": count }));
    loop {
        thread::park();
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) -> Result<()> {
    thread::Builder::new().stack_size(STACK).spawn(work)?;
    Ok(())
}
