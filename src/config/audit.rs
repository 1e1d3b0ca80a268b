//! `[audit]`: the file that records every decision.

use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::keys;
use super::reader::{Found, Reader};
use crate::audit::Config;
use crate::env::Env;

/// Reads the table. The directory of the file is checked when the file is opened, because it may change until then.
pub(super) fn audit_of<'a>(reader: &mut Reader<'a>, at: usize, table: &'a DeTable<'a>, env: &Env) -> Option<Config> {
    let section = reader.section(Found { path: "audit", at, table }, &keys::AUDIT, &[]);
    let Some((text, line)) = section.text("file") else {
        if !section.has("file") {
            reader.problem(section.line, &section.key("file"), "missing: without it nothing is recorded");
        }
        return None;
    };
    if !Path::new(text).is_absolute() {
        reader.problem(line, &section.key("file"), "must be an absolute path");
    }
    Some(Config { file: PathBuf::from(text), uid: env.uid() })
}
