//! The environment as a value: the only reader of variables and of files that others write.
//!
//! No other room reads the process environment. Tests build an [`Env`] from data, so tests of detection need neither a
//! real platform nor changes to the process environment.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::AccessFlags;
use secrecy::SecretString;
use zeroize::Zeroizing;

use crate::blocking::{self, Kind};

/// What a service manager sets for the process that it starts, and for no other: with it another process could speak to the
/// manager in our name or take our sockets (sd_notify(3), sd_listen_fds(3), systemd.exec(5)).
const OURS: [&str; 12] = [
    "NOTIFY_SOCKET",
    "LISTEN_*",
    "WATCHDOG_*",
    "FDSTORE",
    "MAINPID",
    "MANAGERPID*",
    "SYSTEMD_EXEC_PID",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "MEMORY_PRESSURE_*",
    "REMOTE_*",
    "UPSTART_*",
];

/// Does the pattern stand for this name? A `*` at its end stands for any rest.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    }
}

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
    /// Variables whose values are not UTF-8.
    unreadable: BTreeMap<String, OsString>,
    root: Option<PathBuf>,
    uid: u32,
    gid: u32,
    is_process: bool,
    /// Variables that hold a secret by the configuration's word. Programs that we start do not get them.
    secrets: Arc<[String]>,
}

impl Env {
    /// A snapshot of this process. A variable that is not UTF-8 has no value here, but its name is known
    /// ([`Env::is_unreadable`]).
    #[expect(clippy::disallowed_methods, reason = "the one reader of the process environment")]
    pub fn from_process() -> Self {
        let (mut vars, mut unreadable) = (BTreeMap::new(), BTreeMap::new());
        for (name, value) in std::env::vars_os() {
            // A name that is not UTF-8 is not one of ours.
            let Ok(name) = name.into_string() else { continue };
            match value.into_string() {
                Ok(value) => drop(vars.insert(name, value)),
                Err(value) => drop(unreadable.insert(name, value)),
            }
        }
        Self { is_process: true, unreadable, ..Self::with(vars) }
    }

    /// An environment from data, with the real file system.
    pub fn from_vars(vars: impl IntoIterator<Item = (String, String)>) -> Self {
        Self::with(vars.into_iter().collect())
    }

    fn with(vars: BTreeMap<String, String>) -> Self {
        Self {
            vars,
            unreadable: BTreeMap::new(),
            root: None,
            uid: nix::unistd::geteuid().as_raw(),
            gid: nix::unistd::getegid().as_raw(),
            is_process: false,
            secrets: Arc::default(),
        }
    }

    /// The same environment, now that these variables are known to hold secrets.
    pub(crate) fn with_secrets(mut self, names: impl IntoIterator<Item = String>) -> Self {
        self.secrets = names.into_iter().collect();
        self
    }

    /// The variables for a program that we start: all but those that hold a configured secret, those that the service manager
    /// set for us alone, and those that `is_kept_back` names.
    pub(crate) fn for_program(&self, is_kept_back: impl Fn(&str) -> bool) -> impl Iterator<Item = (&str, &str)> {
        let is_secret = |name: &str| self.secrets.iter().any(|secret| secret == name);
        let is_ours = |name: &str| OURS.iter().any(|ours| matches(ours, name));
        let vars = self.vars.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        vars.filter(move |(name, _)| !(is_secret(name) || is_ours(name) || is_kept_back(name)))
    }

    /// The same environment with its files below `root`.
    pub fn with_root(mut self, root: PathBuf) -> Self {
        self.root = Some(root);
        self
    }

    /// The same environment with a variable that is set and not UTF-8.
    #[cfg(test)]
    pub(crate) fn with_unreadable(mut self, name: &str) -> Self {
        use std::os::unix::ffi::OsStringExt;
        self.unreadable.insert(name.to_owned(), OsString::from_vec(b"\xff".to_vec()));
        self
    }

    /// Is this variable set to something that is not UTF-8? Whoever decides by a variable must ask: to take such a value
    /// for none would do the opposite of what was meant.
    pub fn is_unreadable(&self, name: &str) -> bool {
        self.unreadable.contains_key(name)
    }

    /// The variables that are set to something that is not UTF-8.
    pub(crate) fn unreadable(&self) -> impl Iterator<Item = &str> {
        self.unreadable.keys().map(String::as_str)
    }

    /// The names of all variables.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.vars.keys().chain(self.unreadable.keys()).map(String::as_str)
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
        let found = self.is_process.then(directories).flatten().map(|directories| directories.config_dir().to_owned());
        // With a relative `HOME`, whatever directory we are in would configure us.
        found.filter(|directory| directory.is_absolute())
    }

    /// The group of that name or number.
    pub fn group_id(&self, name: &str) -> Option<u32> {
        name.parse().ok().or_else(|| nix::unistd::Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw()))
    }

    /// Reads a regular file of at most `cap` bytes, whole and in one version: a file that changes while it
    /// is read is read again. A pipe or device, which could block or never end, is refused.
    pub fn read(&self, path: &Path, cap: u64) -> io::Result<Zeroizing<Vec<u8>>> {
        self.read_if(path, cap, |_| Ok(()))
    }

    /// Reads a file as [`Self::read`] does, if nobody but this user and root can have written it or put it there: the owner and
    /// the mode of the file that is read, and of the directories of its name and of what links lead to.
    pub fn read_trusted(&self, path: &Path, cap: u64) -> io::Result<Zeroizing<Vec<u8>>> {
        let refuse = |what: String| io::Error::new(io::ErrorKind::PermissionDenied, what);
        let located = self.locate(path);
        let real = std::fs::canonicalize(&located)?;
        for directory in [located.parent(), real.parent()].into_iter().flatten() {
            // The parent of a bare file name is empty.
            let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
            // Nobody writes through a read-only mount, such as Kubernetes makes of a ConfigMap, with mode 0777.
            if !statvfs(directory).is_ok_and(|mount| mount.flags().contains(FsFlags::ST_RDONLY)) {
                private(&std::fs::metadata(directory)?, self.uid)
                    .map_err(|what| refuse(format!("its directory {what}")))?;
            }
        }
        self.read_if(path, cap, |found| private(found, self.uid).map_err(|what| refuse(format!("it {what}"))))
    }

    fn read_if(
        &self,
        path: &Path,
        cap: u64,
        accept: impl Fn(&Metadata) -> io::Result<()>,
    ) -> io::Result<Zeroizing<Vec<u8>>> {
        read_regular(&self.locate(path), cap, accept)
    }

    /// Reads a file as [`Self::read`] does, off the serving thread: for files that are read again and again while we serve. On a
    /// disk that gives no answer it lasts until the caller's own limit.
    pub(crate) async fn read_aside(&self, path: &Path, cap: u64) -> io::Result<Zeroizing<Vec<u8>>> {
        self.read_aside_if(path, cap, |_| Ok(())).await
    }

    /// The same for a file that says who we are: not everybody may be able to write it. Its owner may be another user, because
    /// platforms and their helpers write such files under users of their own.
    pub(crate) async fn read_identity(&self, path: &Path, cap: u64) -> io::Result<Zeroizing<Vec<u8>>> {
        self.read_aside_if(path, cap, |found| match found.mode() & 0o002 {
            0 => Ok(()),
            _ => Err(io::Error::other(WritableByAll(found.mode() & 0o7777))),
        })
        .await
    }

    async fn read_aside_if(
        &self,
        path: &Path,
        cap: u64,
        accept: impl Fn(&Metadata) -> io::Result<()> + Send + 'static,
    ) -> io::Result<Zeroizing<Vec<u8>>> {
        let path = self.locate(path);
        blocking::run(Kind::Files, move || read_regular(&path, cap, accept)).await?
    }

    /// Fails with the reason if another user than this one and root can write this program, or if everybody can put another
    /// file in its place.
    pub(crate) fn check_program(&self, path: &Path) -> io::Result<Result<(), String>> {
        let real = std::fs::canonicalize(self.locate(path))?;
        if let Err(what) = private(&std::fs::metadata(&real)?, self.uid) {
            return Ok(Err(format!("it {what}")));
        }
        let directory = std::fs::metadata(real.parent().unwrap_or_else(|| Path::new("/")))?;
        // In a sticky directory only the owner replaces a file.
        let is_open = directory.mode() & 0o002 != 0 && directory.mode() & 0o1000 == 0;
        Ok(if is_open { Err("everybody can write its directory".to_owned()) } else { Ok(()) })
    }

    /// Finds a program as a shell does: the first executable file of this name in a directory of `PATH`. Relative
    /// directories are skipped, because their content depends on our working directory.
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        let is_executable =
            |path: &PathBuf| std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.mode() & 0o111 != 0);
        let path = self.get("PATH").map(OsStr::new).or_else(|| self.unreadable.get("PATH").map(OsString::as_os_str))?;
        let absolute = std::env::split_paths(path).filter(|directory| directory.is_absolute());
        absolute.map(|directory| self.locate(&directory.join(name))).find(is_executable)
    }

    /// What the system says of a file. It may be another by the time that it is read, so nothing is trusted for this.
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

/// Everybody can write a file that says who we are.
#[derive(Debug, thiserror::Error)]
#[error("everybody can write it (mode {0:04o})")]
pub(crate) struct WritableByAll(u32);

/// Is this the error of a machine that is busy or of a file that is being written, so that a later try may succeed?
pub(crate) fn is_busy(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ResourceBusy
}

fn read_regular(path: &Path, cap: u64, accept: impl Fn(&Metadata) -> io::Result<()>) -> io::Result<Zeroizing<Vec<u8>>> {
    for _ in 0..3 {
        let mut file = open_regular(path, File::options().read(true), OFlag::empty())?;
        let before = file.metadata()?;
        accept(&before)?;
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

/// Opens a regular file. Anything else in its place is an error at once. `flags` are those of open(2) beyond the options.
pub(crate) fn open_regular(path: &Path, options: &mut OpenOptions, flags: OFlag) -> io::Result<File> {
    let irregular = || io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
    // Without O_NONBLOCK, opening a pipe would wait for its other end, which may never come.
    let opened = options.custom_flags((flags | OFlag::O_NONBLOCK).bits()).open(path);
    let file = opened.map_err(|error| match error.raw_os_error().map(Errno::from_raw) {
        // A socket, or a pipe or device without its other end.
        Some(Errno::ENXIO | Errno::ENODEV | Errno::EOPNOTSUPP | Errno::EISDIR) => irregular(),
        _ => error,
    })?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(irregular()) }
}

/// Fails unless a file or directory belongs to this user or root and nobody else may write it.
pub(crate) fn private(found: &Metadata, uid: u32) -> Result<(), String> {
    if found.uid() != uid && found.uid() != 0 {
        return Err(format!("belongs to uid {}, neither to us (uid {uid}) nor to root", found.uid()));
    }
    if found.mode() & 0o022 != 0 {
        return Err(format!("can be written by others (mode {:04o}); `chmod go-w` it", found.mode() & 0o7777));
    }
    Ok(())
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

    #[tokio::test]
    async fn what_others_can_write_does_not_say_who_we_are() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (file, link) = (dir.path().join("jwt"), dir.path().join("link"));
        std::fs::write(&file, "a.b.c").expect("written");
        std::os::unix::fs::symlink("jwt", &link).expect("linked");
        let env = Env::from_vars([]);
        let mode = |path: &Path, mode: u32| std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("ours");
        for fine in [0o600, 0o640, 0o644, 0o660, 0o400] {
            mode(&file, fine);
            assert!(env.read_identity(&link, 10).await.is_ok(), "{fine:o}");
        }
        for open in [0o666, 0o646, 0o777] {
            mode(&file, open);
            let error = env.read_identity(&link, 10).await.expect_err("others can write it");
            assert!(error.get_ref().is_some_and(|cause| cause.is::<WritableByAll>()), "{open:o}: {error}");
        }
    }

    #[test]
    fn a_program_that_others_can_write_is_not_run() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (program, link) = (dir.path().join("tool"), dir.path().join("link"));
        std::fs::write(&program, "#!/bin/sh").expect("written");
        std::os::unix::fs::symlink("tool", &link).expect("linked");
        let owner = std::fs::metadata(&program).expect("there").uid();
        let mode = |path: &Path, mode: u32| std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("ours");
        let env = |uid| Env { uid, ..Env::from_vars([]) };
        let check = |uid: u32| env(uid).check_program(&link).expect("it is there");
        mode(&program, 0o755);
        assert_eq!(check(owner), Ok(()));
        if owner != 0 {
            assert!(check(owner + 1).expect_err("another's").contains("belongs to"));
        }
        for open in [0o777, 0o775, 0o757] {
            mode(&program, open);
            assert!(check(owner).expect_err("others can write it").contains("can be written by others"), "{open:o}");
        }
        mode(&program, 0o755);
        mode(dir.path(), 0o777);
        assert!(check(owner).expect_err("others can replace it").contains("its directory"));
        mode(dir.path(), 0o1777);
        assert_eq!(check(owner), Ok(()), "in a sticky directory only its owner replaces it");
    }

    #[test]
    fn a_pipe_in_the_place_of_a_file_is_an_error_at_once() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("made");
        let socket = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("bound");
        for path in [&pipe, &socket, &dir.path().to_owned(), &PathBuf::from("/dev/null")] {
            for write in [false, true] {
                let mut options = File::options();
                options.read(!write).write(write);
                let error = open_regular(path, &mut options, OFlag::O_NOFOLLOW).expect_err("no regular file");
                assert_eq!(error.to_string(), "not a regular file", "{}, write: {write}", path.display());
            }
        }
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
    fn what_must_be_ours_is_judged_by_the_file_that_is_read_and_by_every_directory_on_the_way() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let put = |path: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().expect("below the root")).expect("made");
            std::fs::write(&path, "text").expect("written");
            std::fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("ours");
            path
        };
        let mode = |path: &str, mode: u32| {
            std::fs::set_permissions(dir.path().join(path), Permissions::from_mode(mode)).expect("ours");
        };
        let (_, _) = (put("own/file"), put("open/file"));
        std::os::unix::fs::symlink("../open/file", dir.path().join("own/link")).expect("linked");
        let env = Env::from_vars([]).with_root(dir.path().to_owned());
        let read = |path: &str| env.read_trusted(Path::new(path), 10).map_err(|error| error.to_string());
        assert!(read("/own/file").is_ok() && read("/own/link").is_ok());
        for wide in [0o777, 0o1777, 0o775] {
            mode("open", wide);
            for path in ["/open/file", "/own/link"] {
                assert!(
                    read(path).expect_err("others can exchange it").contains("its directory can be written"),
                    "{path}"
                );
            }
        }
        assert!(read("/own/file").is_ok());
        mode("own/file", 0o664);
        assert!(read("/own/file").expect_err("others can write it").contains("it can be written by others"));
    }

    /// Whoever can exchange the file between the check and the read must not get round the check.
    #[test]
    fn the_file_that_is_judged_is_the_file_that_is_read() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (name, others) = (dir.path().join("file"), dir.path().join("others"));
        std::fs::write(&name, "ours").expect("written");
        std::fs::write(&others, "theirs").expect("written");
        let env = Env::from_vars([]);
        let judged = env.read_if(&name, 10, |found| {
            let exchanged = std::fs::rename(&others, &name);
            assert!(exchanged.is_ok() && found.len() == 4, "the descriptor is of the first file");
            Ok(())
        });
        assert_eq!(judged.expect("accepted").as_slice(), b"ours");
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
        let mut strange = Env::from_vars([]).with_root(dir.path().to_owned());
        let bytes = std::os::unix::ffi::OsStringExt::from_vec(b"/\xff:/two".to_vec());
        strange.unreadable.insert("PATH".to_owned(), bytes);
        assert_eq!(strange.program("tool"), Some(dir.path().join("two/tool")), "a directory beside it is not UTF-8");
        assert_eq!(on("/one:/four"), None);
        assert_eq!(Env::from_vars([]).program("tool"), None);
    }

    #[test]
    fn a_program_gets_no_secret_and_nothing_that_the_service_manager_gave_us() {
        let names =
            ["PATH", "SECRET", "SECRET_OF_ANOTHER", "NOTIFY_SOCKET", "LISTEN_FDS", "WATCHDOG_USEC", "JOB_TOKEN"];
        let env = Env::from_vars(names.map(|name| (name.to_owned(), "x".to_owned())));
        let env = env.with_secrets(["SECRET".to_owned()]);
        let given: Vec<&str> = env.for_program(|name| name == "JOB_TOKEN").map(|(name, _)| name).collect();
        assert_eq!(given, ["PATH", "SECRET_OF_ANOTHER"]);
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
