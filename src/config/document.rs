//! The output of `config schema` and `config init`, generated from the tables of keys.

use serde_json::{Map, Value, json};

use super::exchange;
use super::keys::{self, Key, Kind, Table};
use crate::exchange::Place;
use crate::identity::{Descriptor, SOURCES};
use crate::setting::{self, Need, Setting};

/// The JSON Schema of the configuration file. It leaves out the keys of later versions, which are refused.
pub(crate) fn schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "safeconduct.toml",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "identity": with_sources(object(&keys::IDENTITY)),
            "identities": { "type": "object", "description": "Further identities by name.", "additionalProperties": with_sources(with_exchanges(object(&keys::IDENTITIES), Place::Link)) },
            "servers": { "type": "object", "description": "MCP servers by name.", "additionalProperties": with_exchanges(object(&keys::SERVER), Place::Server) },
            "listen": object(&keys::LISTEN),
            "egress": object(&keys::EGRESS),
            "keyring": object(&keys::KEYRING),
            "audit": object(&keys::AUDIT),
        },
    })
}

/// Adds the keys of all sources, with a rule for each source that says which keys it allows and requires.
fn with_sources(mut table: Value) -> Value {
    let settings: Vec<(&str, &Setting)> =
        SOURCES.iter().flat_map(|row| row.settings.iter().map(|one| (row.name, one))).collect();
    for (_, one) in &settings {
        let docs = settings.iter().filter(|(_, same)| same.name == one.name);
        let docs: Vec<String> = docs.map(|(row, same)| format!("{row}: {}", same.doc)).collect();
        let mut property = of_setting(one);
        // An exchange may have a key of the same name.
        let before = table["properties"][one.name]["description"].as_str().map(str::to_owned);
        property["description"] = json!(before.into_iter().chain([docs.join(" ")]).collect::<Vec<_>>().join(" "));
        table["properties"][one.name] = property;
    }
    let names: Vec<&str> = SOURCES.iter().map(|row| row.name).collect();
    table["properties"]["source"]["enum"] = json!(names);
    let rows: Vec<Value> = SOURCES.iter().map(|row| of_row(row, &settings)).collect();
    table["allOf"] = json!(rows);
    table
}

fn of_setting(one: &Setting) -> Value {
    match one.kind {
        setting::Kind::Text => json!({ "type": "string", "minLength": 1 }),
        setting::Kind::Texts | setting::Kind::Command => {
            json!({ "type": "array", "minItems": 1, "items": { "type": "string" } })
        }
        setting::Kind::Flag => json!({ "type": "boolean" }),
    }
}

/// Adds the own keys of the exchanges that this kind of table can name.
fn with_exchanges(mut table: Value, place: Place) -> Value {
    for (names, one) in exchange::own_keys(place) {
        let mut property = of_setting(one);
        // Several exchanges may have a key of the same name with different meanings.
        let before = table["properties"][one.name]["description"].as_str().map(str::to_owned);
        property["description"] = json!(before.into_iter().chain([about(&names, one)]).collect::<Vec<_>>().join(" "));
        table["properties"][one.name] = property;
    }
    table
}

/// The meaning of a key, with the exchanges that have it.
fn about(names: &[&str], one: &Setting) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    format!("{}: {}", names.join(", "), one.doc)
}

/// The rule that applies if `source` names this row.
fn of_row(row: &Descriptor, all: &[(&str, &Setting)]) -> Value {
    let has = |name: &str| row.settings.iter().any(|one| one.name == name);
    let mut of_others = Map::new();
    of_others.extend(all.iter().filter(|(_, one)| !has(one.name)).map(|(_, one)| (one.name.to_owned(), json!(false))));
    let needed = |need: Need| row.settings.iter().filter(move |one| one.need == need);
    let required: Vec<&str> = needed(Need::Required).map(|one| one.name).collect();
    let mut then = json!({ "properties": of_others, "required": required });
    let given = |one: &Setting| match one.kind {
        setting::Kind::Flag => json!({ "properties": { one.name: { "const": true } }, "required": [one.name] }),
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
    let mut properties = Map::new();
    properties.extend(built(table).map(|key| (key.name.to_owned(), property(key))));
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
        Kind::Parameters => {
            let token = json!({
                "type": "object",
                "required": ["identity"],
                "additionalProperties": false,
                "properties": { "identity": { "type": "string" } },
            });
            json!({ "type": "object", "additionalProperties": { "oneOf": [{ "type": "string" }, token] } })
        }
        Kind::Rules => json!({ "type": "array", "minItems": 1, "items": object(&keys::RULE) }),
        Kind::Provider => {
            let mut table = object(&keys::IDP);
            for one in crate::exchange::IDP.settings {
                table["properties"][one.name] = of_setting(one);
                table["properties"][one.name]["description"] = json!(one.doc);
            }
            table
        }
        Kind::FrontDoor => with_exchanges(object(&keys::OUTER), Place::FrontDoor),
    };
    property["description"] = json!(key.doc);
    property
}

/// The keys that this version supports.
pub(super) fn built(table: &'static Table) -> impl Iterator<Item = &'static Key> {
    table.keys.iter().filter(|key| key.kind != Kind::Later)
}

/// The starter file: one server; all other keys are comments.
pub(crate) fn starter() -> String {
    let mut text = "# safeconduct.toml: workload identity in, MCP access tokens out.\n# Every line that starts with `#` shows a default or an example.\n# It is looked for in ~/.config/safeconduct/ and /etc/safeconduct/; `--config` and SAFECONDUCT_CONFIG name another.\n".to_owned();
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
        let of_exchanges = match table.name {
            "servers.NAME" => exchange::own_keys(Place::Server),
            "identities.NAME" => exchange::own_keys(Place::Link),
            _ => Vec::new(),
        };
        for (names, one) in of_exchanges.iter().filter(|(_, one)| !one.example.is_empty()) {
            text.push_str(&format!("# {} = {}  # {}\n", one.name, one.example, about(names, one)));
        }
    }
    text
}
