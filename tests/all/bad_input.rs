//! Bad input, one row each: what is set up, and the exit code, class, words and cure that must come of it.
//!
//! A row is run as a one-shot and, where a daemon can meet the same trouble, through a daemon's socket as well. Always: nothing
//! on standard output, `safeconduct: error:` on standard error, and a hint where the row names one.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Value, json};
use support::authorization_server::{FakeAs, MetadataFault, TokenFault};
use support::fault::Fault;
use support::keys;
use support::mcp_server::{FakeMcp, Signposts};
use support::platform::{FakePlatform, PlatformFault};
use support::safeconduct::{Output, Safeconduct};
use support::wait::until;

use crate::binary;

const SCOPES: [&str; 2] = ["demo:read", "demo:write"];
const LIFE: Duration = Duration::from_secs(300);
/// Longer than anything here takes, and an end to what never would.
const LIMIT: Duration = Duration::from_secs(30);

/// Rows at a time: enough that those which wait for a time-out do not add up.
const AT_ONCE: usize = 8;

/// What a row may change before it is run.
struct Case {
    platform: FakePlatform,
    authorization_server: FakeAs,
    mcp: FakeMcp,
    safeconduct: Safeconduct,
    /// Lines of `[servers.demo]`; the pin by default.
    server: String,
    /// Tables before it.
    top: String,
    /// The whole file instead.
    file: Option<String>,
    args: Vec<String>,
}

struct Row {
    name: &'static str,
    set: fn(&mut Case),
    code: i32,
    /// The class through a daemon; empty: not tried there.
    class: &'static str,
    words: &'static str,
    /// A part of the hint; empty: none is asked for.
    hint: &'static str,
}

const fn row(
    name: &'static str,
    set: fn(&mut Case),
    code: i32,
    class: &'static str,
    words: &'static str,
    hint: &'static str,
) -> Row {
    Row { name, set, code, class, words, hint }
}

impl Case {
    async fn new() -> Self {
        let platform = FakePlatform::start().await;
        let authorization_server = FakeAs::start(platform.trust()).await;
        let mcp = FakeMcp::start(&authorization_server, &SCOPES).await;
        let server = format!("issuer = \"{}\"", authorization_server.issuer());
        let safeconduct = Safeconduct::new(binary()).envs(platform.env());
        let args = ["token", "demo", "--timeout", "2s"].map(str::to_owned).into();
        Self { platform, authorization_server, mcp, safeconduct, server, top: String::new(), file: None, args }
    }

    fn world(&self) -> Safeconduct {
        let whole = || {
            format!(
                "{}\n[egress]\ninsecure_loopback = true\n[servers.demo]\nurl = \"{}\"\nscopes = [\"demo:read\"]\n{}\n",
                self.top,
                self.mcp.url(),
                self.server
            )
        };
        self.safeconduct.clone().config(&self.file.clone().unwrap_or_else(whole))
    }

    fn args(&mut self, args: &[&str]) {
        self.args = args.iter().map(|arg| (*arg).to_owned()).collect();
    }

    /// `config check` of this file.
    fn check(&mut self, file: &str) {
        self.file = Some(file.to_owned());
        self.args(&["config", "check"]);
    }

    /// `config check` of one server with these lines beside its URL.
    fn check_server(&mut self, lines: &str) {
        self.check(&format!("[servers.demo]\nurl = \"https://mcp.example.com/mcp\"\n{lines}\n"));
    }

    fn discovered(&mut self) {
        self.server.clear();
    }

    fn metadata(&mut self, overrides: Value) {
        self.discovered();
        self.mcp.set_metadata(overrides);
    }

    fn metadata_fault(&mut self, fault: Fault) {
        self.discovered();
        self.mcp.always_metadata(fault);
    }

    /// The identity is in a file with this content.
    fn identity(&mut self, content: impl AsRef<[u8]>) {
        let path = self.safeconduct.private("subject.jwt");
        std::fs::write(&path, content).expect("ours");
        self.identity_at(&path.display().to_string());
    }

    fn identity_at(&mut self, path: &str) {
        self.top = format!("[identity]\nsource = \"file\"\ntoken_file = \"{path}\"");
    }

    /// The identity is in a file with these claims laid over the right ones.
    fn claims(&mut self, overrides: Value) {
        let jwt = self.platform.mint_with(&self.authorization_server.issuer(), LIFE, &overrides);
        self.identity(jwt);
    }

    /// `run` with this socket.
    fn socket(&mut self, path: &str) {
        self.args(&["run", "--socket", path]);
    }

    fn place(&self, name: &str) -> String {
        self.safeconduct.path().join(name).display().to_string()
    }
}

/// A time relative to now, in seconds.
fn at(seconds: i64) -> i64 {
    keys::now() as i64 + seconds
}

async fn run(rows: &'static [Row]) {
    let outcomes = futures_util::stream::iter(rows.iter().map(try_row)).buffer_unordered(AT_ONCE);
    let wrong: Vec<String> = outcomes.filter_map(async |outcome| outcome.err()).collect().await;
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}

async fn try_row(row: &'static Row) -> Result<(), String> {
    let mut case = Case::new().await;
    (row.set)(&mut case);
    let world = case.world();
    let args: Vec<&str> = case.args.iter().map(String::as_str).collect();
    judge(row, &world.run(&args).await)?;
    if row.class.is_empty() {
        return Ok(());
    }
    let daemon = world.daemon(&[]).await;
    let reply = daemon.get("/v1/token?server=demo").await;
    let body = reply.json();
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    let status = match row.class {
        "bad_request" => 400,
        "denied" => 403,
        "refused" => 502,
        "no_identity" | "temporary" => 503,
        _ => 500,
    };
    let right = reply.status == status
        && text("class") == row.class
        && text("error_description").contains(row.words)
        && text("hint").contains(row.hint)
        && (row.class == "temporary") == reply.header("retry-after").is_some()
        && text("server") == "demo"
        && body["access_token"].is_null();
    // Afterwards it is as good as before.
    let alive = daemon.get("/healthz").await.status == 200;
    let told = if reply.status == 200 { "a token" } else { reply.body.trim() };
    if right && alive { Ok(()) } else { Err(format!("* {}: the daemon answers {} {told}", row.name, reply.status)) }
}

fn judge(row: &Row, output: &Output) -> Result<(), String> {
    let line = |start: &str| {
        output.stderr.find(start).map(|at| output.stderr[at + start.len()..].trim_end().to_owned()).unwrap_or_default()
    };
    let error = line("safeconduct: error: ");
    let error = error.split("\nsafeconduct: hint: ").next().unwrap_or_default();
    let hint = line("safeconduct: hint: ");
    let right = output.code == Some(row.code)
        && output.stdout.is_empty()
        && error.contains(row.words)
        && hint.contains(row.hint)
        && !error.is_empty();
    if right {
        return Ok(());
    }
    let last: Vec<&str> = output.stderr.lines().rev().take(4).collect();
    Err(format!("* {}: exit {:?}, {last:?}", row.name, output.code))
}

const CONFIGURATION: &[Row] = &[
    row(
        "unknown key",
        |c| c.check_server("scope = [\"a\"]"),
        78,
        "",
        "line 3: servers.demo.scope: unknown key; did you mean `scopes`?",
        "config schema",
    ),
    row(
        "unknown table",
        |c| c.check("[server.demo]\nurl = \"https://a.example\""),
        78,
        "",
        "did you mean `servers`?",
        "config schema",
    ),
    row(
        "unknown key at the top",
        |c| c.check("socket = \"/x\""),
        78,
        "",
        "line 1: socket: unknown key",
        "config schema",
    ),
    row(
        "unknown key in a rule",
        |c| c.check_server("allow = [{ user = \"me\" }]"),
        78,
        "",
        "servers.demo.allow.user: unknown key",
        "config schema",
    ),
    row(
        "duplicate key",
        |c| c.check_server("required = true\nrequired = false"),
        78,
        "",
        "line 4: duplicate key",
        "config schema",
    ),
    row("duplicate table", |c| c.check("[listen]\n[listen]"), 78, "", "duplicate", "config schema"),
    row("not TOML", |c| c.check("servers = [\n"), 78, "", "line ", "config schema"),
    row(
        "wrong type",
        |c| c.check_server("scopes = \"demo:read\""),
        78,
        "",
        "servers.demo.scopes: must be a list of texts",
        "config schema",
    ),
    row(
        "number out of range",
        |c| c.check_server("allow = [{ uid = -1 }]"),
        78,
        "",
        "must be a number from 0",
        "config schema",
    ),
    row(
        "a table where a text belongs",
        |c| c.check("[servers.demo]\nurl = { a = 1 }"),
        78,
        "",
        "servers.demo.url: must be a text",
        "config schema",
    ),
    row("no url", |c| c.check("[servers.demo]"), 78, "", "servers.demo.url: missing", "config schema"),
    row(
        "url without scheme",
        |c| c.check("[servers.demo]\nurl = \"mcp.example.com\""),
        78,
        "",
        "not an absolute URL",
        "config schema",
    ),
    row(
        "url of another scheme",
        |c| c.check("[servers.demo]\nurl = \"ftp://mcp.example.com\""),
        78,
        "",
        "https is needed",
        "config schema",
    ),
    row(
        "plain http",
        |c| c.check("[servers.demo]\nurl = \"http://mcp.example.com\""),
        78,
        "",
        "plain http is refused",
        "config schema",
    ),
    row(
        "userinfo",
        |c| c.check("[servers.demo]\nurl = \"https://me:secret@mcp.example.com\""),
        78,
        "",
        "user name or password",
        "config schema",
    ),
    row(
        "fragment",
        |c| c.check("[servers.demo]\nurl = \"https://mcp.example.com/#x\""),
        78,
        "",
        "fragment",
        "config schema",
    ),
    row(
        "dot segments",
        |c| c.check("[servers.demo]\nurl = \"https://mcp.example.com/a/%2e./b\""),
        78,
        "",
        "dot segments",
        "config schema",
    ),
    row(
        "host beyond ASCII",
        |c| c.check("[servers.demo]\nurl = \"https://mcp.exämple.com/\""),
        78,
        "",
        "not plain ASCII",
        "config schema",
    ),
    row(
        "issuer with a query",
        |c| c.check_server("issuer = \"https://as.example.com/?a=b\""),
        78,
        "",
        "servers.demo.issuer: it has a query",
        "config schema",
    ),
    row("scope with a quote", |c| c.check_server("scopes = ['a\"b']"), 78, "", "visible ASCII", "config schema"),
    row("nobody is let in", |c| c.check_server("allow = []"), 78, "", "an empty list lets nobody in", "config schema"),
    row(
        "a rule for everybody",
        |c| c.check_server("allow = [{ scopes = [\"a\"] }]"),
        78,
        "",
        "an entry needs at least one of `uid`, `gid`, `exe`, `sha256`, `unit`",
        "config schema",
    ),
    row(
        "a rule for a program without its whole path",
        |c| c.check_server("allow = [{ uid = 1, exe = \"agent\" }]"),
        78,
        "",
        "servers.demo.allow.exe: \"agent\" is no absolute path of a program",
        "config schema",
    ),
    row(
        "a rule for half a digest",
        |c| c.check_server("allow = [{ sha256 = \"0123456789abcdef\" }]"),
        78,
        "",
        "servers.demo.allow.sha256: not the 64 hexadecimal digits",
        "config schema",
    ),
    row(
        "a rule for a unit without its type",
        |c| c.check_server("allow = [{ unit = \"agent\" }]"),
        78,
        "",
        "did you mean \"agent.service\"?",
        "config schema",
    ),
    row("client_id without a pin", |c| c.check_server("client_id = \"x\""), 78, "", "needs `issuer`", "config schema"),
    row(
        "subject_audience without a pin",
        |c| c.check_server("subject_audience = \"x\""),
        78,
        "",
        "needs `issuer`",
        "config schema",
    ),
    row(
        "extra sets what the exchange sets",
        |c| c.check_server("issuer = \"https://as.example.com\"\nextra = { assertion = \"x\" }"),
        78,
        "",
        "is set by the exchange itself",
        "config schema",
    ),
    row(
        "unknown exchange",
        |c| c.check_server("exchange = \"password\""),
        78,
        "",
        "\"password\" is not known",
        "config schema",
    ),
    row(
        "unknown client_auth",
        |c| c.check_server("client_auth = \"basic\""),
        78,
        "",
        "there are: none, workload",
        "config schema",
    ),
    row(
        "one url, two policies",
        |c| {
            c.check("[servers.a]\nurl = \"https://mcp.example.com\"\n[servers.b]\nurl = \"https://MCP.example.com:443/\"\nallow = [{ uid = 61234 }]");
        },
        78,
        "",
        "is one resource with servers.a",
        "config schema",
    ),
    row(
        "names that differ by case",
        |c| c.check("[servers.a]\nurl = \"https://a.example\"\n[servers.A]\nurl = \"https://b.example\""),
        78,
        "",
        "by case alone",
        "config schema",
    ),
    row(
        "a name with a slash",
        |c| c.check("[servers.\"a/b\"]\nurl = \"https://a.example\""),
        78,
        "",
        "a name has letters",
        "config schema",
    ),
    row(
        "an audit file that depends on where we were started",
        |c| c.check("[audit]\nfile = \"audit.jsonl\""),
        78,
        "",
        "line 2: audit.file: must be an absolute path",
        "config schema",
    ),
    row("an audit without a file", |c| c.check("[audit]"), 78, "", "audit.file: missing", "config schema"),
    row(
        "unknown identity source",
        |c| c.check("[identity]\nsource = \"guess\""),
        78,
        "",
        "identity.source: \"guess\" is not known",
        "config schema",
    ),
    row(
        "keys of another source",
        |c| c.check("[identity]\nsource = \"github-actions\"\ntoken_file = \"/x\""),
        78,
        "",
        "belongs to another source",
        "config schema",
    ),
    row(
        "a source without its key",
        |c| c.check("[identity]\nsource = \"file\""),
        78,
        "",
        "identity.token_file: missing",
        "config schema",
    ),
    row(
        "a bad account behind a good one",
        |c| c.check("[identity]\nsource = \"gcp\"\ndelegates = [\"good@x.iam.gserviceaccount.com\", \"bad one\"]"),
        78,
        "",
        "line 3: identity.delegates: entry 2 is no email of a service account",
        "config schema",
    ),
    row(
        "relative socket",
        |c| c.check("[listen]\nsocket = \"safeconduct.sock\""),
        78,
        "",
        "must be an absolute path",
        "config schema",
    ),
    row(
        "a socket for everybody",
        |c| c.check("[listen]\nsocket_mode = \"0666\""),
        78,
        "",
        "is neither \"0600\" nor \"0660\"",
        "config schema",
    ),
    row(
        "a group mode without a group",
        |c| c.check("[listen]\nsocket_mode = \"0660\""),
        78,
        "",
        "needs `socket_group`",
        "config schema",
    ),
    row(
        "an unknown group",
        |c| c.check("[listen]\nsocket_mode = \"0660\"\nsocket_group = \"no such group\""),
        78,
        "",
        "there is no group",
        "config schema",
    ),
    row(
        "egress.allow that is no network",
        |c| c.check("[egress]\nallow = [\"10.0.0.0/33\"]"),
        78,
        "",
        "is neither a host name nor a network",
        "config schema",
    ),
    row(
        "egress.issuers that is no issuer",
        |c| c.check("[egress]\nissuers = [\"as.example.com\"]"),
        78,
        "",
        "egress.issuers: ",
        "config schema",
    ),
    row(
        "a file that others can write",
        |c| {
            let path = c.safeconduct.write("open.toml", "");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).expect("ours");
            c.args(&["config", "check", "--config", &path.display().to_string()]);
        },
        78,
        "",
        "others can write it (mode 0666)",
        "",
    ),
    row(
        "a daemon refuses such a file too",
        |c| {
            let path = c.safeconduct.write("open.toml", "");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o664)).expect("ours");
            c.args(&["run", "--config", &path.display().to_string()]);
        },
        78,
        "",
        "others can write it (mode 0664)",
        "",
    ),
    row(
        "a file that is not there",
        |c| c.args(&["config", "check", "--config", "/nonexistent/safeconduct.toml"]),
        78,
        "",
        "/nonexistent/safeconduct.toml: cannot be read",
        "",
    ),
    row(
        "a directory",
        |c| {
            let place = c.place("home");
            c.args(&["config", "check", "--config", &place]);
        },
        78,
        "",
        "not a regular file",
        "",
    ),
    row(
        "a pipe",
        |c| {
            let place = c.place("pipe.toml");
            nix::unistd::mkfifo(place.as_str(), nix::sys::stat::Mode::S_IRWXU).expect("ours");
            c.args(&["config", "check", "--config", &place]);
        },
        78,
        "",
        "not a regular file",
        "",
    ),
    row(
        "larger than a person writes",
        |c| {
            let path = c.safeconduct.write("big.toml", &"# x\n".repeat(300_000));
            c.args(&["config", "check", "--config", &path.display().to_string()]);
        },
        78,
        "",
        "larger than",
        "",
    ),
    row(
        "not UTF-8",
        |c| {
            let path = c.safeconduct.path().join("latin1.toml");
            std::fs::write(&path, b"# caf\xe9\n").expect("ours");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("ours");
            c.args(&["config", "check", "--config", &path.display().to_string()]);
        },
        78,
        "",
        "not UTF-8",
        "",
    ),
];

const IDENTITY_FILE: &[Row] = &[
    row(
        "missing",
        |c| c.identity_at("/nonexistent/token"),
        69,
        "no_identity",
        "/nonexistent/token cannot be read",
        "check the path",
    ),
    row(
        "a directory",
        |c| {
            let place = c.place("home");
            c.identity_at(&place);
        },
        69,
        "no_identity",
        "not a regular file",
        "regular file",
    ),
    row(
        "a pipe",
        |c| {
            let place = c.place("pipe");
            nix::unistd::mkfifo(place.as_str(), nix::sys::stat::Mode::S_IRWXU).expect("ours");
            c.identity_at(&place);
        },
        69,
        "no_identity",
        "not a regular file",
        "regular file",
    ),
    row(
        "a device that never ends",
        |c| c.identity_at("/dev/zero"),
        69,
        "no_identity",
        "not a regular file",
        "regular file",
    ),
    row("empty", |c| c.identity(""), 69, "no_identity", "is empty", "must hold one JWT"),
    row("blank", |c| c.identity(" \n\n"), 69, "no_identity", "is empty", "must hold one JWT"),
    row("oversized", |c| c.identity(vec![b'a'; 64 * 1024 + 1]), 69, "no_identity", "larger than 65536 bytes", "64 KiB"),
    row("no JWT", |c| c.identity("hello"), 69, "no_identity", "is not a JWT", "must hold one JWT"),
    row(
        "JSON around it",
        |c| c.identity("{\"value\":\"a.b.c\"}"),
        69,
        "no_identity",
        "is not a JWT",
        "must hold one JWT",
    ),
    row(
        "two of them",
        |c| {
            let jwt = c.platform.mint("x", LIFE);
            c.identity(format!("{jwt}\n{jwt}\n"));
        },
        69,
        "no_identity",
        "is not a JWT",
        "must hold one JWT",
    ),
    row(
        "without signature",
        |c| {
            let jwt = c.platform.mint("x", LIFE);
            c.identity(&jwt[..=jwt.rfind('.').expect("a JWT")]);
        },
        69,
        "no_identity",
        "is not a JWT",
        "must hold one JWT",
    ),
    row(
        "claims that are a list",
        |c| c.identity("e30.W10.c2ln"),
        69,
        "no_identity",
        "is not a JWT",
        "must hold one JWT",
    ),
    row("not UTF-8", |c| c.identity(b"\xff\xfe\x00"), 69, "no_identity", "is not UTF-8", "must hold one JWT"),
    row(
        "expired by more than five minutes",
        |c| c.claims(json!({"exp": at(-330)})),
        69,
        "no_identity",
        "expired",
        "renew it",
    ),
    row("expired long ago", |c| c.claims(json!({"exp": 0})), 69, "no_identity", "expired", "renew it"),
    row(
        "expired before there was time",
        |c| c.claims(json!({"exp": -1.0e300})),
        69,
        "no_identity",
        "expired",
        "renew it",
    ),
    row("no expiry", |c| c.claims(json!({"exp": null})), 69, "no_identity", "has no expiry", "`exp`"),
    row("an expiry in words", |c| c.claims(json!({"exp": "tomorrow"})), 69, "no_identity", "is not a JWT", ""),
    row(
        "for somebody else",
        |c| c.claims(json!({"aud": "https://other.example"})),
        69,
        "no_identity",
        "is made for \"https://other.example\"",
        "subject_audience",
    ),
    row(
        "for the issuer with a slash",
        |c| {
            let aud = format!("{}/", c.authorization_server.issuer());
            c.claims(json!({"aud": aud}));
        },
        69,
        "no_identity",
        "is made for",
        "have the platform make",
    ),
    row(
        "for several",
        |c| {
            let aud = c.authorization_server.issuer();
            c.claims(json!({"aud": [aud, "https://other.example"]}));
        },
        69,
        "no_identity",
        "names 2 audiences",
        "alone",
    ),
    row("for nobody", |c| c.claims(json!({"aud": null})), 69, "no_identity", "names no audience", "alone"),
];

const PLATFORM: &[Row] = &[
    row(
        "no permission",
        |c| {
            c.safeconduct = c
                .safeconduct
                .clone()
                .without_env("ACTIONS_ID_TOKEN_REQUEST_URL")
                .without_env("ACTIONS_ID_TOKEN_REQUEST_TOKEN");
        },
        69,
        "",
        "are not set",
        "id-token: write",
    ),
    row(
        "half the permission",
        |c| c.safeconduct = c.safeconduct.clone().without_env("ACTIONS_ID_TOKEN_REQUEST_TOKEN"),
        69,
        "",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN is not set",
        "id-token: write",
    ),
    row(
        "the other half",
        |c| c.safeconduct = c.safeconduct.clone().env("ACTIONS_ID_TOKEN_REQUEST_URL", ""),
        69,
        "",
        "ACTIONS_ID_TOKEN_REQUEST_URL is not set",
        "id-token: write",
    ),
    row(
        "a daemon stops at once",
        |c| {
            c.safeconduct = c.safeconduct.clone().without_env("ACTIONS_ID_TOKEN_REQUEST_TOKEN");
            c.args(&["run"]);
        },
        69,
        "",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN is not set",
        "id-token: write",
    ),
    row(
        "an endpoint that is no URL",
        |c| c.safeconduct = c.safeconduct.clone().env("ACTIONS_ID_TOKEN_REQUEST_URL", "not a url"),
        69,
        "",
        "is not a URL",
        "set by the runner",
    ),
    row(
        "an endpoint in clear",
        |c| c.safeconduct = c.safeconduct.clone().env("ACTIONS_ID_TOKEN_REQUEST_URL", "http://actions.example/?a=b"),
        69,
        "no_identity",
        "plain http is refused",
        "https",
    ),
    row(
        "nothing here",
        |c| c.safeconduct = c.safeconduct.clone().without_env("GITHUB_ACTIONS"),
        69,
        "",
        "no workload identity here",
        "--identity-file",
    ),
    row(
        "an identity that is not known",
        |c| c.args(&["token", "demo", "--identity", "guess"]),
        64,
        "",
        "\"guess\" is not known",
        "this version knows",
    ),
    row("stalls", |c| c.platform.always(Fault::Stall), 75, "", "", ""),
    row("stalls in the body", |c| c.platform.always(Fault::StallBody), 75, "", "", ""),
    row("half a body", |c| c.platform.always(Fault::HalfBody), 75, "", "", ""),
    row("down", |c| c.platform.always(Fault::Down), 75, "", "", ""),
    row("503", |c| c.platform.always(Fault::Status(503)), 75, "", "", ""),
    row("429", |c| c.platform.always(Fault::StatusWithRetryAfter(429, 1)), 75, "", "", ""),
    row("still pending", |c| c.platform.always(PlatformFault::Pending403), 75, "", "", ""),
    row(
        "redirect",
        |c| c.platform.always(Fault::Redirect("https://login.example.com".to_owned())),
        69,
        "no_identity",
        "the identity endpoint 127.0.0.1 answers with a redirect (status 302)",
        "final URL",
    ),
    row(
        "HTML",
        |c| c.platform.always(Fault::Html),
        69,
        "no_identity",
        "the identity endpoint: the answer is not application/json",
        "proxy",
    ),
    row(
        "wrong content type",
        |c| c.platform.always(Fault::WrongContentType),
        69,
        "no_identity",
        "the answer is not application/json",
        "proxy",
    ),
    row("no JSON", |c| c.platform.always(Fault::NotJson), 69, "no_identity", "not the JSON object", "proxy"),
    row("not UTF-8", |c| c.platform.always(Fault::NonUtf8), 69, "no_identity", "the answer is not UTF-8", "proxy"),
    row(
        "huge body",
        |c| c.platform.always(Fault::HugeBody),
        69,
        "no_identity",
        "sends more than 64 KiB",
        "answers in its place",
    ),
    row("401", |c| c.platform.always(Fault::Status(401)), 69, "no_identity", "answers status 401", "id-token: write"),
    row("404", |c| c.platform.always(Fault::Status(404)), 69, "no_identity", "answers status 404", "id-token: write"),
    row("no JWT in it", |c| c.platform.always(PlatformFault::NoJwt), 69, "no_identity", "is not a JWT", "proxy"),
    row(
        "an expired one",
        |c| c.platform.always(PlatformFault::Claims(json!({"exp": at(-400)}))),
        69,
        "no_identity",
        "expired",
        "clock",
    ),
    row(
        "for somebody else",
        |c| c.platform.always(PlatformFault::WrongAudience),
        69,
        "no_identity",
        "is made for \"https://somebody-else.example\"",
        "have the platform make",
    ),
    row(
        "for several",
        |c| c.platform.always(PlatformFault::ManyAudiences),
        69,
        "no_identity",
        "names 2 audiences",
        "alone",
    ),
];

const RESOURCE_METADATA: &[Row] = &[
    row(
        "HTML",
        |c| c.metadata_fault(Fault::Html),
        76,
        "refused",
        "the resource metadata at 127.0.0.1: the answer is not application/json",
        "must mend the document",
    ),
    row(
        "wrong content type",
        |c| c.metadata_fault(Fault::WrongContentType),
        76,
        "refused",
        "the answer is not application/json",
        "must mend the document",
    ),
    row(
        "no JSON",
        |c| c.metadata_fault(Fault::NotJson),
        76,
        "refused",
        "not the JSON object",
        "must mend the document",
    ),
    row(
        "not UTF-8",
        |c| c.metadata_fault(Fault::NonUtf8),
        76,
        "refused",
        "the answer is not UTF-8",
        "must mend the document",
    ),
    row(
        "huge",
        |c| c.metadata_fault(Fault::HugeBody),
        76,
        "refused",
        "the resource metadata: 127.0.0.1 sends more than 64 KiB",
        "",
    ),
    row(
        "half",
        |c| c.metadata_fault(Fault::HalfBody),
        75,
        "temporary",
        "the resource metadata: 127.0.0.1 breaks off",
        "",
    ),
    row(
        "redirect",
        |c| c.metadata_fault(Fault::Redirect("https://x.example".to_owned())),
        76,
        "refused",
        "the resource metadata: 127.0.0.1 answers with a redirect",
        "final URL",
    ),
    row(
        "500",
        |c| c.metadata_fault(Fault::Status(500)),
        75,
        "temporary",
        "the resource metadata at 127.0.0.1 answers status 500",
        "",
    ),
    row(
        "none at all",
        |c| {
            c.discovered();
            c.mcp.set_signposts(Signposts { header: None, inserted: false, root: false });
        },
        76,
        "refused",
        "publishes no protected resource metadata",
        "--issuer",
    ),
    row(
        "a resource that is no text",
        |c| c.metadata(json!({"resource": 7})),
        76,
        "refused",
        "the resource metadata",
        "must mend the document",
    ),
    row(
        "another resource",
        |c| c.metadata(json!({"resource": "https://mcp.example.com/mcp"})),
        76,
        "refused",
        "the resource metadata is for \"https://mcp.example.com/mcp\"",
        "RFC 9728",
    ),
    row(
        "a resource with dot segments",
        |c| {
            let url = format!("{}/../mcp", c.mcp.url());
            c.metadata(json!({"resource": url}));
        },
        76,
        "refused",
        "the resource metadata is for",
        "RFC 9728",
    ),
    row("no issuer in it", |c| c.metadata(json!({"authorization_servers": []})), 76, "refused", "", "--issuer"),
    row(
        "an issuer that is none",
        |c| c.metadata(json!({"authorization_servers": ["login"]})),
        76,
        "refused",
        "names \"login\" as its authorization server, which cannot be one",
        "must mend `authorization_servers`",
    ),
    row(
        "an issuer with a query",
        |c| c.metadata(json!({"authorization_servers": ["https://as.example.com/?tenant=1"]})),
        76,
        "refused",
        "it has a query",
        "must mend `authorization_servers`",
    ),
    row(
        "an issuer in clear",
        |c| c.metadata(json!({"authorization_servers": ["http://as.example.com"]})),
        76,
        "refused",
        "plain http is refused",
        "https",
    ),
    row(
        "several issuers",
        |c| c.metadata(json!({"authorization_servers": ["https://a.example", "https://b.example"]})),
        78,
        "config",
        "names several authorization servers",
        "--issuer",
    ),
    row(
        "scopes that are none",
        |c| c.metadata(json!({"scopes_supported": ["a b"]})),
        76,
        "refused",
        "scopes_supported",
        "must mend the document",
    ),
    row(
        "another issuer than the pin",
        |c| c.mcp.set_metadata(json!({"authorization_servers": ["https://other.example"]})),
        76,
        "refused",
        "is not among those the server names: https://other.example",
        "change `issuer`",
    ),
];

const SERVER_METADATA: &[Row] = &[
    row(
        "another issuer",
        |c| c.authorization_server.always_metadata(MetadataFault::WrongIssuer("https://other.example".to_owned())),
        76,
        "refused",
        "the server metadata is for issuer \"https://other.example\"",
        "RFC 8414",
    ),
    row(
        "no token endpoint",
        |c| c.authorization_server.always_metadata(MetadataFault::NoTokenEndpoint),
        76,
        "refused",
        "names no token_endpoint",
        "must mend the document",
    ),
    row(
        "a relative token endpoint",
        |c| c.authorization_server.always_metadata(MetadataFault::TokenEndpoint("/token".to_owned())),
        76,
        "refused",
        "token_endpoint is not a usable URL",
        "must mend the document",
    ),
    row(
        "a token endpoint with a password",
        |c| {
            c.authorization_server
                .always_metadata(MetadataFault::TokenEndpoint("https://a:b@as.example.com/token".to_owned()));
        },
        76,
        "refused",
        "token_endpoint is not a usable URL",
        "must mend the document",
    ),
    row(
        "a token endpoint in clear",
        |c| {
            c.authorization_server
                .always_metadata(MetadataFault::TokenEndpoint("http://as.example.com/token".to_owned()));
        },
        76,
        "refused",
        "plain http is refused",
        "https",
    ),
    row(
        "a token endpoint that is no text",
        |c| c.authorization_server.set_metadata(json!({"token_endpoint": 7})),
        76,
        "refused",
        "the server metadata",
        "must mend the document",
    ),
    row(
        "HTML",
        |c| c.authorization_server.always_metadata(Fault::Html),
        76,
        "refused",
        "the server metadata at 127.0.0.1: the answer is not application/json",
        "must mend the document",
    ),
    row(
        "wrong content type",
        |c| c.authorization_server.always_metadata(Fault::WrongContentType),
        76,
        "refused",
        "the answer is not application/json",
        "must mend the document",
    ),
    row(
        "no JSON",
        |c| c.authorization_server.always_metadata(Fault::NotJson),
        76,
        "refused",
        "not the JSON object",
        "must mend the document",
    ),
    row(
        "not UTF-8",
        |c| c.authorization_server.always_metadata(Fault::NonUtf8),
        76,
        "refused",
        "the answer is not UTF-8",
        "must mend the document",
    ),
    row(
        "huge",
        |c| c.authorization_server.always_metadata(Fault::HugeBody),
        76,
        "refused",
        "the server metadata: 127.0.0.1 sends more than 64 KiB",
        "",
    ),
    row(
        "half",
        |c| c.authorization_server.always_metadata(Fault::HalfBody),
        75,
        "temporary",
        "the server metadata: 127.0.0.1 breaks off",
        "",
    ),
    row(
        "redirect",
        |c| c.authorization_server.always_metadata(Fault::Redirect("https://x.example".to_owned())),
        76,
        "refused",
        "the server metadata: 127.0.0.1 answers with a redirect",
        "final URL",
    ),
    row(
        "503",
        |c| c.authorization_server.always_metadata(Fault::Status(503)),
        75,
        "temporary",
        "the server metadata at 127.0.0.1 answers status 503",
        "",
    ),
    row(
        "none at all",
        |c| c.authorization_server.always_metadata(Fault::Status(404)),
        76,
        "refused",
        "publishes no authorization server metadata",
        "check `issuer`",
    ),
    row("down", |c| c.authorization_server.set_down(true), 75, "temporary", "the server metadata: 127.0.0.1", ""),
    row(
        "a grant of another kind",
        |c| {
            c.discovered();
            c.authorization_server.set_grants(Some(&["authorization_code"]));
        },
        78,
        "config",
        "it lists: authorization_code",
        "exchange = \"jwt-bearer\"",
    ),
    row(
        "no word about grants",
        |c| {
            c.discovered();
            c.authorization_server.set_grants(None);
        },
        78,
        "config",
        "it lists: nothing",
        "exchange = \"jwt-bearer\"",
    ),
];

const TOKEN_ANSWER: &[Row] = &[
    row(
        "unknown token_type",
        |c| c.authorization_server.always_token(TokenFault::TokenType("MAC".to_owned())),
        76,
        "refused",
        "token_type is not Bearer",
        "RFC 6749",
    ),
    row(
        "DPoP unasked",
        |c| c.authorization_server.always_token(TokenFault::TokenType("DPoP".to_owned())),
        76,
        "refused",
        "no key of ours was named",
        "RFC 6749",
    ),
    row(
        "empty token_type",
        |c| c.authorization_server.always_token(TokenFault::TokenType(String::new())),
        76,
        "refused",
        "token_type is not Bearer",
        "RFC 6749",
    ),
    row(
        "zero life",
        |c| c.authorization_server.always_token(TokenFault::ExpiresIn(json!(0))),
        76,
        "refused",
        "expires_in is zero",
        "RFC 6749",
    ),
    row(
        "negative life",
        |c| c.authorization_server.always_token(TokenFault::ExpiresIn(json!(-5))),
        76,
        "refused",
        "expires_in as a positive number",
        "RFC 6749",
    ),
    row(
        "absurd life",
        |c| c.authorization_server.always_token(TokenFault::ExpiresIn(json!(99_999_999_999_u64))),
        76,
        "refused",
        "more than a year",
        "RFC 6749",
    ),
    row(
        "more than there are seconds",
        |c| c.authorization_server.always_token(TokenFault::ExpiresIn(json!(1.0e300))),
        76,
        "refused",
        "expires_in",
        "RFC 6749",
    ),
    row(
        "life in words",
        |c| c.authorization_server.always_token(TokenFault::ExpiresIn(json!("soon"))),
        76,
        "refused",
        "expires_in as a positive number",
        "RFC 6749",
    ),
    row(
        "an absurd life in the JWT alone",
        |c| {
            c.authorization_server.set_token_life(Duration::from_secs(9_223_372_036_000_000_000));
            c.authorization_server.always_token(TokenFault::NoExpiresIn);
        },
        76,
        "refused",
        "more than a year",
        "lifetime",
    ),
    row(
        "no token",
        |c| c.authorization_server.always_token(TokenFault::NoAccessToken),
        76,
        "refused",
        "access_token",
        "RFC 6749",
    ),
    row(
        "a token that is no header value",
        |c| c.authorization_server.always_token(TokenFault::BadTokenCharacters),
        76,
        "refused",
        "outside visible ASCII",
        "RFC 6749",
    ),
    row(
        "a token of 40 KiB",
        |c| c.authorization_server.always_token(TokenFault::HugeToken),
        76,
        "refused",
        "longer than 32 KiB",
        "RFC 6749",
    ),
    row(
        "scopes that are none",
        |c| c.authorization_server.always_token(TokenFault::ScopeGranted(Some("a\u{7}b".to_owned()))),
        76,
        "refused",
        "a scope may hold only visible ASCII",
        "RFC 6749",
    ),
    row(
        "wider scope than the ceiling",
        |c| c.authorization_server.always_token(TokenFault::ScopeGranted(Some("demo:read demo:admin".to_owned()))),
        77,
        "denied",
        "granted \"demo:admin\", which is beyond",
        "tolerate_scopes",
    ),
    row(
        "HTML",
        |c| c.authorization_server.always_token(Fault::Html),
        76,
        "refused",
        "the token answer of http://127.0.0.1",
        "RFC 6749",
    ),
    row(
        "wrong content type",
        |c| c.authorization_server.always_token(Fault::WrongContentType),
        76,
        "refused",
        "the answer is not application/json",
        "RFC 6749",
    ),
    row(
        "no JSON",
        |c| c.authorization_server.always_token(Fault::NotJson),
        76,
        "refused",
        "not the JSON object",
        "RFC 6749",
    ),
    row(
        "not UTF-8",
        |c| c.authorization_server.always_token(Fault::NonUtf8),
        76,
        "refused",
        "the answer is not UTF-8",
        "RFC 6749",
    ),
    row("huge", |c| c.authorization_server.always_token(Fault::HugeBody), 76, "refused", "sends more than 64 KiB", ""),
    row("half", |c| c.authorization_server.always_token(Fault::HalfBody), 75, "temporary", "breaks off", ""),
    row(
        "down",
        |c| c.authorization_server.always_token(Fault::Down),
        75,
        "temporary",
        "the token endpoint of http://127.0.0.1",
        "",
    ),
    row(
        "redirect",
        |c| c.authorization_server.always_token(Fault::Redirect("https://x.example".to_owned())),
        76,
        "refused",
        "answers with a redirect",
        "final URL",
    ),
    row(
        "404",
        |c| c.authorization_server.always_token(Fault::Status(404)),
        76,
        "refused",
        "status 404 without an OAuth error",
        "must mend",
    ),
    row(
        "400 without an error",
        |c| c.authorization_server.always_token(Fault::Status(400)),
        76,
        "refused",
        "status 400 without an OAuth error",
        "ask the operator",
    ),
    row("503", |c| c.authorization_server.always_token(Fault::Status(503)), 75, "temporary", "answers status 503", ""),
    row(
        "429",
        |c| c.authorization_server.always_token(Fault::StatusWithRetryAfter(429, 60)),
        75,
        "temporary",
        "answers status 429",
        "",
    ),
    row(
        "invalid_grant",
        |c| c.authorization_server.always_token(TokenFault::oauth("invalid_grant")),
        76,
        "refused",
        "refuses with invalid_grant",
        "whoami --audience",
    ),
    row(
        "invalid_target",
        |c| c.authorization_server.always_token(TokenFault::oauth("invalid_target")),
        76,
        "refused",
        "refuses with invalid_target",
        "`resource`",
    ),
    row(
        "invalid_scope",
        |c| c.authorization_server.always_token(TokenFault::oauth("invalid_scope")),
        76,
        "refused",
        "refuses with invalid_scope",
        "`scopes`",
    ),
    row(
        "invalid_client",
        |c| c.authorization_server.always_token(TokenFault::oauth("invalid_client")),
        76,
        "refused",
        "refuses with invalid_client",
        "`client_id`",
    ),
    row(
        "temporarily_unavailable",
        |c| c.authorization_server.always_token(TokenFault::oauth("temporarily_unavailable")),
        75,
        "temporary",
        "",
        "",
    ),
    row(
        "control characters in the error",
        |c| c.authorization_server.always_token(TokenFault::ControlCharsInDescription),
        76,
        "refused",
        "in its words: \"first line  ",
        "whoami --audience",
    ),
    row(
        "clocks five minutes apart, behind",
        |c| c.claims(json!({"exp": at(-200)})),
        76,
        "refused",
        "exp has passed",
        "both clocks",
    ),
    row(
        "clocks five minutes apart, ahead",
        |c| c.claims(json!({"iat": at(250), "nbf": at(250)})),
        76,
        "refused",
        "iat or nbf is ahead",
        "both clocks",
    ),
];

const SOCKET: &[Row] = &[
    row(
        "too long",
        |c| {
            let place = c.place(&"x".repeat(120));
            c.socket(&place);
        },
        78,
        "",
        "longer than the 103 bytes",
        "shorter path",
    ),
    row(
        "a file is there",
        |c| {
            let place = c.safeconduct.write("precious", "x").display().to_string();
            c.socket(&place);
        },
        78,
        "",
        "something else than a socket is there",
        "choose",
    ),
    row(
        "a directory is there",
        |c| {
            let place = c.place("home");
            c.socket(&place);
        },
        78,
        "",
        "something else than a socket is there",
        "choose",
    ),
    row(
        "a symlink is there",
        |c| {
            let place = c.place("link");
            std::os::unix::fs::symlink("/nonexistent", &place).expect("ours");
            c.socket(&place);
        },
        78,
        "",
        "something else than a socket is there",
        "choose",
    ),
    row(
        "no directory",
        |c| {
            let place = c.place("nowhere/safeconduct.sock");
            c.socket(&place);
        },
        78,
        "",
        "nowhere",
        "choose a directory",
    ),
    row(
        "a file for a directory",
        |c| {
            let place = c.safeconduct.write("file", "x").display().to_string();
            c.socket(&format!("{place}/safeconduct.sock"));
        },
        78,
        "",
        "",
        "choose a directory",
    ),
    row(
        "others can write the directory",
        |c| {
            std::fs::set_permissions(c.place("tmp"), std::fs::Permissions::from_mode(0o777)).expect("ours");
            let place = c.place("tmp/safeconduct.sock");
            c.socket(&place);
        },
        78,
        "",
        "others can write it (mode 0777)",
        "choose a directory",
    ),
    row(
        "the sticky bit does not help",
        |c| {
            std::fs::set_permissions(c.place("tmp"), std::fs::Permissions::from_mode(0o1777)).expect("ours");
            let place = c.place("tmp/safeconduct.sock");
            c.socket(&place);
        },
        78,
        "",
        "others can write it (mode 1777)",
        "choose a directory",
    ),
    row("relative", |c| c.socket("safeconduct.sock"), 78, "", "absolute", ""),
];

const ASKED_WRONGLY: &[Row] = &[
    row("no verb", |c| c.args(&[]), 64, "", "Usage", ""),
    row("unknown verb", |c| c.args(&["tokne", "demo"]), 64, "", "tokne", ""),
    row("unknown flag", |c| c.args(&["token", "demo", "--insecure"]), 64, "", "--insecure", ""),
    row("no target", |c| c.args(&["token"]), 64, "", "TARGET", ""),
    row("a target that is none", |c| c.args(&["token", "de mo"]), 64, "", "neither a name nor a URL", "https://"),
    row("an empty target", |c| c.args(&["token", ""]), 64, "", "neither a name nor a URL", "https://"),
    row(
        "a server nobody configured",
        |c| c.args(&["token", "dmeo"]),
        64,
        "",
        "no server is called \"dmeo\"",
        "configured: demo",
    ),
    row(
        "a target with a password",
        |c| c.args(&["token", "https://a:b@mcp.example.com"]),
        64,
        "",
        "user name or password",
        "",
    ),
    row("a target of another scheme", |c| c.args(&["token", "ftp://mcp.example.com"]), 64, "", "https is needed", ""),
    row("two scopes in one", |c| c.args(&["token", "demo", "--scope", "a b"]), 64, "", "is not one scope", ""),
    row("a time that is none", |c| c.args(&["token", "demo", "--timeout", "soon"]), 64, "", "--timeout", ""),
    row(
        "an issuer that is none",
        |c| c.args(&["token", "demo", "--issuer", "login"]),
        64,
        "",
        "--issuer cannot be used",
        "",
    ),
    row("an unknown form", |c| c.args(&["token", "demo", "-o", "yaml"]), 64, "", "yaml", ""),
    row(
        "with and without a daemon",
        |c| c.args(&["token", "demo", "--daemon-only", "--no-daemon"]),
        64,
        "",
        "--no-daemon",
        "",
    ),
    row(
        "an unknown log level",
        |c| c.safeconduct = c.safeconduct.clone().env("SAFECONDUCT_LOG", "loud"),
        64,
        "",
        "SAFECONDUCT_LOG is \"loud\"",
        "debug",
    ),
    row(
        "a daemon that is not there",
        |c| c.args(&["token", "demo", "--daemon-only"]),
        75,
        "",
        "no daemon is running",
        "safeconduct run",
    ),
    row(
        "scopes beyond the ceiling",
        |c| c.args(&["token", "demo", "--scope", "demo:admin"]),
        77,
        "",
        "scope \"demo:admin\" is beyond the ceiling",
        "raise `scopes`",
    ),
    row(
        "a caller that no rule names",
        |c| c.server.push_str("\nallow = [{ uid = 61234 }]"),
        77,
        "denied",
        "is not allowed to use this server",
        "allow = [{ uid =",
    ),
    row(
        "plain http to a server of one's own",
        |c| c.args(&["token", "http://mcp.example.com/mcp"]),
        76,
        "",
        "plain http is refused",
        "https",
    ),
    row(
        "a server for run without a name",
        |c| c.args(&["run", "https://mcp.example.com"]),
        64,
        "",
        "NAME=URL",
        "deploy=",
    ),
    row(
        "a server for run that is configured",
        |c| {
            let url = format!("demo={}", c.mcp.url());
            c.args(&["run", &url]);
        },
        64,
        "",
        "is configured already",
        "take it out",
    ),
];

#[tokio::test]
async fn configuration() {
    run(CONFIGURATION).await;
}

#[tokio::test]
async fn identity_file() {
    run(IDENTITY_FILE).await;
}

#[tokio::test]
async fn identity_endpoint() {
    run(PLATFORM).await;
}

#[tokio::test]
async fn resource_metadata() {
    run(RESOURCE_METADATA).await;
}

#[tokio::test]
async fn server_metadata() {
    run(SERVER_METADATA).await;
}

#[tokio::test]
async fn token_answer() {
    run(TOKEN_ANSWER).await;
}

#[tokio::test]
async fn socket_path() {
    run(SOCKET).await;
}

#[tokio::test]
async fn asked_wrongly() {
    run(ASKED_WRONGLY).await;
}

#[tokio::test]
async fn every_problem_of_a_configuration_is_reported_at_once_with_its_line() {
    let safeconduct = Safeconduct::new(binary());
    let toml = "[servers.a]\nurl = \"ftp://x\"\nscope = []\n[servers.b]\n[listen]\nsocket_mode = \"0777\"\n[egres]\n";
    let output = safeconduct.config(toml).run(&["config", "check"]).await.expect_code(78);
    assert_eq!(output.stdout, "");
    for words in [
        "5 problems",
        "line 2: servers.a.url",
        "line 3: servers.a.scope",
        "servers.b.url",
        "line 6: listen.socket_mode",
        "line 7: egres",
    ] {
        assert!(output.stderr.contains(words), "{words:?} is not in\n{}", output.stderr);
    }
}

/// How it is answered on the socket: status, class, code and words.
#[tokio::test]
async fn the_local_api_says_what_was_asked_wrongly() {
    let case = Case::new().await;
    let daemon = case.world().daemon(&[]).await;
    let asked = [
        ("/v1/token", 400, "bad_request", "`server` is missing"),
        ("/v1/token?server=", 400, "bad_request", "no server is called"),
        ("/v1/token?server=dmeo", 400, "bad_request", "no server is called \"dmeo\""),
        ("/v1/token?server=%1b%5b31m", 400, "bad_request", "no server is called"),
        ("/v1/token?server=%ff%fe", 400, "bad_request", "no server is called"),
        ("/v1/token?server=demo&server=demo", 400, "bad_request", "server is given twice"),
        ("/v1/token?server=demo&sever=x", 400, "bad_request", "unknown parameter"),
        ("/v1/token?server=demo&min_ttl=-1", 400, "bad_request", "`min_ttl` is a number"),
        ("/v1/token?server=demo&min_ttl=1e9", 400, "bad_request", "`min_ttl` is a number"),
        ("/v1/token?server=demo&min_ttl=99999999999999999999999", 400, "bad_request", "`min_ttl` is a number"),
        ("/v1/token?server=demo&fresh=yes", 400, "bad_request", "`fresh` is 0 or 1"),
        ("/v1/token?server=demo&use=agent", 400, "bad_request", "`use` can only be"),
        ("/v1/token?server=demo&scope=%22", 400, "bad_request", "visible ASCII"),
        ("/v1/token?server=demo&scope=demo:admin", 403, "denied", "beyond the ceiling"),
        ("/v1/token?server=https://mcp.example.com/mcp", 403, "denied", "is not a configured server"),
        ("/v1/token?server=ftp://mcp.example.com", 400, "bad_request", "https is needed"),
        ("/v1/token?server=https://a:b@mcp.example.com", 400, "bad_request", "user name or password"),
        ("/v1/headers?server=demo&url=nonsense", 400, "bad_request", "not an absolute URL"),
    ];
    for (path, status, class, words) in asked {
        let reply = daemon.get(path).await;
        let body = reply.json();
        assert_eq!((reply.status, body["class"].as_str()), (status, Some(class)), "{path}: {}", reply.body);
        let description = body["error_description"].as_str().unwrap_or_default();
        assert!(description.contains(words) && !description.chars().any(char::is_control), "{path}: {description:?}");
        assert_eq!(reply.header("cache-control"), Some("no-store"));
    }
    let digest = "0".repeat(64);
    let bodies = [
        json!({}),
        json!([]),
        json!({"server": "demo"}),
        json!({"server": 7, "access_token_sha256": digest}),
        json!({"server": "demo", "access_token_sha256": "abc"}),
        json!({"server": "demo", "access_token_sha256": "\u{20ac}".repeat(22)}),
        json!({"server": "demo", "access_token_sha256": digest, "more": 1}),
        json!({"server": "dmeo", "access_token_sha256": digest}),
    ];
    for body in bodies {
        assert_eq!(daemon.post("/v1/reject", &body).await.status, 400, "{body}");
    }
    let broken = "POST /v1/reject HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 4\r\n\r\n{\"a\"";
    assert_eq!(daemon.exchange(broken).await.status, 400);
    assert_eq!(case.platform.requests(), 0);
    // A digest of another token is ignored.
    daemon.token("demo").await;
    let other = json!({"server": "demo", "access_token_sha256": digest});
    assert_eq!(daemon.post("/v1/reject", &other).await.status, 204);
    daemon.token("demo").await;
    assert_eq!(case.authorization_server.token_requests(), 1);
}

#[tokio::test]
async fn a_second_daemon_goes_and_the_first_stays() {
    let case = Case::new().await;
    let world = case.world();
    let daemon = world.daemon(&[]).await;
    let second = world.run(&["run"]).await.expect_code(78);
    assert!(
        second.stderr.contains("another daemon already serves") && second.stderr.contains("hint: "),
        "{}",
        second.stderr
    );
    daemon.token("demo").await;
    // Nor does one that was killed stand in the way.
    daemon.signal(nix::sys::signal::Signal::SIGKILL);
    daemon.wait().await;
    assert!(world.socket().exists(), "a killed daemon leaves its socket");
    world.daemon(&[]).await.token("demo").await;
}

/// Not every oddity is an error.
#[tokio::test]
async fn what_is_odd_and_good_is_accepted() {
    type Odd = (&'static str, fn(&mut Case), fn(&Value) -> bool);
    let odd: &[Odd] = &[
        (
            "no expires_in: the JWT's life",
            |c| c.authorization_server.always_token(TokenFault::NoExpiresIn),
            |t| t["expires_in"].as_u64().is_some_and(|left| (590..=601).contains(&left)),
        ),
        (
            "expires_in beyond the JWT's life",
            |c| c.authorization_server.always_token(TokenFault::ExpiresIn(json!(86_400))),
            |t| t["expires_in"].as_u64().is_some_and(|left| left <= 601),
        ),
        (
            "expires_in short of the JWT's life",
            |c| c.authorization_server.always_token(TokenFault::ExpiresIn(json!(90))),
            |t| t["expires_in"].as_u64().is_some_and(|left| (80..=90).contains(&left)),
        ),
        (
            "an opaque token of a pinned issuer",
            |c| c.authorization_server.always_token(TokenFault::OpaqueToken),
            |t| t["expires_in"].as_u64().is_some_and(|left| left <= 600),
        ),
        (
            "bearer in lower case",
            |c| c.authorization_server.always_token(TokenFault::TokenType("bearer".to_owned())),
            |t| t["token_type"] == "Bearer",
        ),
        (
            "less than asked",
            |c| {
                c.args.extend(["--scope", "demo:read", "--scope", "demo:write"].map(str::to_owned));
                c.server.push_str("\ntolerate_scopes = [\"demo:write\"]");
                c.authorization_server.always_token(TokenFault::ScopeGranted(Some("demo:read".to_owned())));
            },
            |t| t["scope"] == "demo:read",
        ),
        (
            "no word about the scope",
            |c| c.authorization_server.always_token(TokenFault::ScopeGranted(None)),
            |t| t["scope"] == "demo:read",
        ),
        (
            "scopes of a login beyond the ceiling",
            |c| {
                c.authorization_server
                    .always_token(TokenFault::ScopeGranted(Some("demo:read openid profile email".to_owned())));
            },
            |t| t["scope"] == "demo:read email openid profile",
        ),
        (
            "resource metadata that is broken beside a pin",
            |c| c.mcp.always_metadata(Fault::Html),
            |t| t["scope"] == "demo:read",
        ),
        (
            "a file with blanks around the JWT",
            |c| {
                let jwt = c.platform.mint(&c.authorization_server.issuer(), LIFE);
                c.identity(format!("\n  {jwt}\r\n\n"));
            },
            |t| t["token_type"] == "Bearer",
        ),
        (
            "an expiry with a fraction",
            |c| c.claims(json!({"exp": keys::now() + 100.5})),
            |t| t["token_type"] == "Bearer",
        ),
        (
            "aud in a list of one",
            |c| {
                let aud = c.authorization_server.issuer();
                c.platform.always(PlatformFault::Claims(json!({"aud": [aud]})));
                c.authorization_server.script_token([TokenFault::NoExpiresIn]);
            },
            |_| true,
        ),
    ];
    for (name, set, good) in odd {
        let mut case = Case::new().await;
        set(&mut case);
        case.args.extend(["-o", "json"].map(str::to_owned));
        let args: Vec<&str> = case.args.iter().map(String::as_str).collect();
        let output = case.world().run(&args).await;
        if *name == "aud in a list of one" {
            // RFC 7519 lets it be a list; this authorization server does not. It is its word, not ours.
            assert!(output.stderr.contains("aud is missing or no string"), "{name}: {}", output.stderr);
            continue;
        }
        assert!(output.succeeded() && good(&output.json()), "{name}: {:?} {}", output.code, output.stderr);
        if *name == "less than asked" {
            assert!(output.stderr.contains("granted less than was asked for"), "{}", output.stderr);
        }
    }
}

/// The platform replaces the file by a rename while it is read: one version or the other, never a mixture.
#[tokio::test]
async fn an_identity_file_replaced_while_it_is_read_is_whole() {
    let mut case = Case::new().await;
    let issuer = case.authorization_server.issuer();
    case.identity(case.platform.mint(&issuer, LIFE));
    let (path, next) = (case.safeconduct.private("subject.jwt"), case.safeconduct.private("next.jwt"));
    let replace = |padding: usize| {
        let jwt = case.platform.mint_with(&issuer, LIFE, &json!({"padding": "x".repeat(padding)}));
        std::fs::write(&next, jwt).and_then(|()| std::fs::rename(&next, &path)).expect("ours");
    };
    let world = case.world();
    let platform = async {
        for round in 0.. {
            replace(round * 7919 % 20_000);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let asks = async {
        for round in 0..10 {
            // An assertion is good once.
            replace(round);
            world.run(&["token", "demo"]).await.expect_code(0);
        }
    };
    tokio::select! {
        () = platform => {}
        () = asks => {}
    }
    assert!(case.authorization_server.received().iter().all(|request| request.outcome == "ok"));
}

/// A bad renewal changes nothing that was good.
#[tokio::test]
async fn a_good_token_survives_every_bad_answer() {
    let case = Case::new().await;
    let daemon = case.world().daemon(&[]).await;
    let token = daemon.token("demo").await;
    let faults = [
        TokenFault::oauth("invalid_grant"),
        TokenFault::Wire(Fault::Status(500)),
        TokenFault::Wire(Fault::HugeBody),
        TokenFault::TokenType("MAC".to_owned()),
        TokenFault::Wire(Fault::HalfBody),
    ];
    for fault in faults {
        case.authorization_server.always_token(fault);
        let before = case.authorization_server.token_requests();
        // A token that was minted, or asked for, within the last second is fresh enough.
        until(LIMIT, "a new token is asked for", async || {
            let reply = daemon.get("/v1/token?server=demo&fresh=1").await;
            assert_eq!(reply.status, 200, "a forced renewal that fails gives the valid token: {}", reply.body);
            assert_eq!(reply.json()["access_token"], token.as_str());
            case.authorization_server.token_requests() > before
        })
        .await;
        assert_eq!(daemon.token("demo").await, token);
    }
}
