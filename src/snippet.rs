//! What to paste into the configuration of an MCP client, so that it reaches a server with a token that safeconduct keeps fresh.
//!
//! Pure: from [`Facts`] to text. Each client gets the best way that it has. With a daemon that is, in this order: a helper command
//! that the client runs again when its token is refused; the daemon's socket, for clients that can dial one; OAuth's
//! `client_credentials`; else the bridge `safeconduct stdio`, which every client can start. Without a daemon it is the bridge: it
//! does the daemon's work, and says in its answers why there is no token. A snippet never contains a secret.
//!
//! A client is a variant of [`Client`], a row in [`Client::row`] and a function in a file of this room.

use std::borrow::Cow;

use clap::ValueEnum;

use form::{Key, Node, entry, list, table, text};

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
    pub note: Cow<'static, str>,
}

/// What a function of a client makes.
struct Page {
    text: String,
    note: Cow<'static, str>,
}

impl Page {
    fn new(text: String, note: impl Into<Cow<'static, str>>) -> Self {
        Self { text, note: note.into() }
    }
}

/// Why there is no snippet.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` would not stay as it is: this client puts the value of a variable in its place")]
pub(crate) struct Replaced(&'static str);

/// A row of the table of clients.
struct Row {
    place: &'static str,
    /// What begins a text that the client replaces.
    replaces: &'static [&'static str],
    /// Does it take `$NAME` for a variable too?
    bare_variables: bool,
    write: fn(&Facts) -> Page,
}

const fn row(place: &'static str, replaces: &'static [&'static str], write: fn(&Facts) -> Page) -> Row {
    Row { place, replaces, bare_variables: false, write }
}

impl Client {
    /// Is the snippet one of a CI job, which starts a daemon of its own?
    pub(crate) fn is_a_job(self) -> bool {
        matches!(self, Self::GithubActions | Self::GitlabCi)
    }

    fn row(self) -> Row {
        const VARIABLE: &[&str] = &["${"];
        match self {
            Self::ClaudeCode => row(
                ".mcp.json of the project, or a file for `claude --mcp-config`, which needs no approval",
                VARIABLE,
                claude_code::page,
            ),
            Self::Codex => row("~/.codex/config.toml", &[], codex::page),
            Self::Gemini => Row {
                bare_variables: true,
                ..row("~/.gemini/settings.json, or .gemini/settings.json of the project", VARIABLE, usual::gemini)
            },
            Self::Copilot => Row { bare_variables: true, ..row("~/.copilot/mcp-config.json", VARIABLE, copilot::page) },
            Self::Vscode => row(".vscode/mcp.json of the project, or the user's mcp.json", VARIABLE, vscode::page),
            Self::Cursor => row("~/.cursor/mcp.json, or .cursor/mcp.json of the project", VARIABLE, usual::page),
            Self::Windsurf => row("~/.codeium/windsurf/mcp_config.json", VARIABLE, usual::page),
            Self::Zed => row("~/.config/zed/settings.json", &[], zed::page),
            Self::Goose => Row { bare_variables: true, ..row("~/.config/goose/config.yaml", VARIABLE, goose::page) },
            Self::Opencode => row(
                "opencode.json of the project, or ~/.config/opencode/opencode.json",
                &["{env:", "{file:"],
                opencode::page,
            ),
            Self::Cline => row("cline_mcp_settings.json (CLI: in ~/.cline/data/settings)", VARIABLE, usual::page),
            Self::Continue => {
                row("a file of its own in .continue/mcpServers, or `cn --config FILE`", &["${{"], continue_dev::page)
            }
            Self::McpRemote => {
                row("the configuration of the client that starts mcp-remote", VARIABLE, mcp_remote::page)
            }
            Self::PythonSdk => row("your program (PyPI mcp 2)", &[], python_sdk::page),
            Self::TypescriptSdk => row("your program (npm @modelcontextprotocol/client 2)", &[], typescript_sdk::page),
            Self::GithubActions => row(
                "the job in .github/workflows/*.yml, after a step that installs safeconduct",
                &["${{"],
                github_actions::page,
            ),
            Self::GitlabCi => row(".gitlab-ci.yml, for an image with safeconduct", &["$[["], gitlab_ci::page),
        }
    }
}

/// The snippet for a client. Fails if the client would change a part of it.
pub(crate) fn of(client: Client, facts: &Facts) -> Result<Snippet, Replaced> {
    let row = client.row();
    let Page { text, note } = (row.write)(facts);
    if let Some(start) = row.replaces.iter().find(|start| text.contains(*start)) {
        return Err(Replaced(start));
    }
    let is_variable = |at: usize| text[at + 1..].starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if row.bare_variables && text.match_indices('$').any(|(at, _)| is_variable(at)) {
        return Err(Replaced("$"));
    }
    Ok(Snippet { text, place: row.place, note })
}

impl Facts {
    /// The name as a key. Some clients allow no full stop in the names of servers.
    fn key(&self) -> String {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        self.name.chars().map(|c| if is_plain(c) { c } else { '-' }).collect()
    }

    /// The words of a command on the server, without the program.
    fn words(&self, command: &'static str) -> Vec<Cow<'static, str>> {
        let flags = self.flags.iter().cloned().map(Cow::Owned);
        // Else it would be read as a flag.
        let end = self.target.starts_with('-').then_some("--");
        let command = [command].into_iter().chain(end).map(Cow::Borrowed);
        flags.chain(command).chain([Cow::Owned(self.target.clone())]).collect()
    }

    /// A command on the server as one text for a shell.
    fn shell(&self, command: &'static str) -> String {
        let words = self.words(command);
        let words = [Cow::Borrowed(self.program.as_str())].into_iter().chain(words);
        words.map(|word| shell_word(&word).into_owned()).collect::<Vec<_>>().join(" ")
    }

    /// The arguments of the bridge.
    fn bridge(&self) -> Node {
        list(self.words("stdio").into_iter().map(Node::Text))
    }

    /// The bridge in the fields of most clients.
    fn command_and_args(&self) -> [(Key, Node); 2] {
        [("command".into(), text(&self.program)), ("args".into(), self.bridge())]
    }

    /// The server at the daemon's proxy, for clients that dial its socket.
    fn proxy_path(&self) -> String {
        format!("/mcp/{}", self.name)
    }

    /// The daemon, for clients that have another way to it than the bridge.
    fn direct(&self) -> Option<&Daemon> {
        self.daemon.as_ref().filter(|_| !self.bridge)
    }

    /// What to know of a bridge: with a daemon, or alone.
    fn bridge_note(&self, alone: &'static str) -> &'static str {
        match &self.daemon {
            Some(_) => "the client starts a small process that holds no token and relays to the running daemon",
            None => alone,
        }
    }
}

/// For clients that hand on their variables.
const ALONE: &str =
    "no daemon is presumed: what the client starts gets the token, with the identity in the client's variables";

/// A word for a POSIX shell, in single quotes where it needs them.
fn shell_word(word: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=@%+,".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        return Cow::Borrowed(word);
    }
    Cow::Owned(format!("'{}'", word.replace('\'', r"'\''")))
}
