//! A running daemon (`safeconduct run`).

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::super::leak;
use super::super::unix_http::{self, Reply};
use super::{Output, Running, Safeconduct};

/// Routes whose successful answer carries a token.
const CARRIERS: [&str; 3] = ["/v1/token", "/v1/headers", "/oauth/token"];

const START_LIMIT: Duration = Duration::from_secs(15);

pub struct Daemon {
    running: Running,
    socket: PathBuf,
    helper: Safeconduct,
}

impl Daemon {
    pub(super) async fn start(world: &Safeconduct, args: &[&str]) -> Self {
        let args = [&["run"], args].concat();
        let flag = args.iter().position(|arg| *arg == "--socket").and_then(|at| args.get(at + 1));
        let socket = flag.map_or_else(|| world.socket(), PathBuf::from);
        let running = Running::start(world, &args, Stdio::null());
        let helper = world.as_helper().env("SAFECONDUCT_SOCKET", &socket.display().to_string());
        let mut daemon = Self { running, socket, helper };
        if tokio::time::timeout(START_LIMIT, daemon.answers()).await.is_err() {
            daemon.fail("does not answer on its socket");
        }
        daemon
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.checked(path, unix_http::get(&self.socket, path).await)
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.checked(path, unix_http::post(&self.socket, path, body).await)
    }

    /// Sends a complete request, head and body. It must contain `connection: close`.
    pub async fn exchange(&self, request: &str) -> Reply {
        let path = request.split(' ').nth(1).unwrap_or_default();
        self.checked(path, unix_http::exchange(&self.socket, request).await)
    }

    /// The access token for a server. Fails the test if there is none.
    pub async fn token(&self, server: &str) -> String {
        let reply = self.get(&format!("/v1/token?server={server}")).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        reply.json()["access_token"].as_str().expect("an answer of 200 has a token").to_owned()
    }

    /// Runs a helper command that finds this daemon by `SAFECONDUCT_SOCKET` and is given no configuration.
    pub async fn run(&self, args: &[&str]) -> Output {
        self.helper.run(args).await
    }

    /// The world of [`Daemon::run`], to change before running something in it.
    pub fn helper(&self) -> Safeconduct {
        self.helper.clone()
    }

    pub fn signal(&self, signal: Signal) {
        self.running.signal(signal);
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        self.running.stderr()
    }

    /// Waits until the log has `text`; fails after five seconds.
    pub async fn logged(&self, text: &str) {
        for _ in 0..500 {
            if self.log().contains(text) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.fail(&format!("did not log {text:?}"));
    }

    /// Sends SIGTERM and gives the outcome.
    pub async fn stop(mut self) -> Output {
        self.signal(Signal::SIGTERM);
        self.running.wait().await
    }

    /// Waits until it ends by itself.
    pub async fn wait(mut self) -> Output {
        self.running.wait().await
    }

    async fn answers(&mut self) {
        loop {
            if self.running.has_ended() {
                self.fail("has ended before it answered");
            }
            if unix_http::get(&self.socket, "/healthz").await.is_ok_and(|reply| reply.status == 200) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn checked(&self, path: &str, reply: std::io::Result<Reply>) -> Reply {
        let reply = reply.unwrap_or_else(|error| self.fail(&format!("did not answer {path}: {error}")));
        let route = path.split('?').next().unwrap_or_default();
        for (name, value) in &reply.headers {
            leak::check(&format!("header {name} of {route}"), value);
        }
        if reply.status != 200 || !CARRIERS.contains(&route) {
            leak::check(&format!("body of {route}, status {}", reply.status), &reply.body);
        }
        reply
    }

    fn fail(&self, what: &str) -> ! {
        let log = self.log();
        leak::check("stderr of safeconduct run", &log);
        panic!("the daemon {what}; stderr:\n{log}");
    }
}
