//! Where the file is, and how it is read.

use std::io;
use std::path::{Path, PathBuf};

use super::{CAP, Config, Error};
use crate::env::Env;

impl Config {
    /// Finds and reads the file: `named`, else `$SAFECONDUCT_CONFIG`, else in the user's configuration directory, else
    /// in `/etc`. A missing file is an error only if it was named.
    pub(crate) fn load(named: Option<&Path>, env: &Env) -> Result<Self, Error> {
        let named = named.map(Path::to_owned).or_else(|| env.get("SAFECONDUCT_CONFIG").map(PathBuf::from));
        if let Some(path) = named {
            return Self::read(&path, env);
        }
        for path in Self::usual_places(env) {
            match env.metadata(&path) {
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                _ => return Self::read(&path, env),
            }
        }
        Ok(Self::empty())
    }

    /// Where the file is looked for if nothing names it.
    pub(crate) fn usual_places(env: &Env) -> impl Iterator<Item = PathBuf> {
        let of_user = env.config_dir().map(|directory| directory.join("safeconduct.toml"));
        of_user.into_iter().chain([PathBuf::from("/etc/safeconduct/safeconduct.toml")])
    }

    fn read(path: &Path, env: &Env) -> Result<Self, Error> {
        let refuse = |what: String, cure| Error::File { path: path.to_owned(), what, cure };
        // It can name programs that we run, so nobody else may have written it.
        let content = env.read_trusted(path, CAP);
        let content = content.map_err(|error| refuse(format!("cannot be read: {error}"), cure(&error)))?;
        let text = std::str::from_utf8(&content).map_err(|_| refuse("not UTF-8".to_owned(), "save it as UTF-8"))?;
        match Self::from_toml(text, env) {
            Ok(config) => Ok(Self { file: Some(path.to_owned()), ..config }),
            Err(Error::Problems { problems, .. }) => Err(Error::Problems { path: Some(path.to_owned()), problems }),
            Err(error) => Err(error),
        }
    }
}

/// What to do if the file cannot be read. The system's own refusals have a number; ours, about who can write it, have none.
fn cure(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            "check the path; `safeconduct config init` prints a starter file"
        }
        io::ErrorKind::PermissionDenied if error.raw_os_error().is_none() => {
            "nobody but its owner (you or root) may write it or its directory: `chmod go-w` on both"
        }
        io::ErrorKind::PermissionDenied => "let this user read it, or name another file with `--config`",
        _ => "name a regular file that this user can read with `--config`",
    }
}
