//! One entry of `allow`: which callers match, and why a caller with the right user and group does not.

use std::fmt;
use std::sync::Arc;

use crate::caller::{Caller, Needs, Program, Unit, UnitName, UserUnit, WantedProgram, Why};
use crate::digest::Digest;
use crate::oauth::Scopes;

/// One entry of a server's `allow` list. All keys that are given must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// The caller's effective user.
    pub uid: Option<u32>,
    /// The caller's effective group.
    pub gid: Option<u32>,
    /// The file that the connecting process runs.
    pub exe: Option<Arc<str>>,
    /// The digest of that file. Without `exe` a file with this digest matches at any path.
    pub sha256: Option<Digest>,
    /// The systemd unit of the connecting process.
    pub unit: Option<WantedUnit>,
    /// The ceiling for callers that match; `None` is the server's own ceiling.
    pub scopes: Option<Scopes>,
    /// Nobody wrote it: it stands for an `allow` that was left out.
    pub is_implied: bool,
}

/// A unit that a rule names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedUnit {
    /// Its whole name.
    pub name: UnitName,
    /// The system's unit of that name matches, and so does the unit of this user's own manager. Units of other users never
    /// match, because those users can name them freely.
    pub of_user: u32,
}

/// Why an entry with the caller's user and group does not match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Miss<'a> {
    /// It could not be read.
    Unknown(&'static str, &'a Why),
    /// It runs another file.
    OtherProgram(&'a Program),
    /// The path is right, but another file is there now: it was replaced since the process started, or the process opened it
    /// in another mount namespace.
    Replaced(&'a Program),
    /// The path is right in the mount namespace of the process, which is not the daemon's.
    OtherMounts(&'a Program),
    /// The file has another digest.
    OtherDigest(&'a Program, Digest),
    /// It runs in another unit.
    OtherUnit(&'a Unit),
}

impl WantedUnit {
    /// This user's unit or the system's. Fails where no unit of that name can have processes.
    pub(crate) fn parse(name: &str, of_user: u32) -> Result<Self, String> {
        if let Some(name) = UnitName::parse(name) {
            return Ok(Self { name, of_user });
        }
        let cure = match UnitName::parse(&format!("{name}.service")) {
            Some(service) => format!("; did you mean \"{service}\"?"),
            None => String::new(),
        };
        Err(format!("{name:?} is no name of a service or scope{cure}"))
    }
}

impl Rule {
    /// Matches all processes of this user.
    pub fn user(uid: u32) -> Self {
        Self { uid: Some(uid), ..Self::default() }
    }

    /// Stands for an `allow` that was left out: the daemon's own user.
    pub fn own_user(uid: u32) -> Self {
        Self { is_implied: true, ..Self::user(uid) }
    }

    pub(super) fn matches(&self, caller: &Caller) -> bool {
        self.may_match(caller) && self.program_miss(caller).is_none() && self.unit_miss(caller).is_none()
    }

    /// Do user and group match? Otherwise nothing else is looked at.
    pub(super) fn may_match(&self, caller: &Caller) -> bool {
        let is_named = !caller.is_many() || (self.uid.is_some() && !self.is_implied);
        is_named && self.uid.is_none_or(|uid| uid == caller.uid) && self.gid.is_none_or(|gid| Some(gid) == caller.gid)
    }

    /// Does the rule need facts beyond peer credentials?
    pub(super) fn needs_process_facts(&self) -> bool {
        self.exe.is_some() || self.sha256.is_some() || self.unit.is_some()
    }

    /// Adds the facts that this rule needs about this caller.
    pub(super) fn need(&self, caller: &Caller, needs: &mut Needs) {
        if !self.may_match(caller) {
            return;
        }
        match &self.exe {
            Some(path) => {
                needs.programs.push(WantedProgram { path: Arc::clone(path), digest: self.sha256.is_some() });
            }
            None => needs.any_digest |= self.sha256.is_some(),
        }
        needs.unit |= self.unit.is_some();
    }

    /// Why a caller with the right user and group does not match.
    pub(super) fn misses<'a>(&self, caller: &'a Caller) -> impl Iterator<Item = Miss<'a>> {
        let so_far = self.may_match(caller);
        let both = if so_far { [self.program_miss(caller), self.unit_miss(caller)] } else { [None, None] };
        both.into_iter().flatten()
    }

    /// Does the rule miss this caller only for what could not be told now?
    pub(super) fn may_match_later(&self, caller: &Caller) -> bool {
        let mut misses = self.misses(caller).peekable();
        misses.peek().is_some() && misses.all(|miss| miss.is_temporary())
    }

    fn program_miss<'a>(&self, caller: &'a Caller) -> Option<Miss<'a>> {
        let key = if self.exe.is_some() { "exe" } else { "sha256" };
        if self.exe.is_none() && self.sha256.is_none() {
            return None;
        }
        match &caller.facts.program {
            Err(why) => Some(Miss::Unknown(key, why)),
            Ok(program) => self.path_miss(program).or_else(|| self.digest_miss(program)),
        }
    }

    /// The running file must be the one that the daemon finds at the path. A path alone proves nothing: in its own mount
    /// namespace a process can put any file there. With a digest, the path as the process sees it is enough.
    fn path_miss<'a>(&self, program: &'a Program) -> Option<Miss<'a>> {
        let exe = self.exe.as_ref()?;
        let (stands_there, is_called_so) = (program.stands_at.contains(exe), *program.path == **exe);
        match (stands_there, is_called_so) {
            (false, false) => Some(Miss::OtherProgram(program)),
            _ if self.sha256.is_some() => None,
            _ if !program.sees_our_files => Some(Miss::OtherMounts(program)),
            (false, true) => Some(Miss::Replaced(program)),
            (true, _) => None,
        }
    }

    fn digest_miss<'a>(&self, program: &'a Program) -> Option<Miss<'a>> {
        let wanted = self.sha256?;
        match &program.sha256 {
            Err(why) => Some(Miss::Unknown("sha256", why)),
            Ok(found) if *found == wanted => None,
            Ok(found) => Some(Miss::OtherDigest(program, *found)),
        }
    }

    fn unit_miss<'a>(&self, caller: &'a Caller) -> Option<Miss<'a>> {
        let wanted = self.unit.as_ref()?;
        let unit = match &caller.facts.unit {
            Err(why) => return Some(Miss::Unknown("unit", why)),
            Ok(unit) => unit,
        };
        let users = |user: &UserUnit| user.uid == wanted.of_user && user.name == wanted.name;
        let found = unit.system == wanted.name || unit.user.as_ref().is_some_and(users);
        if found { None } else { Some(Miss::OtherUnit(unit)) }
    }
}

impl Miss<'_> {
    fn is_temporary(self) -> bool {
        matches!(self, Self::Unknown(_, why) if why.is_temporary())
    }
}

/// The text tells the caller about itself, and never what the rule names.
impl fmt::Display for Miss<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(key, why) => write!(f, "`{key}` cannot be told: {why}"),
            Self::OtherProgram(Program { path, is_helper: true, .. }) => write!(
                f,
                "`exe` is another than {path:?}; behind a helper only `uid`, `gid` and `unit` can match, or the program \
                asks the socket itself"
            ),
            Self::OtherProgram(program) => write!(f, "`exe` is another than {:?}", program.path),
            Self::Replaced(program) => write!(
                f,
                "the file that runs is not the one that stands at {:?} now; start the program again",
                program.path
            ),
            Self::OtherMounts(program) => write!(
                f,
                "{:?} runs in another mount namespace than the daemon, where `exe` counts only together with `sha256`",
                program.path
            ),
            Self::OtherDigest(program, found) => {
                write!(f, "`sha256` is another than that of {:?}, {found}", program.path)
            }
            Self::OtherUnit(unit) => write!(f, "`unit` is another than {unit}"),
        }
    }
}

#[cfg(test)]
mod tests;
