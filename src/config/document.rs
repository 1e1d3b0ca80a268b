//! What `config schema` and `config init` print, made from the table of keys.

use serde_json::{Map, Value, json};

use super::keys::{self, Key, Kind, Table};
use crate::identity;

/// The JSON Schema of the configuration file. Keys of later versions are not in it: they are refused.
pub(crate) fn schema() -> Value {
    let mut identity = object(&keys::IDENTITY);
    let mut identities = object(&keys::IDENTITIES);
    for (name, doc) in identity::SOURCES.iter().flat_map(|row| row.settings) {
        identity["properties"][name] = json!({ "description": doc });
        identities["properties"][name] = json!({ "description": doc });
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "wayleave.toml",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "identity": identity,
            "identities": { "type": "object", "description": "Further identities by name.", "additionalProperties": identities },
            "servers": { "type": "object", "description": "MCP servers by name.", "additionalProperties": object(&keys::SERVER) },
            "listen": object(&keys::LISTEN),
            "egress": object(&keys::EGRESS),
            "keyring": object(&keys::KEYRING),
        },
    })
}

fn object(table: &'static Table) -> Value {
    let properties: Map<String, Value> = built(table).map(|key| (key.name.to_owned(), property(key))).collect();
    let required: Vec<&str> = built(table).map(|key| key.name).filter(|name| *name == "url").collect();
    json!({ "type": "object", "description": table.doc, "additionalProperties": false, "required": required, "properties": properties })
}

fn property(key: &Key) -> Value {
    let mut property = match key.kind {
        Kind::Text | Kind::Later => json!({ "type": "string" }),
        Kind::Texts => json!({ "type": "array", "items": { "type": "string" } }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Number => json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX }),
        Kind::Pairs => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
        Kind::Rules => json!({ "type": "array", "minItems": 1, "items": object(&keys::RULE) }),
        Kind::Provider => object(&keys::IDP),
    };
    property["description"] = json!(key.doc);
    property
}

fn built(table: &'static Table) -> impl Iterator<Item = &'static Key> {
    table.keys.iter().filter(|key| key.kind != Kind::Later)
}

/// A starter file: one server, everything else as comments.
pub(crate) fn starter() -> String {
    let mut text = "# wayleave.toml: workload identity in, MCP access tokens out.\n# Every line that starts with `#` shows a default or an example.\n".to_owned();
    for table in keys::TABLES.iter().filter(|table| !table.name.ends_with("allow") && !table.name.ends_with("idp")) {
        let is_server = table.name == "servers.NAME";
        let name = table.name.replace("NAME", "example");
        let mark = if is_server { "" } else { "# " };
        text.push_str(&format!("\n# {}\n{mark}[{name}]\n", table.doc));
        for key in built(table) {
            let mark = if key.name == "url" { "" } else { "# " };
            text.push_str(&format!("{mark}{} = {}  # {}\n", key.name, key.example, key.doc));
        }
    }
    text
}
