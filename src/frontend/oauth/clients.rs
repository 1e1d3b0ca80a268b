//! The clients of the token endpoint: one for each configured server, named as it is, with a secret that opens it alone.
//!
//! A secret is derived from that of the loopback listener and from the server's name, so it is new at each start too, and it says
//! nothing about another server's. `oauth/NAME.json` beside the socket holds it (mode 0600, in a directory of mode 0700), in the
//! form in which clients read their registration. The files are removed at the end.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use nix::fcntl::OFlag;
use secrecy::SecretString;
use zeroize::Zeroizing;

use super::super::place;
use super::super::secret::LoopbackSecret;
use crate::token::expose;

/// The directory's name, beside the socket.
const NAME: &str = "oauth";

/// The file with the client of a server, beside the socket.
pub(crate) fn file_of(socket: &Path, server: &str) -> PathBuf {
    beside(socket).join(format!("{server}.json"))
}

fn beside(socket: &Path) -> PathBuf {
    socket.parent().unwrap_or_else(|| Path::new("/")).join(NAME)
}

/// The clients.
pub(crate) struct Clients {
    secret: Arc<LoopbackSecret>,
    directory: PathBuf,
    /// Those whose files are there.
    written: Mutex<Vec<String>>,
    /// Is the caller the owner of the connecting socket?
    counts_owners: bool,
}

impl Clients {
    /// Makes the directory beside the socket. Fails if it is there and not ours.
    pub(crate) fn beside(
        socket: &Path,
        secret: Arc<LoopbackSecret>,
        counts_owners: bool,
        own_uid: u32,
    ) -> Result<Self, place::Error> {
        let directory = beside(socket);
        let system = |error: io::Error| place::Error::System { path: directory.clone(), error };
        match DirBuilder::new().mode(0o700).create(&directory) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                place::check_private_directory(&directory, own_uid)?;
            }
            made => made.map_err(system)?,
        }
        Ok(Self { secret, directory, written: Mutex::default(), counts_owners })
    }

    /// Writes a file for each of these servers, and removes those of others.
    pub(crate) fn write<'a>(&self, servers: impl Iterator<Item = &'a str>) -> Result<(), place::Error> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let servers: Vec<&str> = servers.collect();
        written.retain(|name| {
            let stays = servers.contains(&name.as_str());
            if !stays {
                drop(fs::remove_file(self.file(name)));
            }
            stays
        });
        for name in servers {
            if !written.iter().any(|there| there == name) {
                let path = self.file(name);
                self.write_one(&path, name).map_err(|error| place::Error::System { path, error })?;
                written.push(name.to_owned());
            }
        }
        Ok(())
    }

    /// A server's name is good for a file's name.
    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.json"))
    }

    fn write_one(&self, path: &Path, name: &str) -> io::Result<()> {
        // One of an earlier start, which was killed. A link is removed, not followed.
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let secret = self.secret.for_server(name);
        // Neither needs an escape.
        let text = Zeroizing::new(format!("{{\"client_id\":\"{name}\",\"client_secret\":\"{}\"}}\n", expose(&secret)));
        let mut options = File::options();
        options.write(true).create_new(true).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits());
        options.open(path)?.write_all(text.as_bytes())
    }

    /// Is this the secret of the server of this name? It takes as long for a server that is not there.
    pub(super) fn is(&self, name: &str, presented: &SecretString) -> bool {
        self.secret.is_of_server(name, expose(presented).as_bytes())
    }

    /// Is the caller the owner of the connecting socket, or whoever has the secret?
    pub(super) fn counts_owners(&self) -> bool {
        self.counts_owners
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        for name in &*self.written.lock().unwrap_or_else(PoisonError::into_inner) {
            drop(fs::remove_file(self.file(name)));
        }
        // It stays if something else is in it.
        drop(fs::remove_dir(&self.directory));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    fn beside(directory: &Path) -> Result<Clients, place::Error> {
        let socket = directory.join("w.sock");
        let secret = Arc::new(LoopbackSecret::beside(&socket)?);
        Clients::beside(&socket, secret, true, nix::unistd::geteuid().as_raw())
    }

    fn secret_in(directory: &Path, name: &str) -> SecretString {
        let text = fs::read_to_string(directory.join(NAME).join(format!("{name}.json"))).expect("it is there");
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(json["client_id"], name);
        SecretString::from(json["client_secret"].as_str().expect("a secret").to_owned())
    }

    #[test]
    fn a_secret_opens_its_own_server_and_no_other() {
        let directory = tempfile::tempdir().expect("a directory");
        let clients = beside(directory.path()).expect("made");
        clients.write(["a", "b"].into_iter()).expect("written");
        let (a, b) = (secret_in(directory.path(), "a"), secret_in(directory.path(), "b"));
        assert!(clients.is("a", &a) && clients.is("b", &b));
        assert!(!clients.is("a", &b) && !clients.is("c", &a) && !clients.is("a", &SecretString::from(String::new())));
        let http = SecretString::from(fs::read_to_string(directory.path().join("http.secret")).expect("it is there"));
        assert!(!clients.is("a", &http), "the listener's own secret is no client's");
        let file = directory.path().join("oauth/a.json");
        assert_eq!(fs::metadata(&file).expect("there").mode() & 0o777, 0o600);
        clients.write(["b"].into_iter()).expect("written");
        assert!(!file.exists(), "the server is gone, and so is its file");
        assert!(expose(&secret_in(directory.path(), "b")) == expose(&b), "a reload keeps the others'");
        drop(clients);
        assert!(!directory.path().join(NAME).exists());
    }

    #[test]
    fn a_link_in_the_place_of_a_file_is_not_followed_and_an_open_directory_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let oauth = directory.path().join(NAME);
        fs::create_dir(&oauth).expect("made");
        fs::set_permissions(&oauth, fs::Permissions::from_mode(0o700)).expect("ours");
        let precious = directory.path().join("precious");
        fs::write(&precious, "precious").expect("written");
        std::os::unix::fs::symlink(&precious, oauth.join("a.json")).expect("linked");
        let clients = beside(directory.path()).expect("made");
        clients.write(["a"].into_iter()).expect("written");
        assert_eq!(fs::read_to_string(&precious).expect("there"), "precious");
        drop(clients);
        fs::create_dir(&oauth).expect("made");
        for mode in [0o770, 0o705, 0o750] {
            fs::set_permissions(&oauth, fs::Permissions::from_mode(mode)).expect("ours");
            assert!(beside(directory.path()).is_err(), "{mode:o}");
        }
    }
}
