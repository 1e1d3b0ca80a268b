//! The command lines of helpers and of the daemon, read without clap.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::{Cli, Get, Global, Headers, LogFormat, Run, Stdio, Token, TokenForm, Verb, Wishes};

/// Parses the usual calls, `[--socket PATH|--config FILE] token|headers|stdio|run [TARGET]` or `get`, without clap. Building clap's
/// command tree takes a quarter of a helper's call, and 0.2 MB of a daemon's memory for ever. Returns `None` for anything
/// else, which clap parses. A test checks that both give the same result.
pub(crate) fn usual_call(words: &[OsString]) -> Option<Cli> {
    // A word that is not UTF-8 reads as an option, which no usual call has here.
    let mut words = words.iter().map(|word| word.to_str().unwrap_or("-")).peekable();
    let plain = |word: &&str| !word.is_empty() && !word.starts_with('-');
    let mut path_of = |name| match words.next_if_eq(&name) {
        Some(_) => words.next_if(plain).map(|path| Some(PathBuf::from(path))),
        None => Some(None),
    };
    let (socket, config) = (path_of("--socket")?, path_of("--config")?);
    let (verb, target) = (words.next()?, words.next_if(plain).map(str::to_owned));
    let wishes = Wishes {
        scopes: Vec::new(),
        min_ttl: None,
        fresh: false,
        issuer: None,
        timeout: Duration::from_secs(30),
        no_daemon: false,
        daemon_only: false,
    };
    let verb = match (verb, target) {
        ("token", Some(target)) => Verb::Token(Token { target, output: TokenForm::Raw, no_mask: false, wishes }),
        ("headers", target) => Verb::Headers(Headers { target, wishes }),
        ("get", None) => Verb::Get(Get { wishes }),
        ("stdio", Some(target)) => Verb::Stdio(Stdio::usual(target)),
        ("run", server) => {
            Verb::Run(Run { servers: Vec::from_iter(server), detach: false, wait: None, detached: false })
        }
        _ => return None,
    };
    let global = Global {
        config,
        socket,
        log: None,
        log_format: LogFormat::Text,
        identity: None,
        identity_file: None,
        insecure_loopback: false,
    };
    words.next().is_none().then_some(Cli { global, verb })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn a_usual_call_is_read_as_clap_reads_it() {
        let cases = [
            "token deploy",
            "headers",
            "headers https://mcp.example.com/mcp",
            "get",
            "stdio deploy",
            "--socket /run/w.sock stdio a=https://mcp.example.com/mcp",
            "--socket /run/w.sock token a=https://mcp.example.com/mcp",
            "--socket /run/w.sock get",
            "run",
            "run deploy=https://mcp.example.com/mcp",
            "--config /etc/s.toml run",
            "--socket /run/w.sock --config /etc/s.toml token deploy",
        ];
        for case in cases {
            let words: Vec<OsString> = case.split(' ').map(OsString::from).collect();
            let quick = usual_call(&words).unwrap_or_else(|| panic!("{case} is a usual call"));
            let full = Cli::try_parse_from(["safeconduct"].into_iter().chain(case.split(' '))).expect("clap reads it");
            assert_eq!(format!("{quick:?}"), format!("{full:?}"), "{case}");
        }
    }

    #[test]
    fn what_is_no_usual_call_is_left_to_clap() {
        for case in [
            "",
            "token",
            "token a b",
            "stdio",
            "stdio --no-daemon a",
            "token --fresh a",
            "token -o json a",
            "get x",
            "status",
            "--help",
            "run --detach",
            "run a=https://a.example b=https://b.example",
            "--config",
            "--config --socket run",
            "--socket",
            "--socket /x",
            "--socket=/x token a",
            "token -",
            "--socket  token a",
            "--socket --no-daemon token a",
        ] {
            let words: Vec<OsString> = case.split(' ').map(OsString::from).collect();
            assert!(usual_call(&words).is_none(), "{case}");
        }
    }
}
