//! A program of another project, or one of ours around it, that exchanges lines of JSON with its test.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::process::{LIMIT, ROOT, Running, installed};

pub(crate) struct Peer {
    name: String,
    stdin: Option<ChildStdin>,
    lines: Receiver<Value>,
    /// Lines that came while the test waited for another line.
    passed: Vec<Value>,
    process: Running,
}

impl Peer {
    /// `program` is relative to the repository's root; `arguments` are the script's name and what it is given.
    pub(crate) fn start(program: &str, arguments: &[&str], settings: &[(&str, String)]) -> Self {
        installed();
        let mut command = Command::new(Path::new(ROOT).join(program));
        command.current_dir(ROOT).args(arguments).envs(settings.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Running(command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}")));
        let stdin = process.0.stdin.take();
        let lines = json_lines(process.0.stdout.take().expect("stdout is piped"));
        Self { name: arguments.join(" "), stdin, lines, passed: Vec::new(), process }
    }

    /// The next line that has this member; gives the member.
    pub(crate) fn hear(&mut self, member: &str) -> Value {
        loop {
            let line = self.lines.recv_timeout(LIMIT).unwrap_or_else(|e| panic!("{}: no {member}: {e}", self.name));
            if let Some(value) = line.get(member) {
                return value.clone();
            }
            self.passed.push(line);
        }
    }

    /// Sends a line, and gives the next line with one of these members: which, and its value.
    pub(crate) fn ask(&mut self, line: &Value, members: &[&str]) -> (String, Value) {
        writeln!(self.stdin.as_mut().expect("it is taken at the end"), "{line}").expect("it reads its stdin");
        loop {
            let answer = self.lines.recv_timeout(LIMIT).unwrap_or_else(|e| panic!("{}: {line}: {e}", self.name));
            if let Some(member) = members.iter().find(|member| answer.get(**member).is_some()) {
                return ((*member).to_owned(), answer[*member].clone());
            }
            self.passed.push(answer);
        }
    }

    /// The value of this member in each line so far that nobody waited for.
    pub(crate) fn heard(&mut self, member: &str) -> Vec<Value> {
        self.passed.extend(self.lines.try_iter());
        self.passed.iter().filter_map(|line| line.get(member).cloned()).collect()
    }

    pub(crate) fn forget(&mut self) {
        self.passed.extend(self.lines.try_iter());
        self.passed.clear();
    }

    /// Closes its stdin and waits for its end.
    pub(crate) fn end(mut self) {
        self.stdin.take();
        let name = &self.name;
        self.process.wait(Duration::from_secs(15)).unwrap_or_else(|| panic!("{name} does not end with its stdin"));
    }
}

/// The values that a program writes, one in a line.
pub(crate) fn json_lines(stream: impl Read + Send + 'static) -> Receiver<Value> {
    let (send, receive) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            // A line that is not JSON is a log line of a package. A failed send means that the test is over.
            if let Ok(value) = serde_json::from_str(&line) {
                let _ = send.send(value);
            }
        }
    });
    receive
}

/// Waits until something answers on this port of loopback.
pub(crate) fn listens(port: u16) {
    let end = Instant::now() + LIMIT;
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < end, "nothing listens on port {port}");
        thread::sleep(Duration::from_millis(20));
    }
}
