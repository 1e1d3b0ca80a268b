//! The secret of the loopback listener. It lies in a file that only the daemon's user can read, so a caller that presents it
//! is taken for that user.
//!
//! It is new at each start, written beside the socket with mode 0600, and removed at the end. It does not say which process
//! asks: on TCP the kernel does not tell.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nix::fcntl::{Flock, OFlag};
use secrecy::SecretString;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::place;
use crate::env::FileId;
use crate::token::expose;

/// The file's name in the socket's directory.
const NAME: &str = "http.secret";
/// Too many to guess.
const BYTES: usize = 32;

/// What a caller on loopback must present.
pub(crate) struct LoopbackSecret {
    secret: SecretString,
    path: PathBuf,
    /// Held open, so that no other file can get its inode before the file is removed.
    file: File,
    /// Held while the daemon serves, because a second daemon in this directory would overwrite the file.
    _lock: Flock<File>,
}

impl LoopbackSecret {
    /// Makes a new one and writes it beside the socket.
    pub(crate) fn beside(socket: &Path) -> Result<Self, place::Error> {
        let directory = socket.parent().unwrap_or_else(|| Path::new("/"));
        let path = directory.join(NAME);
        let system = |error: io::Error| place::Error::System { path: path.clone(), error };
        let lock = place::lock(&path)?;
        let mut bytes = Zeroizing::new([0; BYTES]);
        getrandom::fill(bytes.as_mut_slice()).map_err(|error| system(io::Error::other(error)))?;
        let secret = SecretString::from(URL_SAFE_NO_PAD.encode(bytes.as_slice()));
        let file = write(&path, expose(&secret)).map_err(system)?;
        Ok(Self { secret, path, file, _lock: lock })
    }

    /// Where it is written.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The secret of the OAuth client for one server: HMAC-SHA256 with this secret as the key.
    pub(super) fn for_server(&self, name: &str) -> SecretString {
        let key = hmac::Key::new(hmac::HMAC_SHA256, expose(&self.secret).as_bytes());
        let tag = hmac::sign(&key, format!("oauth client {name}").as_bytes());
        SecretString::from(URL_SAFE_NO_PAD.encode(tag.as_ref()))
    }

    /// Compares with the secret for a server, in constant time.
    pub(super) fn is_of_server(&self, name: &str, presented: &[u8]) -> bool {
        expose(&self.for_server(name)).as_bytes().ct_eq(presented).into()
    }

    /// Compares in constant time.
    pub(super) fn is(&self, presented: &[u8]) -> bool {
        expose(&self.secret).as_bytes().ct_eq(presented).into()
    }
}

impl Drop for LoopbackSecret {
    fn drop(&mut self) {
        let there = FileId::at(&self.path);
        if there.is_some() && there == self.file.metadata().ok().as_ref().map(FileId::from) {
            // The directory may be gone, and the file with it.
            drop(fs::remove_file(&self.path));
        }
    }
}

/// Writes a new file and renames it to `path`. Readers see the old text or the new one, and a link at `path` is replaced,
/// never followed.
fn write(path: &Path, text: &str) -> io::Result<File> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{:016x}", getrandom::u64().map_err(io::Error::other)?));
    let mut options = File::options();
    options.write(true).create_new(true).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits());
    let mut file = options.open(&draft)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        drop(fs::remove_file(&draft));
    }
    written.map(|()| file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().expect("a directory")
    }

    #[test]
    fn it_is_what_the_file_says_and_nothing_else() {
        let directory = directory();
        let secret = LoopbackSecret::beside(&directory.path().join("w.sock")).expect("written");
        let text = fs::read(secret.path()).expect("there");
        assert_eq!(text.len(), 43, "32 bytes in base64url");
        assert!(secret.is(&text));
        assert!(!secret.is(&text[..42]) && !secret.is(b"") && !secret.is(&[&text[..], b"\n"].concat()));
        assert_eq!(fs::metadata(secret.path()).expect("there").mode() & 0o777, 0o600);
    }

    #[test]
    fn a_link_in_its_place_is_replaced_and_not_followed() {
        let directory = directory();
        let precious = directory.path().join("precious");
        fs::write(&precious, "precious").expect("written");
        std::os::unix::fs::symlink(&precious, directory.path().join(NAME)).expect("linked");
        let secret = LoopbackSecret::beside(&directory.path().join("w.sock")).expect("written");
        assert!(fs::symlink_metadata(secret.path()).expect("there").is_file());
        assert_eq!(fs::read_to_string(&precious).expect("still there"), "precious");
    }

    #[test]
    fn a_pipe_in_the_place_of_its_lock_is_an_error_at_once() {
        let directory = directory();
        let pipe = directory.path().join("http.secret.lock");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("made");
        let Err(error) = LoopbackSecret::beside(&directory.path().join("w.sock")) else { panic!("it was locked") };
        assert_eq!(error.to_string(), format!("{}: not a regular file", pipe.display()));
    }

    #[test]
    fn a_second_daemon_in_the_directory_is_refused_and_another_file_is_not_removed() {
        let directory = directory();
        let socket = directory.path().join("w.sock");
        let secret = LoopbackSecret::beside(&socket).expect("written");
        assert!(matches!(LoopbackSecret::beside(&socket), Err(place::Error::Taken { .. })));
        let path = secret.path().to_owned();
        fs::remove_file(&path).expect("ours");
        fs::write(&path, "another's").expect("written");
        drop(secret);
        assert_eq!(fs::read_to_string(&path).expect("left alone"), "another's");
        let again = LoopbackSecret::beside(&socket).expect("the place is free");
        drop(again);
        assert!(!path.exists());
    }
}
