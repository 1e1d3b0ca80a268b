//! What to paste into the configuration of an MCP client, so that it reaches a server with a token that safeconduct keeps fresh.
//!
//! Pure: from [`Facts`] to text. Each client gets the best way that it has. With a daemon that is, in this order: a helper command
//! that the client runs again when its token is refused; the daemon's socket, for clients that can dial one; OAuth's
//! `client_credentials`; else the bridge `safeconduct stdio`, which every client can start. Without a daemon it is the bridge: it
//! does the daemon's work, and says in its answers why there is no token. A snippet never contains a secret.
//!
//! A client is a variant of [`Client`] and a [`Row`] in a file of this room. Templates are data, because code that builds trees was
//! many times larger; what a user wrote goes into them by the encoders of `form.rs` alone.

use clap::ValueEnum;

use form::{fill, json, list, shell_word, yaml};

mod claude_code;
mod codex;
mod continue_dev;
mod copilot;
mod form;
mod github_actions;
mod gitlab_ci;
mod goose;
mod mcp_remote;
mod opencode;
mod python_sdk;
mod typescript_sdk;
mod usual;
mod vscode;
mod zed;

#[cfg(test)]
mod tests;

/// The clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Client {
    ClaudeCode,
    Codex,
    Gemini,
    Copilot,
    Vscode,
    Cursor,
    Windsurf,
    Zed,
    Goose,
    Opencode,
    Cline,
    Continue,
    McpRemote,
    PythonSdk,
    TypescriptSdk,
    GithubActions,
    GitlabCi,
}

/// What a snippet is made from.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// The path of this program.
    pub program: String,
    /// What comes before the command: where the daemon's socket or the configuration is, if that is not found by itself.
    pub flags: Vec<String>,
    /// It is for use without a daemon, whether or not one runs.
    pub no_daemon: bool,
    /// The server as the user wrote it: NAME, URL or NAME=URL.
    pub target: String,
    /// The URL in that, if there is one.
    pub url: Option<String>,
    /// The server's name.
    pub name: String,
    /// The server's authorization server, if it is known.
    pub issuer: Option<String>,
    /// The daemon that serves it.
    pub daemon: Option<Daemon>,
    /// Only the bridge will do.
    pub bridge: bool,
}

/// A daemon.
#[derive(Clone, Debug)]
pub(crate) struct Daemon {
    /// Its socket.
    pub socket: String,
    /// The URL of the MCP server itself.
    pub url: String,
    /// Its token endpoint on loopback, if it has one.
    pub oauth: Option<OAuth>,
}

/// A token endpoint for `client_credentials`.
#[derive(Clone, Debug)]
pub(crate) struct OAuth {
    /// Its URL.
    pub endpoint: String,
    /// The file with the server's `client_id` and `client_secret`.
    pub file: String,
}

/// What to paste, and where.
#[derive(Debug)]
pub(crate) struct Snippet {
    /// What to paste.
    pub text: String,
    /// Where the client looks for it.
    pub place: &'static str,
    /// What else there is to know, in one line.
    pub note: String,
}

/// Why there is no snippet.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` would not stay as it is: this client puts the value of a variable in its place")]
pub(crate) struct Replaced(&'static str);

/// A row of the table of clients. Templates and notes have the names of [`Facts::value`] in guillemets.
struct Row {
    /// Where the client looks for it.
    place: &'static str,
    /// What begins a text that the client replaces.
    replaces: &'static [&'static str],
    /// Does it take `$NAME` for a variable too?
    bare_variables: bool,
    /// A way of its own to the daemon, and what to know of it.
    direct: Option<(&'static str, &'static str)>,
    /// Does that way need the token endpoint?
    needs_oauth: bool,
    /// The bridge.
    bridge: &'static str,
    /// What to know of the bridge without a daemon.
    alone: &'static str,
}

/// Most clients: they hand on their variables, and read `${NAME}` in their configuration as a variable.
const USUAL: Row = Row {
    place: "",
    replaces: &["${"],
    bare_variables: false,
    direct: None,
    needs_oauth: false,
    bridge: usual::SERVERS,
    alone: "no daemon is presumed: what the client starts gets the token, with the identity in the client's variables",
};

const RELAYS: &str = "the client starts a small process that holds no token and relays to the running daemon";

impl Client {
    /// Is the snippet one of a CI job, which starts a daemon of its own?
    pub(crate) fn is_a_job(self) -> bool {
        matches!(self, Self::GithubActions | Self::GitlabCi)
    }

    fn row(self) -> &'static Row {
        match self {
            Self::ClaudeCode => &claude_code::ROW,
            Self::Codex => &codex::ROW,
            Self::Gemini => &usual::GEMINI,
            Self::Copilot => &copilot::ROW,
            Self::Vscode => &vscode::ROW,
            Self::Cursor => &usual::CURSOR,
            Self::Windsurf => &usual::WINDSURF,
            Self::Zed => &zed::ROW,
            Self::Goose => &goose::ROW,
            Self::Opencode => &opencode::ROW,
            Self::Cline => &usual::CLINE,
            Self::Continue => &continue_dev::ROW,
            Self::McpRemote => &mcp_remote::ROW,
            Self::PythonSdk => &python_sdk::ROW,
            Self::TypescriptSdk => &typescript_sdk::ROW,
            Self::GithubActions => &github_actions::ROW,
            Self::GitlabCi => &gitlab_ci::ROW,
        }
    }
}

/// The snippet for a client. Fails if the client would change a part of it.
pub(crate) fn of(client: Client, facts: &Facts) -> Result<Snippet, Replaced> {
    let row = client.row();
    let daemon = facts.daemon.as_ref().filter(|_| !facts.bridge);
    let daemon = daemon.filter(|daemon| !row.needs_oauth || daemon.oauth.is_some());
    let (template, note) = match (row.direct, daemon) {
        (Some(direct), Some(_)) => direct,
        _ if facts.daemon.is_some() && !client.is_a_job() && !row.needs_oauth => (row.bridge, RELAYS),
        _ => (row.bridge, row.alone),
    };
    let text = fill(template, facts);
    if let Some(start) = row.replaces.iter().find(|start| text.contains(*start)) {
        return Err(Replaced(start));
    }
    let is_variable = |at: usize| text[at + 1..].starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if row.bare_variables && text.match_indices('$').any(|(at, _)| is_variable(at)) {
        return Err(Replaced("$"));
    }
    Ok(Snippet { text, place: row.place, note: fill(note, facts) })
}

impl Facts {
    /// What a name in a template stands for, encoded for its place.
    fn value(&self, name: &str) -> String {
        let daemon = self.daemon.as_ref();
        let of_daemon = |part: fn(&Daemon) -> &str| daemon.map_or_else(String::new, |daemon| json(part(daemon)));
        let oauth = daemon.and_then(|daemon| daemon.oauth.as_ref());
        match name {
            "key" => json(&self.key()),
            "bare key" => self.key(),
            "program" => json(&self.program),
            "args" => list(&self.words("stdio")),
            "command" => {
                let mut words = self.words("stdio");
                words.insert(0, self.program.clone());
                list(&words)
            }
            "helper" => json(&self.helper()),
            "url" => of_daemon(|daemon| &daemon.url),
            "socket" => of_daemon(|daemon| &daemon.socket),
            "unix url" => json(&vscode::url(daemon.map_or("", |daemon| &daemon.socket), &self.name)),
            "proxy" => json(&format!("http://localhost/mcp/{}", self.name)),
            "endpoint" => oauth.map_or_else(String::new, |oauth| json(&oauth.endpoint)),
            "file" => oauth.map_or_else(String::new, |oauth| json(&format!("@{}", oauth.file))),
            "issuer" => self.issuer.as_deref().map_or_else(|| gitlab_ci::UNKNOWN.to_owned(), json),
            "finds issuer" if self.issuer.is_none() => {
                format!("`aud` is the issuer that `safeconduct doctor {}` finds; ", shell_word(&self.target))
            }
            "needs" if self.url.is_none() => {
                format!("the job needs the configuration file that has `{}` (SAFECONDUCT_CONFIG); ", self.name)
            }
            "finds issuer" | "needs" => String::new(),
            "start" => yaml(&self.start()),
            "configure github" => yaml(&self.configure("\"$RUNNER_TEMP/mcp.json\"")),
            "configure gitlab" => yaml(&self.configure("mcp.json")),
            other => {
                debug_assert!(false, "{other:?} stands for nothing");
                String::new()
            }
        }
    }

    /// The step of a CI job: its tokens are masked, renewed for the job's length, and revoked by `stop`.
    fn start(&self) -> String {
        // Without a URL the configuration of the job has it, and the issuer with it.
        let Some(url) = &self.url else { return format!("safeconduct ci {}", shell_word(&self.name)) };
        let issuer = self.issuer.as_ref().map(|issuer| format!("--issuer {} ", shell_word(issuer)));
        format!("safeconduct ci {}{}", issuer.unwrap_or_default(), shell_word(&format!("{}={url}", self.name)))
    }

    fn configure(&self, file: &str) -> String {
        format!("safeconduct snippet claude-code {} > {file}", shell_word(&self.name))
    }

    /// The name as a key. Some clients allow no full stop in the names of servers.
    fn key(&self) -> String {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        self.name.chars().map(|c| if is_plain(c) { c } else { '-' }).collect()
    }

    /// The words of a command on the server, without the program.
    fn words(&self, command: &str) -> Vec<String> {
        let mut words = self.flags.clone();
        words.push(command.to_owned());
        if self.no_daemon {
            words.push("--no-daemon".to_owned());
        }
        if self.target.starts_with('-') {
            // Else it would be read as a flag.
            words.push("--".to_owned());
        }
        words.push(self.target.clone());
        words
    }

    /// The helper as one text for a shell.
    fn helper(&self) -> String {
        let mut command = shell_word(&self.program);
        for word in self.words("headers") {
            command.push(' ');
            command.push_str(&shell_word(&word));
        }
        command
    }
}
