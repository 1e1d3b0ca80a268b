//! The environment as a value: the only reader of variables and of files that others write.
//!
//! No other room reads the process environment. Tests build an [`Env`] from data, so tests of detection need neither a
//! real platform nor changes to the process environment.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::AccessFlags;
use secrecy::SecretString;
use zeroize::Zeroizing;

pub(crate) mod sockets;

/// The identity of a file: device and inode. Two existing files never share it. After a file is deleted, a new file may get
/// the same inode, unless a process still holds the old one open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// The file at this path, if there is one. A symbolic link is not followed.
    pub(crate) fn at(path: &Path) -> Option<Self> {
        std::fs::symlink_metadata(path).ok().map(|found| Self::from(&found))
    }
}

impl From<&Metadata> for FileId {
    fn from(found: &Metadata) -> Self {
        Self { device: found.dev(), inode: found.ino() }
    }
}

#[cfg(target_os = "linux")]
impl From<&nix::sys::stat::FileStat> for FileId {
    fn from(found: &nix::sys::stat::FileStat) -> Self {
        Self { device: found.st_dev, inode: found.st_ino }
    }
}

/// Variables, files and the user this process runs as.
#[derive(Clone)]
pub struct Env {
    vars: BTreeMap<String, String>,
    root: Option<PathBuf>,
    uid: u32,
    gid: u32,
    is_process: bool,
}

impl Env {
    /// A snapshot of this process. Variables that are not UTF-8 are left out: no variable we read may hold them.
    #[expect(clippy::disallowed_methods, reason = "the one reader of the process environment")]
    pub fn from_process() -> Self {
        let utf8 = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self { is_process: true, ..Self::from_vars(std::env::vars_os().filter_map(utf8)) }
    }

    /// An environment from data, with the real file system.
    pub fn from_vars(vars: impl IntoIterator<Item = (String, String)>) -> Self {
        Self {
            vars: vars.into_iter().collect(),
            root: None,
            uid: nix::unistd::geteuid().as_raw(),
            gid: nix::unistd::getegid().as_raw(),
            is_process: false,
        }
    }

    /// The same environment with its files below `root`.
    pub fn with_root(mut self, root: PathBuf) -> Self {
        self.root = Some(root);
        self
    }

    /// A variable that is set and not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.vars.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A variable that holds a secret.
    pub fn secret(&self, name: &str) -> Option<SecretString> {
        self.get(name).map(|value| SecretString::from(value.to_owned()))
    }

    /// Our effective user.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Our effective group.
    pub fn gid(&self) -> u32 {
        self.gid
    }

    /// The platform's directory for our configuration. Without `HOME` the user database is asked, which may be a
    /// server elsewhere: helpers that find a daemon never come here.
    pub fn config_dir(&self) -> Option<PathBuf> {
        let directories = || directories::ProjectDirs::from("", "", "safeconduct");
        self.is_process.then(directories).flatten().map(|directories| directories.config_dir().to_owned())
    }

    /// The group of that name or number.
    pub fn group_id(&self, name: &str) -> Option<u32> {
        name.parse().ok().or_else(|| nix::unistd::Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw()))
    }

    /// Reads a regular file of at most `cap` bytes, whole and in one version: a file that changes while it
    /// is read is read again. A pipe or device, which could block or never end, is refused.
    pub fn read(&self, path: &Path, cap: u64) -> io::Result<Zeroizing<Vec<u8>>> {
        let path = self.locate(path);
        for _ in 0..3 {
            let mut file = open_regular(&path)?;
            let before = file.metadata()?;
            let mut content = Zeroizing::new(Vec::new());
            (&mut file).take(cap + 1).read_to_end(&mut content)?;
            if content.len() as u64 > cap {
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {cap} bytes")));
            }
            if version(&before) == version(&file.metadata()?) {
                return Ok(content);
            }
        }
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "it keeps changing while it is read"))
    }

    /// Finds a program as a shell does: the first executable file of this name in a directory of `PATH`. Relative
    /// directories are skipped, because their content depends on our working directory.
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        let is_executable =
            |path: &PathBuf| std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.mode() & 0o111 != 0);
        let absolute = self.get("PATH")?.split(':').map(Path::new).filter(|directory| directory.is_absolute());
        absolute.map(|directory| self.locate(&directory.join(name))).find(is_executable)
    }

    /// Owner and mode of a file, to check that others cannot write it.
    pub fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        std::fs::metadata(self.locate(path))
    }

    /// Resolves the path of a platform's socket. Fails if it is not a socket, or if this user may not connect to it.
    pub fn socket(&self, path: &Path) -> io::Result<PathBuf> {
        let path = self.locate(path);
        if !std::fs::metadata(&path)?.file_type().is_socket() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a socket"));
        }
        // Connecting to a socket needs the right to write to it (unix(7)).
        nix::unistd::eaccess(&path, AccessFlags::W_OK)?;
        Ok(path)
    }

    fn locate(&self, path: &Path) -> PathBuf {
        match &self.root {
            Some(root) => root.join(path.strip_prefix("/").unwrap_or(path)),
            None => path.to_owned(),
        }
    }
}

fn open_regular(path: &Path) -> io::Result<File> {
    // Without O_NONBLOCK, opening a pipe would wait for a writer that may never come.
    let file = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
    }
}

fn version(metadata: &Metadata) -> (u64, u64, i64, i64) {
    (metadata.ino(), metadata.size(), metadata.mtime(), metadata.mtime_nsec())
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn an_empty_variable_counts_as_unset() {
        let env = Env::from_vars([("A".to_owned(), String::new()), ("B".to_owned(), "b".to_owned())]);
        assert_eq!(env.get("A"), None);
        assert_eq!(env.get("B"), Some("b"));
    }

    #[test]
    fn a_file_over_the_cap_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(dir.path().join("big"), vec![b'x'; 11]).expect("written");
        let env = Env::from_vars([]).with_root(dir.path().to_owned());
        assert_eq!(env.read(Path::new("/big"), 11).expect("fits").len(), 11);
        assert_eq!(env.read(Path::new("/big"), 10).expect_err("too big").kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn a_program_is_the_first_executable_file_on_an_absolute_path() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let put = |path: &str, mode: u32| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().expect("below the root")).expect("made");
            std::fs::write(&path, "#!/bin/sh\n").expect("written");
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).expect("ours");
            path
        };
        put("one/tool", 0o644);
        let wanted = put("two/tool", 0o755);
        put("three/tool", 0o755);
        std::fs::create_dir_all(dir.path().join("four/tool")).expect("made");
        let on = |path: &str| {
            let vars = [("PATH".to_owned(), path.to_owned())];
            Env::from_vars(vars).with_root(dir.path().to_owned()).program("tool")
        };
        assert_eq!(on("/four:/one:/two:/three"), Some(wanted));
        assert_eq!(on("three:./three:/none"), None, "relative to where we were started");
        assert_eq!(on("/one:/four"), None);
        assert_eq!(Env::from_vars([]).program("tool"), None);
    }

    #[test]
    fn a_socket_is_one_that_can_be_dialled() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let _listener = std::os::unix::net::UnixListener::bind(dir.path().join("api")).expect("bound");
        std::fs::write(dir.path().join("file"), "").expect("written");
        let env = Env::from_vars([]).with_root(dir.path().to_owned());
        assert_eq!(env.socket(Path::new("/api")).expect("a socket"), dir.path().join("api"));
        assert_eq!(env.socket(Path::new("/file")).expect_err("a file").kind(), io::ErrorKind::InvalidInput);
        assert_eq!(env.socket(Path::new("/none")).expect_err("nothing").kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_pipe_does_not_hang_the_reader() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR).expect("a pipe");
        let refused = Env::from_vars([]).read(&pipe, 10).expect_err("not a file");
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    }
}
