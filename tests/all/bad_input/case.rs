//! The cases of `tests/bad_input/GROUP.toml`: the input, and the expected outcome.
//!
//! Placeholders between `<<` and `>>`: `issuer`, `mcp` (the URL of the MCP server), `place` (the directory of the
//! case), `jwt` (a token that the authorization server accepts), `unsigned jwt` (the same without its signature), and `now` with
//! seconds after it, as `now-330`.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde::Deserialize;
use serde_json::Value;
use support::authorization_server::{MetadataFault, TokenFault};
use support::fault::Fault;
use support::keys;
use support::mcp_server::Signposts;
use support::platform::PlatformFault;

use super::World;

const LIFE: Duration = Duration::from_secs(300);

/// One case. The first fields are the input, in the order of the set-up.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    pub(super) name: String,
    /// A file in the directory of the case.
    file: Option<File>,
    /// A named pipe in it.
    pipe: Option<String>,
    /// A symbolic link in it, without a target.
    link: Option<String>,
    /// A file in it that gets this mode.
    open: Option<Open>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    unset: Vec<String>,
    /// The arguments, instead of `token demo`.
    args: Option<Vec<String>>,
    /// `config check` of this file.
    check: Option<String>,
    /// `config check` of one server with these lines and its URL.
    check_server: Option<String>,
    /// `run` with this socket, in the directory of the case.
    socket: Option<String>,
    /// Further lines of `[servers.demo]`.
    server: Option<String>,
    /// No issuer is pinned.
    #[serde(default)]
    discovered: bool,
    /// The path of the identity file.
    identity_at: Option<String>,
    /// The content of the identity file.
    identity: Option<String>,
    /// JSON: claims that replace those of the valid JWT in the identity file.
    claims: Option<String>,
    platform_fault: Option<PlatformFault>,
    /// JSON: members that replace those of the valid resource metadata.
    resource_metadata: Option<String>,
    resource_metadata_fault: Option<Fault>,
    /// Whether the MCP server's challenge names its metadata.
    signposts: Option<bool>,
    /// JSON: members that replace those of the valid server metadata.
    server_metadata: Option<String>,
    server_metadata_fault: Option<MetadataFault>,
    /// The grants in the server metadata.
    grants: Option<Vec<String>>,
    /// The server metadata lists no grants.
    #[serde(default)]
    no_grants: bool,
    /// The authorization server is down.
    #[serde(default)]
    down: bool,
    /// Seconds.
    token_life: Option<u64>,
    token_fault: Option<TokenFault>,
    /// The token answer has no `scope`.
    #[serde(default)]
    scope_unsaid: bool,

    /// The exit code.
    #[serde(default)]
    pub(super) exit: i32,
    /// The class in the daemon's answer. Without it the case does not run through a daemon.
    pub(super) class: Option<String>,
    /// A part of the message.
    #[serde(default)]
    pub(super) says: String,
    /// All problems of the configuration that the message lists, in its order: a part of each.
    pub(super) lists: Option<Vec<String>>,
    /// A part of the hint.
    #[serde(default)]
    pub(super) hint: String,

    /// For input that is accepted: the limits of `expires_in`.
    pub(super) expires_in: Option<[u64; 2]>,
    pub(super) scope: Option<String>,
    pub(super) token_type: Option<String>,
    /// A part of the log.
    pub(super) warns: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    at: String,
    #[serde(default)]
    text: String,
    /// Replaces a text.
    bytes: Option<Vec<u8>>,
    /// The number of repetitions.
    #[serde(default = "once")]
    times: usize,
    #[serde(default = "private")]
    mode: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Open {
    at: String,
    mode: u32,
}

fn once() -> usize {
    1
}

fn private() -> u32 {
    0o600
}

/// The cases of a group, with placeholders.
pub(super) fn group(name: &str) -> Vec<toml::Table> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Group {
        case: Vec<toml::Table>,
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/bad_input/{name}.toml"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let group: Group = toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(!group.case.is_empty(), "{name} has no case");
    group.case
}

impl Case {
    /// The case, with the placeholders replaced.
    pub(super) fn read(case: &toml::Table, world: &World) -> Self {
        let text = fill(&toml::to_string(case).expect("it was TOML"), world);
        toml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    /// Sets up the input.
    pub(super) fn give(&self, world: &mut World) {
        self.give_files(world);
        self.give_command(world);
        self.give_identity(world);
        self.give_servers(world);
    }

    fn give_files(&self, world: &World) {
        let place = world.safeconduct.path();
        if let Some(file) = &self.file {
            let bytes = file.bytes.clone().unwrap_or_else(|| file.text.clone().into_bytes());
            write(&place.join(&file.at), &bytes.repeat(file.times), file.mode);
        }
        if let Some(pipe) = &self.pipe {
            mkfifo(&place.join(pipe), Mode::S_IRWXU).expect("the place is ours");
        }
        if let Some(link) = &self.link {
            symlink("/nonexistent", place.join(link)).expect("the place is ours");
        }
        if let Some(open) = &self.open {
            fs::set_permissions(place.join(&open.at), Permissions::from_mode(open.mode)).expect("the place is ours");
        }
    }

    fn give_command(&self, world: &mut World) {
        for (name, value) in &self.env {
            world.safeconduct = world.safeconduct.clone().env(name, value);
        }
        for name in &self.unset {
            world.safeconduct = world.safeconduct.clone().without_env(name);
        }
        if let Some(args) = &self.args {
            world.args.clone_from(args);
        } else if self.exit == 75 {
            // Temporary failures are retried until the time limit.
            world.args(&["token", "demo", "--timeout", "8s"]);
        }
        if let Some(file) = &self.check {
            world.check(file);
        }
        if let Some(lines) = &self.check_server {
            world.check(&format!("[servers.demo]\nurl = \"https://mcp.example.com/mcp\"\n{lines}\n"));
        }
        if let Some(socket) = &self.socket {
            let socket = world.safeconduct.path().join(socket).display().to_string();
            world.args(&["run", "--socket", &socket]);
        }
        if self.discovered {
            world.server.clear();
        }
        if let Some(lines) = &self.server {
            world.server.push('\n');
            world.server.push_str(lines);
        }
    }

    fn give_identity(&self, world: &mut World) {
        if let Some(path) = &self.identity_at {
            world.identity_at(path);
        }
        if let Some(text) = &self.identity {
            world.identity(text);
        }
        if let Some(claims) = &self.claims {
            let issuer = world.authorization_server.issuer();
            let jwt = world.platform.mint_with(&issuer, LIFE, &json(claims));
            world.identity(jwt);
        }
        if let Some(fault) = &self.platform_fault {
            world.platform.always(fault.clone());
        }
    }

    fn give_servers(&self, world: &World) {
        let World { mcp, authorization_server, .. } = world;
        if let Some(over) = &self.resource_metadata {
            mcp.set_metadata(json(over));
        }
        if let Some(fault) = &self.resource_metadata_fault {
            mcp.always_metadata(fault.clone());
        }
        if self.signposts == Some(false) {
            mcp.set_signposts(Signposts { header: None, inserted: false, root: false });
        }
        if let Some(over) = &self.server_metadata {
            authorization_server.set_metadata(json(over));
        }
        if let Some(fault) = &self.server_metadata_fault {
            authorization_server.always_metadata(fault.clone());
        }
        if let Some(grants) = &self.grants {
            authorization_server.set_grants(Some(&grants.iter().map(String::as_str).collect::<Vec<_>>()));
        } else if self.no_grants {
            authorization_server.set_grants(None);
        }
        if self.down {
            authorization_server.set_down(true);
        }
        if let Some(seconds) = self.token_life {
            authorization_server.set_token_life(Duration::from_secs(seconds));
        }
        if let Some(fault) = &self.token_fault {
            authorization_server.always_token(fault.clone());
        } else if self.scope_unsaid {
            authorization_server.always_token(TokenFault::ScopeGranted(None));
        }
    }
}

fn write(path: &Path, bytes: &[u8], mode: u32) {
    fs::write(path, bytes).expect("the place is ours");
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("the place is ours");
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn fill(text: &str, world: &World) -> String {
    let issuer = world.authorization_server.issuer();
    let mut filled = text
        .replace("<<issuer>>", &issuer)
        .replace("<<mcp>>", &world.mcp.url())
        .replace("<<place>>", &world.safeconduct.path().display().to_string());
    if text.contains("jwt>>") {
        let jwt = world.platform.mint(&issuer, LIFE);
        let (unsigned, _) = jwt.rsplit_once('.').expect("a JWT has three parts");
        filled = filled.replace("<<jwt>>", &jwt).replace("<<unsigned jwt>>", &format!("{unsigned}."));
    }
    let mut parts = filled.split("<<now");
    let before = parts.next().unwrap_or_default().to_owned();
    parts.fold(before, |filled, part| {
        let (seconds, after) = part.split_once(">>").expect("<< has its >>");
        let seconds: i64 = seconds.parse().expect("seconds stand after now");
        format!("{filled}{}{after}", keys::now() as i64 + seconds)
    })
}
