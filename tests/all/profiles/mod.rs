//! Every example of `examples/config/`, from the environment to the token, against a server of its kind. Also the most likely
//! mistakes, with the hint that helps.
//!
//! Only the names in an example are replaced, by those of the fakes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use nix::unistd::getegid;
use safeconduct::{App, Clock, Config, Env};
use serde_json::{Value, json};
use support::authorization_server::{ClientProof, FakeAs, Profile};
use support::case::{self, Stage};
use support::entra::FakeEntra;
use support::google::{AGENT as ACCOUNT, FakeGoogle, INSTANCE, PROVIDER, external_account};
use support::platform::{FakePlatform, SUBJECT};
use support::safeconduct::{Output, Safeconduct};
use support::scene::Scene;
use support::tls::TestCa;
use support::traffic::{Place, Traffic};
use support::workload_api::FakeWorkloadApi;
use support::{entra, keys, leak, profiles, unix_http};

use crate::exit::{CONFIG, DENIED, NO_IDENTITY, REFUSED};
use crate::{binary, example};

mod entra_id;
mod google;
mod google_cloud;
mod in_a_daemon;
mod mcp;
mod platforms;
mod vendors;

const SVID: &str = "spiffe://example.org/agent";
const LIFE: Duration = Duration::from_secs(300);

const MCP: &str = "https://mcp.example.com/mcp";
const LOGIN: &str = "https://login.example.com/tenant1";
const KEY: &str = "/etc/safeconduct/client.pem";
const SECRET_FILE: &str = "/etc/safeconduct/client-secret";
const SECRET: &str = "a client's secret: 100%+";

/// An example with the names of this scene.
struct Example<'a> {
    scene: &'a Scene,
    text: String,
}

impl<'a> Example<'a> {
    /// `issuer` is the one in the file.
    fn new(scene: &'a Scene, name: &str, issuer: &str) -> Self {
        Self::at_server(scene, name).with(&quoted(issuer), &quoted(&scene.authorization_server.issuer()))
    }

    /// One that names no issuer.
    fn at_server(scene: &'a Scene, name: &str) -> Self {
        Self::unchanged(scene, name).with(&quoted(MCP), &quoted(&scene.mcp.url()))
    }

    fn unchanged(scene: &'a Scene, name: &str) -> Self {
        let text = example::text(name);
        // The fakes are on loopback.
        let text = match text.contains("[egress]\n") {
            true => text.replace("[egress]\n", "[egress]\ninsecure_loopback = true\n"),
            false => format!("{text}\n[egress]\ninsecure_loopback = true\n"),
        };
        Self { scene, text }
    }

    /// Replaces `from`, which must be present.
    fn with(&self, from: &str, to: &str) -> Self {
        assert!(self.text.contains(from), "{from:?} is not in\n{}", self.text);
        Self { scene: self.scene, text: self.text.replace(from, to) }
    }

    /// Adds keys to `[egress]`, so that a fake replaces hosts that are compiled into the product.
    fn behind(&self, egress: &str) -> Self {
        self.with("[egress]\n", &format!("[egress]\n{egress}"))
    }

    /// Replaces the path by a new key file of the client. Also gives the public half for the server.
    fn with_key(&self, path: &str) -> (Self, ClientProof) {
        let pair = rcgen::KeyPair::generate().expect("a key");
        let file = self.scene.safeconduct.private(path.rsplit('/').next().expect("a name"));
        fs::write(&file, pair.serialize_pem()).expect("ours");
        let key = EncodingKey::from_ec_der(&pair.serialize_der());
        let jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).expect("a public key");
        (self.with(path, &file.display().to_string()), ClientProof::Key(Box::new(jwk)))
    }

    fn with_secret(&self) -> Self {
        leak::minted(SECRET);
        let file = self.scene.safeconduct.private("secret");
        fs::write(&file, SECRET).expect("ours");
        self.with(SECRET_FILE, &file.display().to_string())
    }

    fn world(&self) -> Safeconduct {
        self.scene.safeconduct.clone().config(&self.text)
    }

    async fn run(&self) -> Output {
        self.world().run(&["token", "demo"]).await
    }

    /// Gives the token.
    async fn works(&self) -> String {
        self.run().await.expect_code(0).stdout.trim().to_owned()
    }

    /// Expects at most one request, this exit code, `words` in the error and `hint` in the hint.
    async fn fails(&self, code: i32, words: &[&str], hint: &[&str]) {
        let before = self.scene.authorization_server.token_requests();
        let output = self.run().await.expect_code(code);
        tells(&output, words, hint);
        assert!(self.scene.authorization_server.token_requests() <= before + 1, "no second attempt");
    }
}

fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

fn tells(output: &Output, words: &[&str], hint: &[&str]) {
    let told = output.stderr.split("safeconduct: error: ").nth(1).unwrap_or_default();
    let (error, cure) = told.split_once("safeconduct: hint: ").unwrap_or_default();
    for (wanted, found) in words.iter().map(|word| (word, error)).chain(hint.iter().map(|word| (word, cure))) {
        assert!(found.contains(wanted), "{wanted:?} is not where it belongs in\n{}", output.stderr);
    }
}

fn examples() -> Vec<(String, String)> {
    let entries =
        fs::read_dir(example::FOLDER).expect("there are examples").map(|entry| entry.expect("readable").path());
    let files = entries.map(|path| (path.display().to_string(), fs::read_to_string(&path).expect("UTF-8")));
    files.collect()
}

#[tokio::test]
async fn every_example_is_a_valid_configuration_and_says_what_must_be_true_elsewhere() {
    for (path, text) in examples() {
        let output = Safeconduct::new(binary()).config(&text).run(&["config", "check"]).await;
        assert!(output.succeeded(), "{path}: {}", output.stderr);
        assert!(
            text.starts_with("# ") && text.lines().all(|line| line.len() <= 132),
            "{path}: comments, and short lines"
        );
    }
}

fn of_the_scene<'a>(scene: &'a Scene, name: &str) -> Example<'a> {
    Example::unchanged(scene, name).with(&quoted(MCP), &quoted(&scene.mcp.url()))
}

const APPLICATION: &str = "11111111-1111-1111-1111-111111111111";
const TARGET: &str = "api://22222222-2222-2222-2222-222222222222";
const AGENT: &str = "55555555-5555-5555-5555-555555555555";

/// The fake of Google in place of its hosts. The provider in the pool trusts the job of the scene.
async fn google(scene: &Scene) -> FakeGoogle {
    let google = FakeGoogle::start(scene.platform.trust()).await;
    google.grant(&FakeGoogle::principal(SUBJECT), ACCOUNT);
    google
}

impl Example<'_> {
    /// Uses the fake in place of Google's hosts.
    fn at_google(&self, google: &FakeGoogle) -> Self {
        self.behind(&google.egress())
    }
}

/// A token type without the common prefix.
const JWT: &str = "oauth:token-type:jwt";
const FRONT_DOOR: &str = "https://mcp-abc123-ew.a.run.app";

/// The pod of a case of `tests/sources/kubernetes/`.
async fn pod(name: &str) -> Stage {
    platform("kubernetes", name).await
}

/// The platform of a case of `tests/sources/`.
async fn platform(source: &str, name: &str) -> Stage {
    let cases = case::all(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sources")));
    let case = cases.iter().find(|case| case.source == source && case.name == name).expect("there is such a case");
    case.stage(binary()).await
}
