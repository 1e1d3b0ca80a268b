//! One file a verb. Data goes to stdout, everything else to stderr; on failure stdout stays empty.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use clap::error::ErrorKind;
use tokio::signal::unix::{SignalKind, signal};

use crate::broker::{self, Class};
use crate::cli::{self, Cli, Global, Level, LogFormat, Verb};
use crate::clock::Clock;
use crate::config::Config;
use crate::door;
use crate::env::Env;
use crate::oauth::quoted_words;
use crate::{app, config};

mod audit;
mod completions;
mod configuration;
mod doctor;
mod get;
mod headers;
mod obtain;
mod ready;
mod revoke;
mod run;
mod status;
mod token;
mod trust_policy;
mod whoami;

/// Runs the verb of the command line and turns its outcome into an exit code.
pub fn main() -> ExitCode {
    let exit = verb();
    // Stdout is line-buffered, so a last line without a line feed must be flushed.
    match std::io::stdout().flush() {
        Err(_) if exit == 0 => Class::Temporary.exit_code().into(),
        _ => exit.into(),
    }
}

fn verb() -> u8 {
    let env = Env::from_process();
    harden();
    let words: Option<Vec<String>> = std::env::args_os().skip(1).map(|word| word.into_string().ok()).collect();
    let cli = match words.as_deref().and_then(cli::helper_call).map_or_else(Cli::try_parse, Ok) {
        Ok(cli) => cli,
        Err(error) => return misunderstood(&error),
    };
    let context = Context { global: &cli.global, env: &env };
    let outcome = match &cli.verb {
        Verb::Token(verb) => token::run(&context, verb),
        Verb::Headers(verb) => headers::run(&context, verb),
        Verb::Get(verb) => get::run(&context, verb),
        Verb::Run(verb) => apart(|| run::run(&context, verb)),
        Verb::Ready(verb) => apart(|| ready::run(&context, verb)),
        Verb::Status(verb) => apart(|| status::run(&context, verb)),
        Verb::Revoke(verb) => apart(|| revoke::run(&context, verb)),
        Verb::Whoami(verb) => apart(|| whoami::run(&context, verb)),
        Verb::TrustPolicy(verb) => apart(|| trust_policy::run(&context, verb)),
        Verb::Audit(verb) => apart(|| audit::run(&context, verb)),
        Verb::Doctor(verb) => apart(|| doctor::run(&context, verb)),
        Verb::Config(verb) => apart(|| configuration::run(&context, verb)),
        Verb::Completions(verb) => apart(|| completions::run(verb)),
    };
    match outcome {
        Ok(()) => 0,
        Err(failure) => {
            failure.show(&env);
            failure.exit
        }
    }
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
        let mut config = Config::load(self.global.config.as_deref(), self.env)?;
        config.egress.insecure_loopback |= self.global.insecure_loopback;
        if let Some(file) = &self.global.identity_file {
            config.use_identity_file(file);
        } else if let Some(name) = &self.global.identity {
            config.use_identity(name).map_err(|known| {
                let message = format!("--identity {:?} is not known", quoted_words(name));
                Failure::asked(message).hint(format!("this version knows: {}", known.join(", ")))
            })?;
        }
        config
            .proxy_of(self.env)
            .map_err(|why| Failure::new(Class::Config, why).hint("mend it, or set `proxy` in [egress]"))?;
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
        let lines = fmt::layer().with_writer(Log { env: self.env.clone() }).with_target(false);
        let tty = std::io::IsTerminal::is_terminal(&std::io::stderr());
        let lines = match self.global.log_format {
            LogFormat::Text => lines.with_ansi(tty).with_filter(filter).boxed(),
            LogFormat::Json => lines.json().with_filter(filter).boxed(),
        };
        let set = registry().with(lines).try_init();
        set.map_err(|_| Failure::bug("the log is set up twice"))
    }

    /// Runs a future on a runtime with one thread, for commands and the daemon: serving a token is quicker than waking a second
    /// thread. Blocking work (DNS, root certificates, keyrings) goes to the blocking pool.
    fn block_on<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let mut outcome = None;
        drive(std::pin::pin!(async { outcome = Some(work.await) }))?;
        outcome.unwrap_or_else(|| Err(Failure::bug("the work ended without an outcome")))
    }

    fn clock(&self) -> Clock {
        Clock::system()
    }

    /// Asks the daemon for a JSON document that holds no token.
    fn ask_daemon(&self, request: &str, body: Option<&str>, limit: Duration) -> Result<door::Reply, door::Error> {
        let places = door::places(self.global.socket.as_ref(), self.env);
        door::ask(&places, request, body, self.env.uid(), limit)
    }
}

/// Uses `dyn Future`, because the runtime's loop is compiled again for every future type, 17 KB each.
fn drive(work: std::pin::Pin<&mut dyn Future<Output = ()>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::bug(format!("no runtime: {error}")))?;
    // A closed log pipe must not end the daemon: with a handler for SIGPIPE the write fails instead.
    let entered = runtime.enter();
    let handled = signal(SignalKind::pipe()).map_err(|error| Failure::bug(format!("no signal handler: {error}")))?;
    drop((handled, entered));
    runtime.block_on(work);
    // Do not wait for a thread that a silent DNS server blocks.
    runtime.shutdown_background();
    Ok(())
}

/// Why a command failed: the message, the cure, and the exit code.
pub(crate) struct Failure {
    exit: u8,
    message: String,
    hint: Option<String>,
    /// For `--json`: printed to stderr instead of the text.
    json: Option<String>,
    /// Lines to print before the text: the evidence that was found.
    seen: String,
}

impl Failure {
    fn new(class: Class, message: impl Into<String>) -> Self {
        Self { exit: class.exit_code(), message: message.into(), hint: None, json: None, seen: String::new() }
    }

    fn asked(message: impl Into<String>) -> Self {
        Self::new(Class::BadRequest, message)
    }

    fn bug(message: impl Into<String>) -> Self {
        Self::new(Class::Internal, message)
    }

    fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    fn hint_maybe(self, hint: Option<String>) -> Self {
        Self { hint, ..self }
    }

    fn show(&self, env: &Env) {
        let mut text = match &self.json {
            Some(json) => format!("{json}\n"),
            None => format!("{}safeconduct: error: {}\n", self.seen, self.message),
        };
        if let (Some(hint), None) = (&self.hint, &self.json) {
            text.push_str(&format!("safeconduct: hint: {hint}\n"));
        }
        // If stderr is closed, there is no other place to report it.
        drop(std::io::stderr().write_all(for_runner(&text, env).as_bytes()));
    }
}

/// Writes log lines to stderr, with other parties' text neutralised for CI runners.
struct Log {
    env: Env,
}

struct Line<'a>(&'a Env);

impl<'a> tracing_subscriber::fmt::MakeWriter<'a> for Log {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(&self.env)
    }
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        // The subscriber writes whole lines, so no runner command is split over two writes. Ignore a failed write, as on a full
        // disk: the subscriber would report it on stderr too, and panic.
        drop(std::io::stderr().write_all(for_runner(&String::from_utf8_lossy(line), self.0).as_bytes()));
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

/// Neutralises JSON, where an escape does not change the meaning. Outside of strings JSON has none of these characters.
fn json_for_runner(text: &str, env: &Env) -> String {
    if !in_ci(env) {
        return text.to_owned();
    }
    text.replace("::", ":\\u003a").replace("##", "#\\u0023")
}

fn in_ci(env: &Env) -> bool {
    ["CI", "GITHUB_ACTIONS", "TF_BUILD"].iter().any(|name| env.get(name).is_some())
}

/// Neutralises text for CI runners, which read commands from the output of steps: another party's text must not become one.
fn for_runner(text: &str, env: &Env) -> String {
    if !in_ci(env) {
        return text.to_owned();
    }
    let mut text = text.to_owned();
    for (command, harmless) in [("::", ": :"), ("##[", "# #["), ("##vso[", "# #vso[")] {
        // Repeat: removing two of three colons leaves a new pair.
        while text.contains(command) {
            text = text.replace(command, harmless);
        }
    }
    text
}

impl From<broker::Error> for Failure {
    fn from(error: broker::Error) -> Self {
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
            config::Error::File { .. } => {
                "name a file that we can read with `--config`; without one, the file is looked for below HOME and in /etc/safeconduct"
            }
            config::Error::Problems { .. } => {
                "`safeconduct config schema` lists every key, `safeconduct config init` prints a starter file"
            }
        };
        Self::new(Class::Config, error.to_string()).hint(hint)
    }
}

impl From<door::Error> for Failure {
    fn from(error: door::Error) -> Self {
        let (class, hint) = match &error {
            door::Error::Absent { .. } => (
                Class::Temporary,
                "start it with `safeconduct run`, or name its socket with `--socket` or SAFECONDUCT_SOCKET",
            ),
            door::Error::Forbidden { .. } => (
                Class::Denied,
                "the daemon's `socket_mode` and `socket_group` decide who may connect; `--no-daemon` does the work here",
            ),
            door::Error::Foreign { .. } => (Class::Denied, "if that daemon is meant, name its socket with `--socket`"),
            door::Error::TimedOut { .. } => (Class::Temporary, "look at its log; `--timeout` gives it longer"),
            door::Error::Strange { .. } => {
                (Class::Config, "another program listens there: check `--socket` and SAFECONDUCT_SOCKET")
            }
        };
        Self::new(class, error.to_string()).hint(hint)
    }
}

/// Writes data to stdout. Fails if the reader has closed it.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Failure::new(Class::Temporary, format!("stdout cannot be written: {error}")))
}

fn misunderstood(error: &clap::Error) -> u8 {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            drop(error.print());
            0
        }
        kind => {
            // Without a command clap shows only the help; its other messages begin with `error: `.
            let helps = kind == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
            let start = if helps { "error: no command is given\n\n" } else { "" };
            drop(std::io::stderr().write_all(format!("safeconduct: {start}{}", error.render()).as_bytes()));
            Class::BadRequest.exit_code()
        }
    }
}

/// Disables core dumps, which would contain every token.
fn harden() {
    use nix::sys::resource::{Resource, setrlimit};
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_dumpable(false);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_runners_are_neutralised_in_ci_alone() {
        let ci = Env::from_vars([("GITHUB_ACTIONS".to_owned(), "true".to_owned())]);
        assert_eq!(for_runner("a ::set-env x ##vso[b] ##[c]", &ci), "a : :set-env x # #vso[b] # #[c]");
        assert_eq!(for_runner(":::x:::", &ci), ": : :x: : :");
        let json = json_for_runner(r#"{"a":":::x ##vso[b] ##[c]"}"#, &ci);
        assert!(!json.contains("::") && !json.contains("##"), "{json}");
        let read: serde_json::Value = serde_json::from_str(&json).expect("still JSON");
        assert_eq!(read["a"], ":::x ##vso[b] ##[c]");
        assert_eq!(for_runner("a ::b", &Env::from_vars([])), "a ::b");
    }
}
