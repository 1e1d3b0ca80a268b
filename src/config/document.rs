//! What `config schema` and `config init` print, made from the table of keys.

use serde_json::{Map, Value, json};

use super::keys::{self, Key, Kind, Table};
use crate::identity::{self, Descriptor, Need, SOURCES, Setting};

/// The JSON Schema of the configuration file. Keys of later versions are not in it: they are refused.
pub(crate) fn schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "safeconduct.toml",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "identity": with_sources(object(&keys::IDENTITY)),
            "identities": { "type": "object", "description": "Further identities by name.", "additionalProperties": with_sources(object(&keys::IDENTITIES)) },
            "servers": { "type": "object", "description": "MCP servers by name.", "additionalProperties": object(&keys::SERVER) },
            "listen": object(&keys::LISTEN),
            "egress": object(&keys::EGRESS),
            "keyring": object(&keys::KEYRING),
            "audit": object(&keys::AUDIT),
        },
    })
}

/// The keys of all sources, and for each source which of them it has and needs.
fn with_sources(mut table: Value) -> Value {
    let settings: Vec<(&str, &Setting)> =
        SOURCES.iter().flat_map(|row| row.settings.iter().map(|one| (row.name, one))).collect();
    for (_, one) in &settings {
        let docs = settings.iter().filter(|(_, same)| same.name == one.name);
        let docs: Vec<String> = docs.map(|(row, same)| format!("{row}: {}", same.doc)).collect();
        let mut property = match one.kind {
            identity::Kind::Text => json!({ "type": "string", "minLength": 1 }),
            identity::Kind::Texts | identity::Kind::Command => {
                json!({ "type": "array", "minItems": 1, "items": { "type": "string" } })
            }
            identity::Kind::Flag => json!({ "type": "boolean" }),
        };
        property["description"] = json!(docs.join(" "));
        table["properties"][one.name] = property;
    }
    let names: Vec<&str> = SOURCES.iter().map(|row| row.name).collect();
    table["properties"]["source"]["enum"] = json!(names);
    let rows: Vec<Value> = SOURCES.iter().map(|row| of_row(row, &settings)).collect();
    table["allOf"] = json!(rows);
    table
}

/// What holds when this row is the source.
fn of_row(row: &Descriptor, all: &[(&str, &Setting)]) -> Value {
    let has = |name: &str| row.settings.iter().any(|one| one.name == name);
    let of_others: Map<String, Value> =
        all.iter().filter(|(_, one)| !has(one.name)).map(|(_, one)| (one.name.to_owned(), json!(false))).collect();
    let needed = |need: Need| row.settings.iter().filter(move |one| one.need == need);
    let required: Vec<&str> = needed(Need::Required).map(|one| one.name).collect();
    let mut then = json!({ "properties": of_others, "required": required });
    let given = |one: &Setting| match one.kind {
        identity::Kind::Flag => json!({ "properties": { one.name: { "const": true } }, "required": [one.name] }),
        _ => json!({ "required": [one.name] }),
    };
    let alternatives: Vec<Value> = needed(Need::OneOf).map(given).collect();
    if !alternatives.is_empty() {
        then["oneOf"] = json!(alternatives);
    }
    let exclusive: Vec<&str> = needed(Need::AtMostOne).map(|one| one.name).collect();
    let pairs = exclusive.iter().enumerate().flat_map(|(i, a)| exclusive[i + 1..].iter().map(move |b| [a, b]));
    let pairs: Vec<Value> = pairs.map(|pair| json!({ "required": pair })).collect();
    if !pairs.is_empty() {
        then["not"] = json!({ "anyOf": pairs });
    }
    json!({ "if": { "properties": { "source": { "const": row.name } }, "required": ["source"] }, "then": then })
}

fn object(table: &'static Table) -> Value {
    let properties: Map<String, Value> = built(table).map(|key| (key.name.to_owned(), property(key))).collect();
    let required: Vec<&str> = built(table).map(|key| key.name).filter(|name| ["url", "file"].contains(name)).collect();
    json!({ "type": "object", "description": table.doc, "additionalProperties": false, "required": required, "properties": properties })
}

fn property(key: &Key) -> Value {
    let mut property = match key.kind {
        Kind::Text | Kind::Later => json!({ "type": "string" }),
        Kind::Texts => json!({ "type": "array", "items": { "type": "string" } }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Number => json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX }),
        Kind::Span => json!({ "type": "string", "pattern": "^[0-9]+[smh]?$" }),
        Kind::Rate => json!({ "type": "string", "pattern": "^[1-9][0-9]*/[smh]$" }),
        Kind::Pairs => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
        Kind::Rules => json!({ "type": "array", "minItems": 1, "items": object(&keys::RULE) }),
        Kind::Provider => object(&keys::IDP),
        Kind::FrontDoor => object(&keys::OUTER),
    };
    property["description"] = json!(key.doc);
    property
}

fn built(table: &'static Table) -> impl Iterator<Item = &'static Key> {
    table.keys.iter().filter(|key| key.kind != Kind::Later)
}

/// A starter file: one server, everything else as comments.
pub(crate) fn starter() -> String {
    let mut text = "# safeconduct.toml: workload identity in, MCP access tokens out.\n# Every line that starts with `#` shows a default or an example.\n".to_owned();
    for table in
        keys::TABLES.iter().filter(|table| !["allow", "idp", "outer"].iter().any(|inner| table.name.ends_with(inner)))
    {
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
