//! `[listen]`: where the daemon listens.

use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::reader::Reader;
use super::{Listen, keys};
use crate::env::Env;

pub(super) fn listen_of<'a>(reader: &mut Reader<'a>, at: usize, table: &'a DeTable<'a>, env: &Env) -> Listen {
    let section = reader.section("listen", at, table, &keys::LISTEN, &[]);
    let socket = section.text("socket").map(|(text, line)| {
        if !Path::new(text).is_absolute() {
            reader.problem(line, "listen.socket", "must be an absolute path");
        }
        PathBuf::from(text)
    });
    let mode = match section.text("socket_mode") {
        None => 0o600,
        Some((text, line)) => match u32::from_str_radix(text.trim_start_matches("0o"), 8) {
            Ok(mode @ (0o600 | 0o660)) => mode,
            _ => {
                reader.problem(line, "listen.socket_mode", format!("{text:?} is neither \"0600\" nor \"0660\""));
                0o600
            }
        },
    };
    let group = section.text("socket_group").and_then(|(text, line)| {
        let group = env.group_id(text);
        if group.is_none() {
            reader.problem(line, "listen.socket_group", format!("there is no group {text:?}"));
        }
        group
    });
    if mode == 0o660 && !section.has("socket_group") {
        reader.problem(
            section.line_of("socket_mode"),
            "listen.socket_mode",
            "\"0660\" needs `socket_group`, which says who is let in",
        );
    }
    if mode == 0o600 && section.has("socket_group") {
        reader.problem(
            section.line_of("socket_group"),
            "listen.socket_group",
            "has no effect without `socket_mode = \"0660\"`",
        );
    }
    Listen { socket, mode, group }
}
