//! `safeconduct audit`: checks the chain of an audit file, or shows its last lines.

use std::fs::File;
use std::io::{BufReader, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::OFlag;
use serde_json::{Value, json};

use super::{Context, Failure, Printable, print, status};
use crate::audit::{Broken, Place, Report, Verifier};
use crate::broker::Class;
use crate::cli::{AuditVerb, AuditVerify};
use crate::env::open_regular;
use crate::token::Digest;

mod tail;

/// The exit code for a broken chain. It is not in sysexits, because it is a result and not a failure of this program.
const BROKEN: u8 = 1;
/// A line that is just being written looks torn for a moment.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const LOOKS: usize = 5;
/// How long the daemon may take to say which file it writes.
const LIMIT: Duration = Duration::from_secs(2);

pub(super) fn run(context: &Context<'_>, verb: &AuditVerb) -> Result<(), Failure> {
    match verb {
        AuditVerb::Verify(verb) => verify(context, verb),
        AuditVerb::Tail(verb) => tail::run(context, verb),
    }
}

/// The file that the daemon writes, else the configured one.
fn file(context: &Context<'_>) -> Result<PathBuf, Failure> {
    if context.global.config.is_none()
        && let Ok(reply) = context.ask_daemon("GET /v1/status", None, LIMIT)
        && let Ok(status) = status::read(&reply)
        && let Some(file) = status["audit"]["file"].as_str()
    {
        return Ok(file.into());
    }
    context.config()?.audit.map(|audit| audit.file).ok_or_else(|| {
        Failure::asked("no audit file is configured")
            .hint("name one, or set `file` in [audit]: `safeconduct audit verify FILE`")
    })
}

fn verify(context: &Context<'_>, verb: &AuditVerify) -> Result<(), Failure> {
    let files = if verb.files.is_empty() { vec![file(context)?] } else { verb.files.clone() };
    let wanted = match &verb.head {
        None => None,
        Some(text) if text.len() == 64 => Digest::parse(text),
        Some(_) => None,
    };
    if verb.head.is_some() && wanted.is_none() {
        return Err(Failure::asked("--head is not 64 hexadecimal digits").hint("`safeconduct status` shows the head"));
    }
    let outcome = check(&files, wanted)?;
    let verdict = Verdict { files: &files, wanted, outcome: &outcome };
    match verdict.failure() {
        None if verb.json => print(&Printable::json(&format!("{:#}\n", verdict.as_data()), context.env)),
        None => print(&Printable::text(&verdict.as_text(), context.env)),
        Some(mut failure) => {
            failure.exit = BROKEN;
            failure.json = verb.json.then(|| verdict.as_data().to_string().into());
            Err(failure)
        }
    }
}

fn check(files: &[PathBuf], wanted: Option<Digest>) -> Result<Result<Report, Broken>, Failure> {
    let mut looks = 1;
    loop {
        match check_once(files, wanted)? {
            Err(broken) if broken.code == "torn_end" && looks < LOOKS => std::thread::sleep(LOOK_AGAIN),
            outcome => return Ok(outcome),
        }
        looks += 1;
    }
}

fn check_once(files: &[PathBuf], wanted: Option<Digest>) -> Result<Result<Report, Broken>, Failure> {
    let mut verifier = Verifier::new(wanted);
    for path in files {
        let file = open(path)?;
        if let Err(broken) =
            verifier.read(BufReader::with_capacity(64 * 1024, file)).map_err(|error| unread(path, &error))?
        {
            return Ok(Err(broken));
        }
    }
    Ok(Ok(verifier.report()))
}

fn open(path: &Path) -> Result<File, Failure> {
    open_regular(path, File::options().read(true), OFlag::empty()).map_err(|error| unread(path, &error))
}

fn unread(path: &Path, error: &std::io::Error) -> Failure {
    let cure = match error.kind() {
        ErrorKind::NotFound => "check the path: `safeconduct status` shows the file of a running daemon",
        ErrorKind::PermissionDenied => "the file belongs to the daemon's user and is private: read it as that user",
        _ => "name a regular file, the one that `file` in [audit] names",
    };
    Failure::new(Class::Config, format!("{} cannot be read: {error}", path.display())).hint(cure)
}

/// The result for a chain.
struct Verdict<'a> {
    files: &'a [PathBuf],
    wanted: Option<Digest>,
    outcome: &'a Result<Report, Broken>,
}

impl Verdict<'_> {
    fn place(&self, place: &Place) -> String {
        let file = self.files.get(place.file).map(|path| path.display().to_string()).unwrap_or_default();
        format!("{file}: line {}", place.line)
    }

    fn lost(&self) -> bool {
        matches!(self.outcome, Ok(report) if self.wanted.is_some() && report.found.is_none())
    }

    fn failure(&self) -> Option<Failure> {
        match self.outcome {
            Err(broken) => {
                let message = format!("{}: the chain is broken: {}", self.place(&broken.at), broken.what);
                let hint = match broken.code {
                    "torn_end" => {
                        "if the power was lost, the daemon mends it when it starts; decisions may be missing at the end"
                    }
                    _ => "what stands before that line is whole; compare the file with a copy or a log server",
                };
                Some(Failure::new(Class::Internal, message).hint(hint))
            }
            Ok(_) if self.lost() => {
                let message = "the head that was given is not in the chain: its end was cut off, it was written anew, or it is another chain's";
                Some(
                    Failure::new(Class::Internal, message).hint("files of a rotation are given together, oldest first"),
                )
            }
            Ok(_) => None,
        }
    }

    fn as_text(&self) -> String {
        let Ok(report) = self.outcome else { return String::new() };
        let mut text = match &report.head {
            None => "empty: no line yet\n".to_owned(),
            Some(head) => format!("whole: {} lines\nhead  {}  (number {})\n", report.lines, head.hash.hex(), head.seq),
        };
        if let Some(continues) = &report.continues {
            text.push_str(&format!("note  continues the head {} of an earlier file\n", continues.hex()));
        }
        for (place, bytes) in &report.torn {
            text.push_str(&format!(
                "note  {}: {bytes} bytes are no whole line, as after a loss of power; the chain goes on behind them\n",
                self.place(place)
            ));
        }
        if report.torn_count > report.torn.len() as u64 {
            text.push_str(&format!("note  {} torn stretches in all\n", report.torn_count));
        }
        if let (Some(wanted), Some(place)) = (&self.wanted, &report.found) {
            let last = report.head.as_ref().is_some_and(|head| head.hash == *wanted);
            let how = if last { "it is the last line".to_owned() } else { "lines follow it".to_owned() };
            let place = if place.line == 0 { "before the first line".to_owned() } else { self.place(place) };
            text.push_str(&format!("given {}  ({place}; {how})\n", wanted.hex()));
        }
        text
    }

    fn as_data(&self) -> Value {
        let at = |place: &Place| json!({ "file": self.files.get(place.file), "line": place.line });
        match self.outcome {
            Err(broken) => {
                json!({ "ok": false, "error": broken.code, "error_description": broken.what, "at": at(&broken.at) })
            }
            Ok(report) => json!({
                "ok": !self.lost(),
                "error": self.lost().then_some("head_not_found"),
                "lines": report.lines,
                "seq": report.head.as_ref().map(|head| head.seq),
                "head": report.head.as_ref().map(|head| head.hash.hex()),
                "continues": report.continues.as_ref().map(Digest::hex),
                "found": report.found.as_ref().map(at),
                "torn": report.torn.iter().map(|(place, bytes)| json!({ "at": at(place), "bytes": bytes })).collect::<Vec<_>>(),
            }),
        }
    }
}
