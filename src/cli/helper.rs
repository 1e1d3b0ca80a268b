//! The command lines of helpers, read without clap.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::{Cli, Get, Global, Headers, LogFormat, Stdio, Token, TokenForm, Verb, Wishes};

/// Parses the usual calls of clients, `[--socket PATH] token|headers|stdio [TARGET]` or `get`, without clap, because building clap's
/// command tree takes a quarter of the call. Returns `None` for anything else, which clap parses. A test checks that both give
/// the same result.
pub(crate) fn helper_call(words: &[OsString]) -> Option<Cli> {
    // A word that is not UTF-8 reads as an option, which no helper call has here.
    let mut words = words.iter().map(|word| word.to_str().unwrap_or("-")).peekable();
    let plain = |word: &&str| !word.is_empty() && !word.starts_with('-');
    let socket = match words.next_if_eq(&"--socket") {
        Some(_) => Some(PathBuf::from(words.next_if(plain)?)),
        None => None,
    };
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
        _ => return None,
    };
    let global = Global {
        config: None,
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
    fn a_helper_call_is_read_as_clap_reads_it() {
        let cases = [
            "token deploy",
            "headers",
            "headers https://mcp.example.com/mcp",
            "get",
            "stdio deploy",
            "--socket /run/w.sock stdio a=https://mcp.example.com/mcp",
            "--socket /run/w.sock token a=https://mcp.example.com/mcp",
            "--socket /run/w.sock get",
        ];
        for case in cases {
            let words: Vec<OsString> = case.split(' ').map(OsString::from).collect();
            let quick = helper_call(&words).unwrap_or_else(|| panic!("{case} is a helper call"));
            let full = Cli::try_parse_from(["safeconduct"].into_iter().chain(case.split(' '))).expect("clap reads it");
            assert_eq!(format!("{quick:?}"), format!("{full:?}"), "{case}");
        }
    }

    #[test]
    fn what_is_no_plain_helper_call_is_left_to_clap() {
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
            "--socket",
            "--socket /x",
            "--socket=/x token a",
            "token -",
            "--socket  token a",
            "--socket --no-daemon token a",
        ] {
            let words: Vec<OsString> = case.split(' ').map(OsString::from).collect();
            assert!(helper_call(&words).is_none(), "{case}");
        }
    }
}
