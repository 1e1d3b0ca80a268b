//! Keycloak, started once for all tests. It ends with the test program, because its standard input does.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::fetched::fetched;
use crate::fakes::tcp_http;
use crate::fakes::unix_http::Reply;
use crate::keys::Authority;
use crate::peer::json_lines;
use crate::process::{ROOT, Running};

/// The script gives up before.
const START_LIMIT: Duration = Duration::from_secs(700);

pub(super) struct Keycloak {
    /// `http://127.0.0.1:PORT`.
    pub(super) http: String,
    /// `https://127.0.0.1:PORT`, which asks clients for a certificate of `authority`.
    pub(super) https: String,
    pub(super) authority: Authority,
    /// Where its programs are.
    pub(super) home: PathBuf,
    pub(super) version: String,
    _process: Running,
}

/// The one of this test program; `None` if it is not there and cannot be got. `SAFECONDUCT_KEYCLOAK` names another version.
pub(super) fn keycloak() -> Option<&'static Keycloak> {
    static SHARED: LazyLock<Option<Keycloak>> = LazyLock::new(|| {
        let version = version();
        Some(Keycloak::start(fetched(&format!("keycloak-{version}"))?, version, &[]))
    });
    SHARED.as_ref()
}

/// Another one, which filters audiences by `resource` (RFC 8707). `None` also if that version cannot.
pub(super) fn with_resource_indicators() -> Option<&'static Keycloak> {
    static SHARED: LazyLock<Option<Keycloak>> = LazyLock::new(|| {
        let version = Some(version()).filter(|version| !version.starts_with("26.5."))?;
        Some(Keycloak::start(fetched(&format!("keycloak-{version}"))?, version, &["resource-indicators"]))
    });
    SHARED.as_ref()
}

fn version() -> String {
    std::env::var("SAFECONDUCT_KEYCLOAK").unwrap_or_else(|_| "26.7.3".to_owned())
}

impl Keycloak {
    fn start(home: PathBuf, version: String, features: &[&str]) -> Self {
        let authority = Authority::new();
        let own = authority.vouches_for("127.0.0.1");
        let tls = TempDir::new().expect("a temporary folder can be made");
        let files = [("server.pem", own.certificate), ("server.key", own.key), ("authority.pem", authority.pem())];
        for (name, text) in files {
            fs::write(tls.path().join(name), text).expect("a temporary folder is writable");
        }
        let mut command = Command::new("python3");
        command.arg(format!("{ROOT}/tests/real/keycloak.py")).arg("run").arg(&home).arg(tls.path()).args(features);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Running(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")));
        let lines = json_lines(process.0.stdout.take().expect("stdout is piped"));
        let ready = lines.recv_timeout(START_LIMIT).unwrap_or_else(|error| panic!("Keycloak: {error}"));
        let origin = |name: &str| ready[name].as_str().expect("an origin").to_owned();
        Self { http: origin("http"), https: origin("https"), authority, home, version, _process: process }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.http.trim_start_matches("http://").parse().expect("an address and a port")
    }

    /// Whether it is older than 26.6, where all of this was a preview.
    pub(super) fn is_preview(&self) -> bool {
        self.version.starts_with("26.5.")
    }

    /// A request of its administrator, which must be granted.
    pub(super) async fn admin(&self, method: &str, path: &str, body: &Value) -> Value {
        let form = "grant_type=password&client_id=admin-cli&username=admin&password=admin";
        let path_of_token = "/realms/master/protocol/openid-connect/token";
        let reply = self.send("POST", path_of_token, "", ("application/x-www-form-urlencoded", form)).await;
        let token = reply.json()["access_token"].as_str().unwrap_or_else(|| panic!("{}", reply.body)).to_owned();
        let header = format!("authorization: Bearer {token}\r\n");
        let reply = self.send(method, path, &header, ("application/json", &body.to_string())).await;
        assert!((200..300).contains(&reply.status), "{method} {path}: {} {}", reply.status, reply.body);
        reply.json()
    }

    /// One request with these further header lines.
    pub(super) async fn send(&self, method: &str, path: &str, headers: &str, (kind, body): (&str, &str)) -> Reply {
        let host = self.address();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}content-type: {kind}\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        tcp_http::exchange(host, &request).await.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }
}
