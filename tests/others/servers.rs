//! The parties of a proof: an identity provider of ours, an MCP server that only challenges, and the authorization servers
//! of others.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{LIMIT, NODE, Outcome, ROOT, Running, installed, wayleave};

const PYTHON: &str = "target/others/python/bin/python";

pub(crate) const IDP: &str = "https://idp.example.com";
pub(crate) const SUBJECT: &str = "workload-1";

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    i64::try_from(since.as_secs()).expect("seconds fit")
}

/// Who signs the workloads' assertions; its ES256 key is made for this test.
pub(crate) struct Idp {
    key: EncodingKey,
    jwks: Value,
    signed: AtomicU64,
}

impl Idp {
    pub(crate) fn new() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key can be made");
        let pkcs8 = pair.to_pkcs8v1().expect("a new key can be exported");
        // An uncompressed point: one byte that says so, then x and y.
        let point = pair.public_key().as_ref();
        let [x, y] = [&point[1..33], &point[33..]].map(|part| URL_SAFE_NO_PAD.encode(part));
        let jwk = json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "idp-1", "x": x, "y": y });
        Self {
            key: EncodingKey::from_ec_der(pkcs8.as_ref()),
            jwks: json!({ "keys": [jwk] }),
            signed: AtomicU64::new(0),
        }
    }

    pub(crate) fn assertion(&self, audience: &str, expires_in: i64) -> String {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some("idp-1".into());
        let exp = now() + expires_in;
        // An expired one was issued before it expired.
        let iat = now().min(exp - 60);
        // Unique within one identity provider, whose servers see no other.
        let jti = self.signed.fetch_add(1, Ordering::Relaxed).to_string();
        let claims = json!({ "iss": IDP, "sub": SUBJECT, "aud": audience, "iat": iat, "exp": exp, "jti": jti });
        jsonwebtoken::encode(&header, &claims, &self.key).expect("a claim set can be signed")
    }
}

/// An MCP server as far as wayleave sees one: a challenge, and metadata that names the authorization server.
pub(crate) struct McpServer {
    listener: TcpListener,
    pub(crate) url: String,
}

impl McpServer {
    pub(crate) fn bind() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
        let url = format!("http://{}/mcp", listener.local_addr().expect("a bound socket has an address"));
        Self { listener, url }
    }

    /// Answers until the test program ends.
    pub(crate) fn guarded_by(self, issuer: &str) -> String {
        let origin = self.url.trim_end_matches("/mcp").to_owned();
        let metadata = json!({ "resource": self.url, "authorization_servers": [issuer] }).to_string();
        let listener = self.listener;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that hangs up is no concern of the next one.
                let _ = answer(stream, &origin, &metadata);
            }
        });
        self.url
    }
}

const METADATA_PATH: &str = "/.well-known/oauth-protected-resource/mcp";

fn answer(stream: TcpStream, origin: &str, metadata: &str) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let is_metadata = line.split(' ').nth(1) == Some(METADATA_PATH);
    let mut length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    // A body left unread would reset the connection under the answer.
    std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink())?;
    let (head, body) = if is_metadata {
        ("HTTP/1.1 200 OK\r\nContent-Type: application/json".to_owned(), metadata)
    } else {
        let challenge = format!("Bearer resource_metadata=\"{origin}{METADATA_PATH}\"");
        (format!("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: {challenge}"), "")
    };
    write!(reader.get_mut(), "{head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Software {
    OidcProvider,
    Authlib,
}

/// An authorization server others wrote, in a process of its own.
pub(crate) struct AuthorizationServer {
    process: Running,
    stdin: ChildStdin,
    lines: Receiver<Value>,
    pub(crate) issuer: String,
    keys: JwkSet,
}

impl AuthorizationServer {
    pub(crate) fn start(software: Software, idp: &Idp, resource: &str) -> Self {
        installed();
        let (program, script) = match software {
            Software::OidcProvider => (NODE, "tests/others/oidc-provider.mjs"),
            Software::Authlib => (PYTHON, "tests/others/authlib_server.py"),
        };
        let mut command = Command::new(Path::new(ROOT).join(program));
        command.current_dir(ROOT).arg(script);
        command.env("TRUSTED_ISSUER", IDP).env("TRUSTED_JWKS", idp.jwks.to_string()).env("RESOURCE", resource);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Running(command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}")));
        let stdin = process.0.stdin.take().expect("stdin is piped");
        let lines = json_lines(process.0.stdout.take().expect("stdout is piped"));
        let ready = lines.recv_timeout(LIMIT).unwrap_or_else(|e| panic!("{script} did not become ready: {e}"));
        let issuer = ready["issuer"].as_str().expect("the first line names the issuer").to_owned();
        let keys = serde_json::from_value(ready["jwks"].clone()).expect("the first line holds the keys");
        Self { process, stdin, lines, issuer, keys }
    }

    /// Ends the server and tells how each token request it saw went. Every line was written before its answer was sent.
    pub(crate) fn token_requests(self) -> Vec<String> {
        let Self { mut process, stdin, lines, .. } = self;
        drop(stdin);
        process.wait(Duration::from_secs(10)).expect("the server ends when its stdin does");
        lines.iter().filter_map(|line| Some(line["token_request"].as_str()?.to_owned())).collect()
    }

    /// The claims of a token that this server really signed, for this resource and no other.
    pub(crate) fn claims(&self, token: &str, resource: &str) -> Value {
        let mut rules = Validation::new(Algorithm::ES256);
        rules.set_audience(&[resource]);
        rules.set_issuer(&[&self.issuer]);
        rules.set_required_spec_claims(&["exp", "aud", "iss"]);
        let key = DecodingKey::from_jwk(&self.keys.keys[0]).expect("the server's key is a usable JWK");
        let claims: Value = jsonwebtoken::decode(token, &key, &rules).expect("the access token verifies").claims;
        assert_eq!(claims["aud"], *resource, "the audience is the resource alone");
        claims
    }
}

fn json_lines(stream: impl Read + Send + 'static) -> Receiver<Value> {
    let (send, receive) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            // A line that is no JSON is a package talking; nobody listening means the test is over.
            if let Ok(value) = serde_json::from_str(&line) {
                let _ = send.send(value);
            }
        }
    });
    receive
}

/// An identity provider, an authorization server that trusts it, and an MCP server behind that.
pub(crate) struct Scene {
    pub(crate) idp: Idp,
    pub(crate) server: AuthorizationServer,
    pub(crate) resource: String,
    software: Software,
    dir: TempDir,
}

impl Scene {
    pub(crate) fn new(software: Software) -> Self {
        let mcp = McpServer::bind();
        let known = mcp.url.clone();
        Self::guarding(software, mcp, &known)
    }

    /// `known` is the resource the authorization server issues tokens for, whatever the MCP server says it is.
    pub(crate) fn guarding(software: Software, mcp: McpServer, known: &str) -> Self {
        let idp = Idp::new();
        let server = AuthorizationServer::start(software, &idp, known);
        let resource = mcp.guarded_by(&server.issuer);
        Self { idp, server, resource, software, dir: TempDir::new().expect("a temporary folder can be made") }
    }

    /// `wayleave token` in its own process, with this assertion as its identity.
    pub(crate) fn token(&self, assertion: &str) -> Outcome {
        // oidc-provider wants a client with every request, and a client id may only be told to a pinned issuer.
        // Authlib wants none, and its tokens show their audience: there the issuer is discovered.
        let more = match self.software {
            Software::OidcProvider => format!("issuer = \"{}\"\nclient_id = \"workload\"\n", self.server.issuer),
            Software::Authlib => String::new(),
        };
        self.token_with(&more, assertion)
    }

    /// The same at the pinned issuer, told that assertions carry `audience`.
    pub(crate) fn token_for_audience(&self, audience: &str, assertion: &str) -> Outcome {
        let pin = format!(
            "issuer = \"{}\"\nclient_id = \"workload\"\nsubject_audience = \"{audience}\"\n",
            self.server.issuer
        );
        self.token_with(&pin, assertion)
    }

    fn token_with(&self, more: &str, assertion: &str) -> Outcome {
        let config =
            format!("[egress]\ninsecure_loopback = true\n[servers.target]\nurl = \"{}\"\n{more}", self.resource);
        let config = self.private_file("wayleave.toml", &config);
        let identity = self.private_file("assertion.jwt", assertion);
        let args = ["--config", &config, "--identity-file", &identity, "token", "target", "--no-daemon"];
        wayleave(self.dir.path(), &args, assertion)
    }

    fn private_file(&self, name: &str, content: &str) -> String {
        let path = self.dir.path().join(name);
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .expect("a temporary folder is writable");
        file.write_all(content.as_bytes()).expect("a temporary folder is writable");
        path.to_str().expect("temporary paths are text").to_owned()
    }
}
