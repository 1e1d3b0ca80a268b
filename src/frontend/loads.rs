//! What the daemon has read: which file, when, and whether it could read it again. For status and metrics.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde_json::{Value, json};

use super::operator::Unchanged;
use crate::clock::rfc3339;
use crate::metrics::LastReload;
use crate::oauth::words;

/// The configuration in use, and the last attempt to replace it if that failed.
pub(crate) struct Loads(Mutex<Load>);

struct Load {
    /// `None`: the command line names everything.
    file: Option<PathBuf>,
    read: SystemTime,
    failed: Option<(SystemTime, Unchanged)>,
}

impl Loads {
    pub(crate) fn new(file: Option<PathBuf>, read: SystemTime) -> Self {
        Self(Mutex::new(Load { file, read, failed: None }))
    }

    /// A new configuration is in use.
    pub(crate) fn taken_over(&self, file: Option<PathBuf>, read: SystemTime) {
        *self.lock() = Load { file, read, failed: None };
    }

    /// The file in use.
    pub(crate) fn file(&self) -> Option<PathBuf> {
        self.lock().file.clone()
    }

    /// A new configuration is not taken over.
    pub(crate) fn failed(&self, at: SystemTime, why: Unchanged) {
        self.lock().failed = Some((at, why));
    }

    /// For those who may operate the daemon: its files are not for others.
    pub(super) fn explain(&self) -> Value {
        let load = self.lock();
        let failed = load.failed.as_ref().map(|(at, why)| {
            json!({
                "at": rfc3339(*at), "class": why.class.as_str(), "error_description": words::one_line(&why.words),
                "hint": why.hint.as_deref().map(words::one_line),
            })
        });
        json!({ "file": load.file, "read_at": rfc3339(load.read), "failed_reload": failed })
    }

    pub(super) fn last(&self) -> LastReload {
        let load = self.lock();
        let read = load.read.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        LastReload { is_in_use: load.failed.is_none(), read: i64::try_from(read.as_secs()).unwrap_or(i64::MAX) }
    }

    fn lock(&self) -> MutexGuard<'_, Load> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::broker::Class;

    #[test]
    fn a_failed_reload_is_told_until_one_succeeds_and_keeps_the_file_in_use() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let loads = Loads::new(Some("/a.toml".into()), at(1));
        assert_eq!(loads.last(), LastReload { is_in_use: true, read: 1 });
        let why = Unchanged { class: Class::Config, words: "line 1:\nwrong".to_owned(), hint: None };
        loads.failed(at(2), why);
        let told = loads.explain();
        assert_eq!((&told["file"], &told["read_at"]), (&json!("/a.toml"), &json!("1970-01-01T00:00:01Z")));
        assert_eq!(told["failed_reload"]["error_description"], "line 1: wrong");
        assert_eq!(loads.last(), LastReload { is_in_use: false, read: 1 });
        loads.taken_over(None, at(3));
        assert!(loads.explain()["failed_reload"].is_null());
        assert_eq!(loads.last(), LastReload { is_in_use: true, read: 3 });
    }
}
