//! `safeconduct install DIR`: copies this program, for init containers whose image has no `cp`.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::{Context, Failure, Printable, print};
use crate::broker::Class;
use crate::cli::Install;
use crate::env::private;
use crate::supervisor;

const NAME: &str = "safeconduct";

pub(super) fn run(context: &Context<'_>, verb: &Install) -> Result<(), Failure> {
    let refuse = |path: &Path, what: &str| {
        Failure::new(Class::Config, format!("{}: {what}", path.display()))
            .hint("name a directory that is ours and that nobody else can write; one that does not exist is made")
    };
    let failed =
        |path: &Path, error: &io::Error| Failure::new(Class::Temporary, format!("{}: {error}", path.display()));
    let program = supervisor::own_program(context.env)
        .ok_or_else(|| Failure::bug("this program's own file is not found").hint("call it by its absolute path"))?;
    let directory = verb.directory.as_path();
    match DirBuilder::new().mode(0o755).create(directory) {
        // Whatever the umask is, others are to run the program.
        Ok(()) => {
            fs::set_permissions(directory, Permissions::from_mode(0o755)).map_err(|error| failed(directory, &error))?;
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(directory, &error)),
    }
    let found = fs::symlink_metadata(directory).map_err(|error| failed(directory, &error))?;
    if !found.is_dir() {
        return Err(refuse(directory, if found.is_symlink() { "is a link" } else { "is no directory" }));
    }
    private(&found, context.env.uid()).map_err(|what| refuse(directory, &what))?;
    // Not the process id: in containers two installers at once can have the same one, and one that was killed left its file.
    let number = getrandom::u64().map_err(|error| failed(directory, &io::Error::other(error)))?;
    let (target, early) = (directory.join(NAME), directory.join(format!(".{NAME}.{number:016x}")));
    match fs::symlink_metadata(&target) {
        Ok(found) if !found.is_file() => return Err(refuse(&target, "is there and no plain file")),
        _ => {}
    }
    // The old file is replaced in one step: a program that runs from it goes on, and nobody sees half of the new one.
    let early_file = File::options().write(true).create_new(true).mode(0o755).open(&early);
    let mut early_file = early_file.map_err(|error| failed(&early, &error))?;
    let written = copy(&program, &mut early_file).and_then(|bytes| fs::rename(&early, &target).map(|()| bytes));
    let bytes = written.map_err(|error| {
        drop(fs::remove_file(&early));
        failed(&target, &error)
    })?;
    print(&Printable::text(&format!("wrote {} ({bytes} bytes)\n", target.display()), context.env))
}

fn copy(from: &Path, target: &mut File) -> io::Result<u64> {
    let mut source = File::open(from)?;
    let bytes = io::copy(&mut source, target)?;
    target.set_permissions(Permissions::from_mode(0o755))?;
    target.sync_all()?;
    Ok(bytes)
}
