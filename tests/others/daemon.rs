//! `safeconduct run` in a scene, and the commands that ask it.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::process::{LIMIT, Outcome, Running, SAFECONDUCT, safeconduct, unspoken};
use crate::scene::Scene;

pub(crate) struct Daemon {
    process: Running,
    dir: PathBuf,
    socket: String,
    handed_out: Vec<String>,
}

impl Daemon {
    pub(crate) fn start(scene: &Scene, keys: &str, assertion: Option<&str>) -> Self {
        let dir = scene.dir.path().to_owned();
        let socket = dir.join("safeconduct.sock").to_str().expect("temporary paths are text").to_owned();
        let log = fs::File::create(dir.join("daemon.log")).expect("a temporary folder is writable");
        let mut command = Command::new(SAFECONDUCT);
        command.env_clear().env("HOME", &dir).args(["--log", "trace", "--socket", &socket]);
        command.args(scene.options(keys, assertion)).arg("run");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let process = Running(command.spawn().expect("safeconduct can be started"));
        let daemon = Self { process, dir, socket, handed_out: assertion.map(str::to_owned).into_iter().collect() };
        let end = Instant::now() + LIMIT;
        while UnixStream::connect(&daemon.socket).is_err() {
            assert!(Instant::now() < end, "the daemon did not start:\n{}", daemon.log());
            thread::sleep(Duration::from_millis(5));
        }
        daemon
    }

    /// A command that asks this daemon.
    pub(crate) fn ask(&mut self, words: &[&str]) -> Outcome {
        let words: Vec<String> = [&["--socket", &self.socket], words].concat().iter().map(|&w| w.to_owned()).collect();
        let outcome = safeconduct(&self.dir, &words, None);
        self.handed_out.push(outcome.stdout.trim().to_owned());
        outcome
    }

    /// The headers of one request, for a client without the key.
    pub(crate) fn headers(&mut self, method: &str, url: &str) -> Value {
        let mut stream = UnixStream::connect(&self.socket).expect("the daemon listens");
        stream.set_read_timeout(Some(LIMIT)).expect("a socket takes a time limit");
        let path = format!("/v1/headers?server=target&method={method}&url={url}");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers and closes");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let body: Value = serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {answer}"));
        let headers = body["headers"].as_object().unwrap_or_else(|| panic!("no headers: {body}"));
        // Each is a list with one entry.
        let headers: Value = headers.iter().map(|(name, values)| (name.clone(), values[0].clone())).collect();
        let token = headers["Authorization"].as_str().and_then(|value| value.split(' ').nth(1)).expect("a token");
        self.handed_out.push(token.to_owned());
        headers
    }

    /// Ends it with SIGTERM, and checks that its log contains no token.
    pub(crate) fn end(mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.process.0.id()).expect("a pid fits"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("a child of ours can be signalled");
        let status = self.process.wait(LIMIT).expect("the daemon ends when it is told to");
        assert!(status.success(), "SIGTERM ends the daemon in good order:\n{}", self.log());
        unspoken(&self.log(), &self.handed_out.iter().map(String::as_str).collect::<Vec<_>>());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("daemon.log")).expect("the log is text")
    }
}
