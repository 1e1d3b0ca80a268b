//! The servers of other projects. Each runs in its own process and exchanges lines of JSON with its test.

use std::collections::VecDeque;
use std::io::Write;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::Value;

use crate::peer::json_lines;
use crate::process::{LIMIT, NODE, PYTHON, ROOT, Running, installed};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Software {
    OidcProvider,
    Authlib,
    Oauth2Server,
    PythonSdk,
}

impl Software {
    const fn program(self) -> (&'static str, &'static str) {
        match self {
            Self::OidcProvider => (NODE, "tests/others/oidc-provider.mjs"),
            Self::Authlib => (PYTHON, "tests/others/authlib_server.py"),
            Self::Oauth2Server => (NODE, "tests/others/oauth2-server.mjs"),
            Self::PythonSdk => (PYTHON, "tests/others/mcp_server.py"),
        }
    }
}

/// The settings of a server, as environment variables.
pub(crate) type Settings = Vec<(&'static str, String)>;

/// An authorization server.
pub(crate) struct AuthorizationServer {
    process: Running,
    stdin: ChildStdin,
    lines: Receiver<Value>,
    /// Lines that came while the test waited for another line.
    passed: VecDeque<Value>,
    pub(crate) issuer: String,
    /// The whole first line.
    pub(crate) ready: Value,
}

impl AuthorizationServer {
    pub(crate) fn start(software: Software, settings: &Settings) -> Self {
        installed();
        let (program, script) = software.program();
        let mut command = Command::new(Path::new(ROOT).join(program));
        command.current_dir(ROOT).arg(script).envs(settings.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Running(command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}")));
        let stdin = process.0.stdin.take().expect("stdin is piped");
        let lines = json_lines(process.0.stdout.take().expect("stdout is piped"));
        let ready = lines.recv_timeout(LIMIT).unwrap_or_else(|e| panic!("{script} did not become ready: {e}"));
        let issuer = ready["issuer"].as_str().expect("the first line names the issuer").to_owned();
        Self { process, stdin, lines, passed: VecDeque::new(), issuer, ready }
    }

    /// Sends a line and waits for the line that answers it.
    pub(crate) fn tell(&mut self, line: &Value, answer: &str) -> Value {
        writeln!(self.stdin, "{line}").expect("the server reads its stdin");
        loop {
            let line = self.lines.recv_timeout(LIMIT).unwrap_or_else(|e| panic!("no {answer}: {e}"));
            if !line[answer].is_null() {
                return line[answer].clone();
            }
            self.passed.push_back(line);
        }
    }

    /// Ends the server. Gives the outcome of each token request. The server writes each line before it sends the answer.
    pub(crate) fn token_requests(self) -> Vec<String> {
        let Self { mut process, stdin, lines, passed, .. } = self;
        drop(stdin);
        process.wait(Duration::from_secs(10)).expect("the server ends when its stdin does");
        let all = passed.into_iter().chain(lines);
        all.filter_map(|line| Some(line["token_request"].as_str()?.to_owned())).collect()
    }

    /// The claims of a token, after a check of this server's signature and of the resource as only audience.
    pub(crate) fn claims(&self, token: &str, resource: &str) -> Value {
        let keys: JwkSet = serde_json::from_value(self.ready["jwks"].clone()).expect("the first line holds the keys");
        let mut rules = Validation::new(Algorithm::ES256);
        rules.set_audience(&[resource]);
        rules.set_issuer(&[&self.issuer]);
        rules.set_required_spec_claims(&["exp", "aud", "iss"]);
        let key = DecodingKey::from_jwk(&keys.keys[0]).expect("the server's key is a usable JWK");
        let claims: Value = jsonwebtoken::decode(token, &key, &rules).expect("the access token verifies").claims;
        assert_eq!(claims["aud"], *resource, "the audience is the resource alone");
        claims
    }
}
