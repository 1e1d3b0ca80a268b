//! `file`: a JWT in a file that another program keeps fresh.
//!
//! For platforms that write a token to a file: a Kubernetes `serviceAccountToken` volume with its own `audience`, SPIRE's
//! helper, a CI system. Never detected, only configured:
//!
//! ```toml
//! [identity]
//! source     = "file"
//! token_file = "/var/run/secrets/tokens/mcp"
//! ```
//!
//! or `--identity-file FILE`. The file is read again at each exchange, because the platform replaces it. The platform fixes
//! the token's audience: it must be exactly the authorization server's issuer, or the value of `subject_audience`. The file may
//! belong to another user, but a file that everybody can write is refused.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use secrecy::SecretString;

use super::{Ambient, Descriptor, Error, Finding, IdentitySource, Kind, Setting, Tier};
use crate::env::{WritableByAll, is_busy};
use crate::oauth::Audience;
use crate::platform::Platform;
use crate::token::{Claims, SubjectToken};

pub(super) const SOURCE: Descriptor = Descriptor {
    name: "file",
    tier: Tier::Named,
    about: "a JWT in a file that the platform keeps fresh",
    evidence: "configuration, or `--identity-file`",
    token: "fixed audience, read again at each exchange",
    settings: &[TOKEN_FILE],
    // The configured keys say where the token is.
    variables: &[],
    trust: &Platform::PLAIN,
    detect: |_| Finding::Absent { looked_for: "`source = \"file\"` or --identity-file" },
    from_config: |given, ambient| Ok(Arc::new(File::new(&SOURCE, given.required(&TOKEN_FILE)?.into(), ambient))),
    probe: None,
};

const TOKEN_FILE: Setting =
    Setting::required("token_file", Kind::Text, "Path of the file that holds the JWT; read again at each exchange.");

/// Larger than any identity token. A larger file is refused.
const CAP: u64 = 64 * 1024;

/// A file that holds a JWT, read for one source.
pub(super) struct File {
    row: &'static Descriptor,
    path: PathBuf,
    ambient: Ambient,
}

#[async_trait]
impl IdentitySource for File {
    async fn subject_token(&self, _audience: &Audience) -> Result<SubjectToken, Error> {
        let shown = self.shown();
        let content = self.ambient.env.read_identity(&self.path, CAP).await.map_err(|error| self.unreadable(&error))?;
        let malformed = |what: String| Error::Malformed {
            source_name: self.row.name,
            what,
            hint: format!("{shown} must hold one JWT and nothing else"),
        };
        let text = std::str::from_utf8(&content).map_err(|_| malformed(format!("{shown} is not UTF-8")))?.trim();
        if text.is_empty() {
            return Err(malformed(format!("{shown} is empty")));
        }
        SubjectToken::parse(SecretString::from(text.to_owned()))
            .map_err(|error| malformed(format!("{shown} is {error}")))
    }

    fn row(&self) -> Option<&'static Descriptor> {
        Some(self.row)
    }

    fn mints_anew(&self) -> bool {
        false
    }
}

impl File {
    pub(super) fn new(row: &'static Descriptor, path: PathBuf, ambient: &Ambient) -> Self {
        Self { row, path, ambient: ambient.clone() }
    }

    /// The path for messages. Hides a text that may be a token, given instead of the path by mistake.
    fn shown(&self) -> String {
        let path = self.path.to_string_lossy();
        if Claims::read(&path).is_ok() { "what is a JWT itself and no path".to_owned() } else { path.into_owned() }
    }

    fn unreadable(&self, error: &io::Error) -> Error {
        if is_busy(error) {
            let what = format!("{} cannot be read now: {error}", self.shown());
            return Error::Unreachable { source_name: self.row.name, what, hint: None };
        }
        let hint = match error.kind() {
            io::ErrorKind::NotFound => {
                "the platform writes it when the workload starts: check the path and the volume".to_owned()
            }
            _ if error.get_ref().is_some_and(|cause| cause.is::<WritableByAll>()) => {
                "whoever can write it decides who we are: `chmod o-w` it".to_owned()
            }
            io::ErrorKind::PermissionDenied => format!("let uid {} read it", self.ambient.env.uid()),
            _ => "it must be a regular file of at most 64 KiB".to_owned(),
        };
        Error::Malformed { source_name: self.row.name, what: format!("{} cannot be read: {error}", self.shown()), hint }
    }
}
