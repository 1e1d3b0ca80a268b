//! SPIRE: a server with a certificate authority above it, and one agent, which knows a workload by its user. Each test has its own
//! pair, so that it may stop the server and change its keys: they start in a second.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::geteuid;
use serde_json::Value;
use tempfile::TempDir;

use super::fetched::built;
use super::realm::{PATIENCE, pause};
use super::tethered::{Tethered, free};
use crate::fakes::keys::Verifier;
use crate::fakes::platform::Trust;
use crate::fakes::safeconduct::Safeconduct;
use crate::fakes::wait;
use crate::keys::Authority;
use crate::process::{LIMIT, Outcome, ROOT, SAFECONDUCT, run};

pub(super) const AGENT: &str = "spiffe://example.org/agent";
/// Its JWT-SVIDs live for 40 seconds.
pub(super) const BRIEF: &str = "spiffe://example.org/brief";
const NODE: &str = "spiffe://example.org/node";
const ISSUER: &str = "https://spire.example.org";

pub(super) struct Spire {
    home: PathBuf,
    /// Where it publishes the keys of its trust domain, with a certificate of the authority.
    pub(super) bundle: String,
    // In this order they end.
    agent: Option<Tethered>,
    server: Option<Tethered>,
    folder: TempDir,
}

impl Spire {
    /// Our user is a workload with these SPIFFE IDs.
    pub(super) async fn start(authority: &Authority, ids: &[&str]) -> Option<Self> {
        let home = built("spire-1.13.3")?;
        let folder = tempfile::Builder::new().prefix("spire").tempdir_in("/tmp").expect("/tmp is writable");
        // Other users are workloads too.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("ours");
        let (port, bundle) = (free().port(), free().port());
        for name in ["server.conf", "agent.conf"] {
            let text = fs::read_to_string(format!("{ROOT}/tests/real/spire/{name}")).expect("it is in the tree");
            let text = text.replace("PORT", &port.to_string()).replace("BUNDLE", &bundle.to_string());
            fs::write(folder.path().join(name), text).expect("ours");
        }
        let own = authority.vouches_for("127.0.0.1");
        let certificates = [
            ("bundle.crt", own.certificate.as_str()),
            ("bundle.key", &own.key),
            ("authority.crt", &authority.pem()),
            ("authority.key", authority.key()),
        ];
        for (name, text) in certificates {
            fs::write(folder.path().join(name), text).expect("ours");
        }
        let bundle = format!("https://127.0.0.1:{bundle}");
        let mut spire = Self { home, bundle, agent: None, server: None, folder };
        spire.start_server().await;
        for id in ids {
            spire.register(id);
        }
        spire.start_agent().await;
        let fetch = ["api", "fetch", "jwt", "-audience", "ready", "-socketPath", "agent.sock"];
        wait::until(PATIENCE, "the agent has heard of all of them", async || {
            pause().await;
            let outcome = spire.command("spire-agent", &fetch);
            ids.iter().all(|id| outcome.stdout.contains(&format!("token({id})")))
        })
        .await;
        Some(spire)
    }

    pub(super) async fn start_server(&mut self) {
        let server = self.started("spire-server", &["run", "-config", "server.conf"], "server.sock").await;
        self.server = Some(server);
    }

    /// Waits for its end.
    pub(super) fn stop_server(&mut self) {
        self.server.take().expect("it runs");
    }

    async fn start_agent(&mut self) {
        let token: Value = self.server_says(&["token", "generate", "-spiffeID", NODE]);
        let token = token["value"].as_str().unwrap_or_else(|| panic!("no token: {token}"));
        let arguments = ["run", "-config", "agent.conf", "-joinToken", token];
        self.agent = Some(self.started("spire-agent", &arguments, "agent.sock").await);
    }

    pub(super) fn stop_agent(&mut self) {
        self.agent.take().expect("it runs");
    }

    async fn started(&self, program: &str, arguments: &[&str], socket: &str) -> Tethered {
        let socket = self.path().join(socket);
        let mut process = Tethered::start(&self.home.join(program), arguments, self.path());
        wait::until(PATIENCE, &format!("{program} listens"), async || {
            process.lives();
            UnixStream::connect(&socket).is_ok()
        })
        .await;
        process
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// What a command of the server's administrator prints.
    fn server(&self, words: &[&str]) -> String {
        let outcome = self.command("spire-server", &[words, &["-socketPath", "server.sock"]].concat());
        assert_eq!(outcome.code, 0, "{words:?}: {}{}", outcome.stdout, outcome.stderr);
        outcome.stdout
    }

    fn command(&self, program: &str, words: &[&str]) -> Outcome {
        let mut command = Command::new(self.home.join(program));
        command.args(words).current_dir(self.path());
        run(command, self.path())
    }

    fn server_says(&self, words: &[&str]) -> Value {
        json(&self.server(&[words, &["-output", "json"]].concat()))
    }

    /// Our user has this SPIFFE ID, in X.509-SVIDs that live for 20 seconds, and in JWT-SVIDs of usual life.
    pub(super) fn register(&self, id: &str) {
        let selector = format!("unix:uid:{}", geteuid());
        let lives = ["-jwtSVIDTTL", if id == BRIEF { "40" } else { "300" }, "-x509SVIDTTL", "20"];
        let entry =
            ["entry", "create", "-parentID", NODE, "-spiffeID", id, "-selector", &selector, "-entryID", name(id)];
        let made = self.server_says(&[&entry[..], &lives].concat());
        assert_eq!(made["results"][0]["status"]["message"], "OK", "{made}");
    }

    pub(super) fn deregister(&self, id: &str) {
        self.server_says(&["entry", "delete", "-entryID", name(id)]);
    }

    /// It signs JWT-SVIDs with a new key from now on, and nobody is to take what the old one has signed.
    pub(super) fn change_jwt_key(&self) {
        let old = self.jwt_key(&["show"], "active");
        let new = self.jwt_key(&["prepare"], "prepared_authority");
        self.jwt_key(&["activate", "-authorityID", &new], "activated_authority");
        self.jwt_key(&["taint", "-authorityID", &old], "tainted_authority");
    }

    /// The name of the key that this command speaks of.
    fn jwt_key(&self, words: &[&str], which: &str) -> String {
        let said = self.server_says(&[&["localauthority", "jwt"], words].concat());
        said[which]["authority_id"].as_str().unwrap_or_else(|| panic!("{words:?}: {said}")).to_owned()
    }

    /// What a server needs to know to trust its new JWT-SVIDs.
    pub(super) fn trust(&self) -> Trust {
        let active = self.jwt_key(&["show"], "active");
        let bundle = json(&self.server(&["bundle", "show", "-format", "spiffe"]));
        let key = bundle["keys"].as_array().and_then(|keys| keys.iter().find(|key| key["kid"] == *active));
        let verifier = Verifier::of(key.unwrap_or_else(|| panic!("no {active}: {bundle}")));
        Trust { issuer: ISSUER.to_owned(), verifier }
    }

    /// Where its agent is.
    pub(super) fn endpoint(&self) -> String {
        format!("unix://{}", self.path().join("agent.sock").display())
    }

    /// safeconduct in a workload of our user.
    pub(super) fn workload(&self, config: &str) -> Safeconduct {
        let world = Safeconduct::new(SAFECONDUCT).limit(LIMIT);
        world.env("SPIFFE_ENDPOINT_SOCKET", &self.endpoint()).config(config)
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The name of an entry: the last part of its SPIFFE ID.
fn name(id: &str) -> &str {
    id.rsplit('/').next().unwrap_or_default()
}
