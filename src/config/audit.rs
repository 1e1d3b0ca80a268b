//! `[audit]`: where every decision is recorded.

use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::keys;
use super::reader::{Found, Reader};
use crate::audit::Config;
use crate::env::Env;

/// Where it may lie is checked when it is opened: directories change.
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
