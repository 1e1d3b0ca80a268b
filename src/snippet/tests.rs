//! Every client with and without a daemon against `tests/snippets/`, and texts that want to be more than a text.
//!
//! `SNIPPETS=overwrite cargo test --lib snippet` writes the files again; read the difference as a user would.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;
use serde_json::Value;

use super::*;

const SOCKET: &str = "/run/user/1000/safeconduct/safeconduct.sock";

/// How a client's snippet is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Toml,
    Yaml,
    Python,
    TypeScript,
}

fn form(client: Client) -> Form {
    match client {
        Client::Codex => Form::Toml,
        Client::Goose | Client::Continue | Client::GithubActions | Client::GitlabCi => Form::Yaml,
        Client::PythonSdk => Form::Python,
        Client::TypescriptSdk => Form::TypeScript,
        _ => Form::Json,
    }
}

fn ending(form: Form) -> &'static str {
    match form {
        Form::Json => "json",
        Form::Toml => "toml",
        Form::Yaml => "yaml",
        Form::Python => "py",
        Form::TypeScript => "ts",
    }
}

fn name(client: Client) -> String {
    client.to_possible_value().expect("none is hidden").get_name().to_owned()
}

/// Without a daemon, and the server given by its URL.
fn alone() -> Facts {
    let url = "https://mcp.example.com/mcp";
    Facts {
        program: "/usr/bin/safeconduct".to_owned(),
        flags: Vec::new(),
        no_daemon: false,
        target: url.to_owned(),
        url: Some(url.to_owned()),
        name: "mcp.example.com".to_owned(),
        issuer: None,
        daemon: None,
        bridge: false,
    }
}

/// With a daemon that serves it as `deploy`, on a socket that is found by itself.
fn with_daemon() -> Facts {
    let oauth = OAuth {
        endpoint: "http://127.0.0.1:8400/oauth/token".to_owned(),
        file: "/run/user/1000/safeconduct/oauth/deploy.json".to_owned(),
    };
    let daemon =
        Daemon { socket: SOCKET.to_owned(), url: "https://mcp.example.com/mcp".to_owned(), oauth: Some(oauth) };
    Facts {
        target: "deploy".to_owned(),
        url: None,
        name: "deploy".to_owned(),
        issuer: Some("https://issuer.example.com".to_owned()),
        daemon: Some(daemon),
        ..alone()
    }
}

/// The same on a socket that has to be named.
fn elsewhere() -> Facts {
    Facts { flags: vec!["--socket".to_owned(), SOCKET.to_owned()], ..with_daemon() }
}

#[expect(clippy::disallowed_methods, reason = "the developer's own wish, not an input of the program")]
fn is_to_overwrite() -> bool {
    std::env::var("SNIPPETS").is_ok_and(|wish| wish == "overwrite")
}

#[test]
fn every_client_gets_what_its_files_say_with_and_without_a_daemon() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snippets");
    let mut expected = BTreeSet::new();
    for client in Client::value_variants() {
        for (case, facts) in [("daemon", with_daemon()), ("socket", elsewhere()), ("alone", alone())] {
            let made = of(*client, &facts).expect("it is made");
            let path = folder.join(format!("{}.{case}.{}", name(*client), ending(form(*client))));
            if is_to_overwrite() {
                fs::write(&path, &made.text).expect("written");
            }
            let golden = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert_eq!(made.text, golden, "{}", path.display());
            assert!(!made.place.contains('\n') && !made.note.contains('\n'), "each is one line");
            expected.insert(path);
        }
    }
    let found: BTreeSet<PathBuf> =
        fs::read_dir(&folder).expect("it is there").map(|entry| entry.expect("readable").path()).collect();
    assert_eq!(found, expected, "the files and the clients");
}

/// All texts of a snippet, as its reader has them.
fn texts(form: Form, text: &str) -> Vec<String> {
    match form {
        Form::Json => in_json(&serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))),
        Form::Toml => {
            let table: toml::Table = text.parse().unwrap_or_else(|error| panic!("{error}\n{text}"));
            in_json(&serde_json::to_value(table).expect("JSON"))
        }
        // Each text of a user is one JSON text.
        Form::Yaml => {
            let quoted = text.lines().filter_map(|line| Some(&line[line.find(['"', '\'', '['])?..]));
            let quoted = quoted.filter(|rest| !rest.ends_with(':'));
            let read = |rest: &str| match rest.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
                Some(inner) => vec![inner.replace("''", "'")],
                None => in_json(&serde_json::from_str(rest).unwrap_or_else(|error| panic!("{error}: {rest}"))),
            };
            quoted.flat_map(read).collect()
        }
        Form::Python | Form::TypeScript => {
            let starts = text.match_indices(['"', '[']).map(|(at, _)| &text[at..]);
            let values = starts.filter_map(|rest| {
                serde_json::Deserializer::from_str(rest).into_iter::<Value>().next().and_then(Result::ok)
            });
            values.flat_map(|value| in_json(&value)).collect()
        }
    }
}

fn in_json(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => items.iter().flat_map(in_json).collect(),
        Value::Object(fields) => fields.values().flat_map(in_json).collect(),
        _ => Vec::new(),
    }
}

/// What a shell makes of a command: its words, or nothing if it is none.
fn words_for_a_shell(command: &str) -> Vec<String> {
    let output = Command::new("/bin/sh").arg("-c").arg(format!("printf '%s\\0' {command}")).output().expect("sh runs");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.split_terminator('\0').map(str::to_owned).collect()
}

/// The bridge is there for each, and is the same as without a daemon.
#[test]
fn every_client_can_have_the_bridge() {
    for client in Client::value_variants().iter().filter(|client| !client.is_a_job()) {
        let text = |facts: Facts| of(*client, &facts).expect("it is made").text;
        let bridge = text(Facts { bridge: true, ..elsewhere() });
        assert_eq!(bridge, text(Facts { daemon: None, ..elsewhere() }), "{client:?}");
        assert!(texts(form(*client), &bridge).iter().any(|text| text == SOCKET), "{client:?}: {bridge}");
    }
}

#[test]
fn every_snippet_is_read_by_a_reader_of_its_form() {
    for client in Client::value_variants() {
        for facts in [with_daemon(), elsewhere(), alone()] {
            let made = of(*client, &facts).expect("it is made");
            assert!(!texts(form(*client), &made.text).is_empty(), "{}", made.text);
        }
    }
}

/// Quotes, commands, blanks, backslashes and line feeds, in what a user writes and in paths.
#[test]
fn no_text_becomes_more_than_a_text() {
    let target = r#"https://mcp.example.com/a'b"c;$(touch /x)`id`&<d>|\ #: {e}[*]!~"#;
    let program = "/opt/o'b \"r\\ien\n$(id)/safeconduct";
    let socket = "/run/my 'own' \"dir\"\\\t/s.sock";
    for client in Client::value_variants() {
        let daemon = Daemon { socket: socket.to_owned(), url: target.to_owned(), oauth: None };
        for daemon in [None, Some(daemon)] {
            let flags = daemon.iter().flat_map(|_| ["--socket".to_owned(), socket.to_owned()]).collect();
            let facts = Facts {
                program: program.to_owned(),
                target: target.to_owned(),
                url: Some(target.to_owned()),
                flags,
                no_daemon: false,
                daemon,
                ..alone()
            };
            let made = of(*client, &facts).unwrap_or_else(|error| panic!("{client:?}: {error}"));
            let mut texts = texts(form(*client), &made.text);
            let commands = texts.iter().filter(|text| text.contains(" headers ") || text.starts_with("safeconduct "));
            let commands: Vec<String> =
                commands.map(|text| text.split(" > ").next().unwrap_or(text).to_owned()).collect();
            texts.extend(commands.iter().flat_map(|command| words_for_a_shell(command)));
            let has = |wanted: &str| texts.iter().any(|text| text == wanted);
            let dials = facts.daemon.is_some()
                && matches!(client, Client::Vscode | Client::Goose | Client::PythonSdk | Client::TypescriptSdk);
            if client.is_a_job() {
                assert!(has(&format!("mcp.example.com={target}")), "{client:?}: {}", made.text);
            } else if !dials {
                assert!(has(target) && has(program), "{client:?}: {}", made.text);
                assert_eq!(has(socket), facts.daemon.is_some(), "{client:?}: {}", made.text);
            } else if *client == Client::Vscode {
                let url = "unix:///run/my%20'own'%20%22dir%22%5C%09/s.sock#/mcp/mcp.example.com";
                assert!(has(url), "{}", made.text);
            } else {
                assert!(has(socket), "{client:?}: {}", made.text);
            }
        }
    }
}

#[test]
fn a_text_that_the_client_would_replace_is_refused() {
    let with = |client, text: &str| {
        let target = format!("https://mcp.example.com/{text}");
        of(client, &Facts { url: Some(target.clone()), target, ..alone() })
    };
    for (client, text) in [
        (Client::ClaudeCode, "${HOME}"),
        (Client::Gemini, "$HOME"),
        (Client::Gemini, "a?${HOME}"),
        (Client::Copilot, "$_x"),
        (Client::Goose, "$HOME"),
        (Client::Cursor, "${env:HOME}"),
        (Client::Opencode, "{env:HOME}"),
        (Client::Opencode, "{file:x}"),
        (Client::Continue, "${{ secrets.X }}"),
        (Client::GithubActions, "${{ github.token }}"),
        (Client::GitlabCi, "$[[ inputs.x ]]"),
    ] {
        assert!(with(client, text).is_err(), "{client:?} {text}");
    }
    for (client, text) in [
        (Client::ClaudeCode, "$HOME"),
        (Client::Gemini, "$1"),
        (Client::Gemini, "a$"),
        (Client::Codex, "${HOME}"),
        (Client::Opencode, "${HOME}"),
        (Client::PythonSdk, "${HOME}"),
    ] {
        assert!(with(client, text).is_ok(), "{client:?} {text}");
    }
    // What is not in the snippet does not matter.
    let mut named = with_daemon();
    named.daemon.iter_mut().for_each(|daemon| daemon.url = "https://mcp.example.com/${HOME}".to_owned());
    assert!(of(Client::Cursor, &named).is_ok() && of(Client::ClaudeCode, &named).is_err());
}

/// A name may begin with a hyphen, and a host may be an address.
#[test]
fn a_name_is_neither_a_flag_nor_a_key_that_needs_quotes() {
    let facts = Facts { target: "-x".to_owned(), name: "a.b".to_owned(), ..with_daemon() };
    let made = of(Client::Codex, &facts).expect("it is made");
    assert!(made.text.starts_with("[mcp_servers.a-b]\n"), "{}", made.text);
    assert!(made.text.contains("safeconduct headers -- -x"), "{}", made.text);
    assert_eq!(Facts { name: "[::1]".to_owned(), ..alone() }.key(), "---1-");
}
