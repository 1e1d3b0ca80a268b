//! The files that the runner names for outputs and summary. They are opened before anything else happens: what is no plain file is
//! refused while there is nothing to take back.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;

use super::super::output::{tell, tell_runner};
use super::super::{Context, Failure, Printable};
use super::step::Step;
use crate::broker::Class;
use crate::env::{Env, open_regular};
use crate::runner::{Outputs, Runner, Summary};

pub(super) struct Files {
    outputs: Option<File>,
    summary: Option<File>,
    upload: Option<&'static str>,
}

impl Files {
    /// Fails if the file for outputs is not named or cannot be used, or that for the summary cannot.
    pub(super) fn open(runner: &Runner, env: &Env) -> Result<Self, Failure> {
        let outputs = match runner.outputs {
            Outputs::Heredoc(variable) | Outputs::Shell(variable) => {
                let path = env.get(variable).ok_or_else(|| {
                    Failure::new(Class::Config, format!("{variable} is not set"))
                        .hint(format!("{} sets it for each step", runner.name))
                })?;
                Some(named(variable, path)?)
            }
            Outputs::Commands | Outputs::OwnFile => None,
        };
        let (summary, upload) = match runner.summary {
            Summary::File(variable) => (env.get(variable).map(|path| named(variable, path)).transpose()?, None),
            Summary::Upload(command) => (None, Some(command)),
            Summary::Log => (None, None),
        };
        Ok(Self { outputs, summary, upload })
    }

    /// Adds all outputs, or none of them.
    pub(super) fn write_outputs(&mut self, text: &str) -> Result<(), Failure> {
        let file = self.outputs.as_mut().ok_or_else(|| Failure::bug("no file for the outputs is open"))?;
        append(file, text)
            .map_err(|error| Failure::new(Class::Temporary, format!("the step outputs cannot be written: {error}")))
    }

    /// Adds the summary. Without one the step has done its work all the same.
    pub(super) fn write_summary(&mut self, context: &Context<'_>, step: &Step, text: &str) {
        if let Some(command) = self.upload {
            let written = step.write("summary.md", text);
            // The path has our own name and the runner's directory.
            let told = written.and_then(|path| tell_runner(&format!("{command}{}\n", path.display())));
            return told.unwrap_or_else(|failure| note(context, &failure.message));
        }
        self.write_summary_of_refusal(context, text);
    }

    /// The same for a step that leaves no file of its own.
    pub(super) fn write_summary_of_refusal(&mut self, context: &Context<'_>, text: &str) {
        if let Some(Err(error)) = self.summary.as_mut().map(|file| append(file, text)) {
            note(context, &error.to_string());
        }
    }
}

fn note(context: &Context<'_>, why: &str) {
    tell(&Printable::text(&format!("safeconduct: warning: no summary: {why}\n"), context.env));
}

/// A number that nobody can guess, for delimiters.
pub(super) fn random() -> Result<u128, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| Failure::bug(format!("no randomness: {error}")))?;
    Ok(u128::from_ne_bytes(bytes))
}

fn named(variable: &str, path: &str) -> Result<File, Failure> {
    open(Path::new(path)).map_err(|error| {
        Failure::new(Class::Config, format!("{variable}: {path} cannot be written: {error}"))
            .hint("the runner makes a plain file there for each step; a link or anything else is not written")
    })
}

/// Opens a file to add to it, whoever owns it, if it is a plain file and no link. It is made if it is not there.
fn open(path: &Path) -> io::Result<File> {
    let opened = open_regular(path, File::options().read(true).append(true), OFlag::O_NOFOLLOW);
    let file = match opened {
        // Without O_CREAT at first: in a directory that everybody can write, the kernel refuses it for the file of another user.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            File::options().read(true).append(true).create_new(true).mode(0o600).open(path)?
        }
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ELOOP as i32) => {
            return Err(io::Error::other("it is a symbolic link"));
        }
        opened => opened?,
    };
    // A second name of another file.
    if file.metadata()?.nlink() > 1 {
        return Err(io::Error::other("it is a hard link"));
    }
    Ok(file)
}

/// Adds the text as lines of their own, whole or not at all.
fn append(file: &mut File, text: &str) -> io::Result<()> {
    let before = file.metadata()?.len();
    let mut last = [b'\n'];
    if before > 0 {
        file.read_exact_at(&mut last, before - 1)?;
    }
    let mut whole = zeroize::Zeroizing::new(Vec::with_capacity(text.len() + 1));
    if last != [b'\n'] {
        whole.push(b'\n');
    }
    whole.extend_from_slice(text.as_bytes());
    file.write_all(&whole).inspect_err(|_| drop(file.set_len(before)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_of_the_runner_is_added_to_and_a_link_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name);
        fs::write(path("there"), "a=b").expect("written");
        append(&mut open(&path("there")).expect("a plain file"), "c=d\n").expect("written");
        append(&mut open(&path("there")).expect("a plain file"), "e=f\n").expect("written");
        assert_eq!(fs::read_to_string(path("there")).expect("there"), "a=b\nc=d\ne=f\n");
        append(&mut open(&path("new")).expect("it is made"), "a\n").expect("written");
        assert_eq!(fs::metadata(path("new")).expect("there").mode() & 0o777, 0o600);

        fs::write(path("target"), "").expect("written");
        std::os::unix::fs::symlink(path("target"), path("link")).expect("linked");
        std::os::unix::fs::symlink(path("nowhere"), path("dangling")).expect("linked");
        fs::hard_link(path("target"), path("second")).expect("linked");
        nix::unistd::mkfifo(&path("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("made");
        for bad in ["link", "dangling", "second", "pipe", "."] {
            assert!(open(&path(bad)).is_err(), "{bad}");
        }
        assert!(open(Path::new("/dev/null")).is_err());
        assert!(!path("nowhere").exists() && fs::read(path("target")).expect("there").is_empty());
    }

    #[test]
    fn half_an_output_is_taken_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("outputs");
        fs::write(&path, "a=b\n").expect("written");
        // Opened for reading alone, so that the write fails.
        let mut file = File::open(&path).expect("there");
        assert!(append(&mut file, "c=d\n").is_err());
        assert_eq!(fs::read_to_string(&path).expect("there"), "a=b\n");
    }
}
