//! `safeconduct ci TARGET…`: one step of a CI job. It hands tokens to later steps and leaves a daemon behind that renews them.
//!
//! In this order, so that a failure leaves nothing: the runner, the targets and their guards, the files that the runner names; the
//! daemon in its new directory; all tokens; then masks, step outputs, summary. Until the outputs are written the daemon lives only
//! as long as this process.

use serde_json::json;
use zeroize::Zeroizing;

use super::obtain::{Refused, strange};
use super::output::{tell, tell_runner};
use super::{Context, Failure, Printable, print, status};
use crate::broker::Class;
use crate::cli::Ci;
use crate::door::{self, Place};
use crate::frontend::dialect::{Handed, variable_name};
use crate::runner::{self, Masks, Output, Outputs, Report, Runner, Served};
use background::Background;
use files::Files;
use step::Step;
use targets::Targeted;

mod background;
mod files;
mod masked;
mod refusal;
mod step;
mod targets;

/// The pause before a target is asked for again after a failure that may pass.
const AGAIN: std::time::Duration = std::time::Duration::from_millis(500);

pub(super) fn run(context: &Context<'_>, verb: &Ci) -> Result<(), Failure> {
    if let Some(directory) = &verb.detached {
        return background::serve(context, verb, directory);
    }
    crate::descriptors::close_inherited();
    let runner = runner(context)?;
    let (_, targets) = targets::read(context, verb)?;
    let mut files = Files::open(runner, context.env)?;
    let step = Step::make(context.env)?;
    let mut background = Background::start(context, verb, step)?;
    let held = match obtain(context, verb, &background, &targets) {
        Ok(held) => held,
        Err(refused) => {
            let (target, failure) = *refused;
            background.end();
            refusal::tell_of(context, verb, (&target, &failure), &mut files);
            return Err(failure);
        }
    };
    let handed = hand_out(context, runner, &background, &held, &mut files);
    match handed.and_then(|own_file| Ok((own_file, background.confirm()?))) {
        Ok((own_file, pid)) => report(context, verb, &held, (&background.socket, pid), own_file.as_deref()),
        Err(failure) => {
            background.end();
            Err(failure)
        }
    }
}

/// The runner of this job.
fn runner(context: &Context<'_>) -> Result<&'static Runner, Failure> {
    let found = runner::here(context.env).map_err(|ambiguous| {
        Failure::asked(ambiguous.to_string()).hint("unset those of the runner that this is no step of")
    })?;
    found.ok_or_else(|| {
        Failure::asked("this is no step of a CI runner that is known")
            .hint("`safeconduct exec TARGET -- COMMAND` runs a command with its tokens anywhere")
    })
}

/// A target whose token is in hand.
struct Held {
    target: Targeted,
    handed: Handed,
}

/// Gets the token of each target from the daemon. Fails with the first target that has none in time.
fn obtain(
    context: &Context<'_>,
    verb: &Ci,
    background: &Background,
    targets: &[Targeted],
) -> Result<Vec<Held>, Box<(String, Failure)>> {
    let clock = context.clock();
    let begun = clock.boot();
    let place = [Place { path: background.socket.clone(), named: true, of_step: false }];
    let mut is_told = false;
    let mut one = |target: &Targeted| loop {
        let left = verb.timeout.saturating_sub(clock.boot().since(begun)).max(AGAIN);
        let asked = door::ask(&place, &target.as_request(verb), None, context.env.uid(), left);
        let failure = match asked {
            Ok(reply) if reply.status == 200 => return Handed::read(&reply.body).ok_or_else(strange),
            Ok(reply) => Refused::read(&reply).map_or_else(strange, Refused::into_failure),
            Err(error) => error.into(),
        };
        if failure.exit != Class::Temporary.exit_code() || clock.boot().since(begun) + AGAIN > verb.timeout {
            return Err(failure);
        }
        if clock.boot().since(begun) > door::NOTICE && !is_told {
            is_told = true;
            context.tell_waiting(&failure.message);
        }
        std::thread::sleep(AGAIN);
    };
    let held = |target: &Targeted| {
        let handed = one(target).and_then(|handed| {
            targets::check_issuer(verb, &target.name, handed.issuer())?;
            // Refused where a runner would read a part of the token as a command.
            Printable::credential(handed.raw(), context.env)?;
            Ok(handed)
        });
        handed
            .map(|handed| Held { target: target.clone(), handed })
            .map_err(|failure| Box::new((target.name.clone(), failure)))
    };
    targets.iter().map(held).collect()
}

/// Masks first, then the outputs and the summary. Returns the path of our own file of outputs, if the runner has no better place.
fn hand_out(
    context: &Context<'_>,
    runner: &Runner,
    background: &Background,
    held: &[Held],
    files: &mut Files,
) -> Result<Option<std::path::PathBuf>, Failure> {
    for one in held {
        mask(context, runner.masks, &one.handed.raw())?;
    }
    let mut outputs = Vec::new();
    for Held { target, handed } in held {
        let name = variable_name(&target.name).to_ascii_lowercase();
        outputs.push(Output { name: format!("token_{name}"), value: handed.raw(), is_secret: true });
        outputs.push(open(&format!("expires_at_{name}"), handed.expires_at()));
    }
    let socket = background.socket.to_str().ok_or_else(|| {
        Failure::new(Class::Config, "the path of the job's directory is not UTF-8")
            .hint("choose another one for the runner's temporary files")
    })?;
    outputs.push(open("socket", socket));
    let text = runner.outputs.text(&outputs, files::random()?);
    let own = match runner.outputs {
        Outputs::Commands => tell_runner(&text).map(|()| None)?,
        Outputs::Heredoc(_) | Outputs::Shell(_) => files.write_outputs(&text).map(|()| None)?,
        Outputs::OwnFile => Some(background.step.write("outputs.env", &text)?),
    };
    let served: Vec<Served> = held.iter().map(Held::served).collect();
    let identity = identity(context, background);
    let summary = Report::Served { identity: &identity, targets: &served }.markdown();
    files.write_summary(context, &background.step, &summary);
    Ok(own)
}

fn open(name: &str, value: &str) -> Output {
    Output { name: name.to_owned(), value: Zeroizing::new(value.to_owned()), is_secret: false }
}

/// Hides the token in the log of the job from now on.
fn mask(context: &Context<'_>, masks: Masks, token: &str) -> Result<(), Failure> {
    match masks {
        Masks::Command { .. } => tell_runner(&masks.lines(token)),
        Masks::Program(words) => {
            if let Err(why) = masked::by_program(context.env, words, token) {
                let note =
                    format!("safeconduct: warning: `{}` {why}: the log does not hide the token\n", words.join(" "));
                tell(&Printable::text(&note, context.env));
            }
            Ok(())
        }
        Masks::None => Ok(()),
    }
}

/// With which identity, in words.
fn identity(context: &Context<'_>, background: &Background) -> String {
    let place = [Place { path: background.socket.clone(), named: true, of_step: false }];
    let status = status::ask_at(&place, context).map_err(Failure::from).and_then(|reply| status::read(&reply));
    status.ok().and_then(|status| Some(status["identity"]["source"].as_str()?.to_owned())).unwrap_or_default()
}

impl Held {
    fn served(&self) -> Served {
        Served {
            name: self.target.name.clone(),
            url: self.target.url.clone(),
            issuer: self.handed.issuer().to_owned(),
            scope: self.handed.scope().to_owned(),
            expires_at: self.handed.expires_at().to_owned(),
        }
    }
}

/// What people and scripts are told in the end.
fn report(
    context: &Context<'_>,
    verb: &Ci,
    held: &[Held],
    (socket, pid): (&std::path::Path, u32),
    own_file: Option<&std::path::Path>,
) -> Result<(), Failure> {
    let mut text = String::new();
    for Served { name, url, issuer, scope, expires_at } in held.iter().map(Held::served) {
        text.push_str(&format!(
            "safeconduct: {name}: token for {url} of {issuer} with scope {scope:?} until {expires_at}, renewed until the job ends\n"
        ));
    }
    text.push_str(&format!("safeconduct: socket {}, pid {pid}\n", socket.display()));
    tell(&Printable::text(&text, context.env));
    if verb.json {
        let targets = held.iter().map(|one| {
            let Served { name, url, issuer, scope, expires_at } = one.served();
            json!({ "name": name, "url": url, "issuer": issuer, "scope": scope, "expires_at": expires_at })
        });
        let document =
            json!({ "socket": socket, "pid": pid, "outputs": own_file, "targets": targets.collect::<Vec<_>>() });
        return print(&Printable::json(&format!("{document}\n"), context.env));
    }
    match own_file {
        // To be read by the shell that has started us.
        Some(file) => print(&Printable::text(&format!("{}\n", file.display()), context.env)),
        None => Ok(()),
    }
}
