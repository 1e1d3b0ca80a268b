//! The names of systemd units.

use std::fmt;
use std::sync::Arc;

/// The types of units that have processes of their own. Processes of other units are helpers of systemd.
const TYPES: [&str; 2] = [".service", ".scope"];

/// The whole name of a unit that can have processes of its own: `agent.service`, `session-3.scope`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitName(Arc<str>);

impl UnitName {
    /// Fails for anything that systemd would not accept as the name of a service or scope (`systemd.unit(5)`).
    pub fn parse(name: &str) -> Option<Self> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
        let stem = TYPES.iter().find_map(|kind| name.strip_suffix(kind));
        let is_name = name.len() <= 255 && name.bytes().all(allowed) && stem.is_some_and(|stem| !stem.is_empty());
        is_name.then(|| Self(name.into()))
    }

    /// As systemd writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
