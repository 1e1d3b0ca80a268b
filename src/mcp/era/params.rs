//! Arguments of a tool that are fields of the request, too, so that what is on the way to the server can read them without the body.
//!
//! The schema of a tool declares them with `x-mcp-header`. A tool whose declaration is invalid must not be offered to a client.

use std::collections::BTreeMap;

use hyper::header::HeaderName;
use serde_json::{Map, Value};

use super::super::object::Object;

/// The member of a schema that declares a field.
const DECLARES: &str = "x-mcp-header";
/// The most fields of one tool. The head of a request is limited.
const MOST: usize = 64;
/// The most tools with fields that are known.
const TOOLS: usize = 4_096;
/// The longest name of a tool, and the most text of the paths that one declares.
const TEXT: usize = 16 * 1_024;

/// Schemas within a schema that apply to something else than a member of it, so that no field can be declared there.
const ELSEWHERE: [&str; 15] = [
    "items",
    "prefixItems",
    "contains",
    "contentSchema",
    "additionalProperties",
    "unevaluatedProperties",
    "unevaluatedItems",
    "propertyNames",
    "oneOf",
    "anyOf",
    "allOf",
    "not",
    "if",
    "then",
    "else",
];
/// The same, each a name with a schema.
const NAMED_ELSEWHERE: [&str; 4] = ["patternProperties", "dependentSchemas", "$defs", "definitions"];

/// One field of a tool, and where its value is in the arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Declaration {
    path: Vec<String>,
    name: HeaderName,
}

/// The declaration of a tool breaks a rule of the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Invalid;

/// The tools that were listed and have fields.
#[derive(Debug, Default)]
pub(crate) struct Tools(BTreeMap<String, Vec<Declaration>>);

/// What a list of tools holds besides good tools.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// The result without the invalid ones, as JSON.
    pub(crate) result: String,
    /// Their names.
    pub(crate) invalid: Vec<String>,
}

impl Tools {
    /// Learns from the result of a `tools/list`. `Some` if there are tools in it that must not be offered.
    pub(crate) fn learn(&mut self, result: &str) -> Option<Cut> {
        let mut object = Object::read(result)?;
        let tools: Vec<&serde_json::value::RawValue> = serde_json::from_str(object.get("tools")?).ok()?;
        let (mut good, mut invalid) = (Vec::new(), Vec::new());
        for tool in tools {
            match self.learn_tool(tool.get()) {
                Ok(()) => good.push(tool.get()),
                Err(name) => invalid.push(name),
            }
        }
        if invalid.is_empty() {
            return None;
        }
        let good = format!("[{}]", good.join(","));
        object.set("tools", good);
        Some(Cut { result: object.to_json(), invalid })
    }

    /// Fails with the name of a tool that must not be offered.
    fn learn_tool(&mut self, tool: &str) -> Result<(), String> {
        let Some(tool) = Object::read(tool) else { return Ok(()) };
        let Some(name) = tool.text("name") else { return Ok(()) };
        let declared = match tool.get("inputSchema") {
            Some(schema) if schema.contains(DECLARES) || schema.contains("\\u") => declared(schema),
            _ => Ok(Vec::new()),
        };
        self.0.remove(&name);
        match declared {
            Err(Invalid) => return Err(name),
            Ok(fields) if !fields.is_empty() && self.0.len() < TOOLS && name.len() <= TEXT => {
                self.0.insert(name, fields);
            }
            Ok(_) => {}
        }
        Ok(())
    }

    /// The fields of a call with these arguments.
    pub(crate) fn fields(&self, tool: &str, arguments: &str) -> Vec<(HeaderName, String)> {
        let Some(declared) = self.0.get(tool) else { return Vec::new() };
        let value = |declaration: &Declaration| Some((declaration.name.clone(), value(arguments, &declaration.path)?));
        declared.iter().filter_map(value).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The fields that a schema declares.
fn declared(schema: &str) -> Result<Vec<Declaration>, Invalid> {
    let schema: Value = serde_json::from_str(schema).map_err(|_| Invalid)?;
    let mut found = Vec::new();
    visit(&schema, &mut Vec::new(), Some(&mut found))?;
    let names: std::collections::BTreeSet<&str> = found.iter().map(|one| one.name.as_str()).collect();
    let of_paths = found.iter().flat_map(|one| &one.path).map(String::len).sum::<usize>();
    let text = of_paths + names.iter().map(|name| name.len()).sum::<usize>();
    let is_good = names.len() == found.len() && found.len() <= MOST && text <= TEXT;
    if is_good { Ok(found) } else { Err(Invalid) }
}

/// Reads a schema and those within it. `found` is `None` where no field can be declared.
fn visit(schema: &Value, path: &mut Vec<String>, mut found: Option<&mut Vec<Declaration>>) -> Result<(), Invalid> {
    let Value::Object(schema) = schema else { return Ok(()) };
    if let Some(name) = schema.get(DECLARES) {
        let found = found.as_deref_mut().filter(|_| !path.is_empty()).ok_or(Invalid)?;
        found.push(Declaration { path: path.clone(), name: field(name, schema)? });
    }
    if let Some(Value::Object(members)) = schema.get("properties") {
        for (name, member) in members {
            path.push(name.clone());
            visit(member, path, found.as_deref_mut())?;
            path.pop();
        }
    }
    let named = NAMED_ELSEWHERE.iter().filter_map(|name| schema.get(*name)?.as_object()).flat_map(Map::values);
    let one = ELSEWHERE.iter().filter_map(|name| schema.get(*name));
    for elsewhere in one.chain(named) {
        let several = elsewhere.as_array().map_or_else(|| std::slice::from_ref(elsewhere), Vec::as_slice);
        several.iter().try_for_each(|schema| visit(schema, path, None))?;
    }
    Ok(())
}

/// The name of a field that is declared for a member of this schema.
fn field(name: &Value, schema: &Map<String, Value>) -> Result<HeaderName, Invalid> {
    let is_plain = matches!(schema.get("type").and_then(Value::as_str), Some("string" | "integer" | "boolean"));
    let name = name.as_str().filter(|name| is_plain && !name.is_empty()).ok_or(Invalid)?;
    // It permits the characters of a token and no others.
    HeaderName::from_bytes(format!("mcp-param-{name}").as_bytes()).map_err(|_| Invalid)
}

/// The text of an argument. `None` if it is missing, null, an object or a list.
fn value(arguments: &str, path: &[String]) -> Option<String> {
    let Some((name, rest)) = path.split_first() else { return scalar(arguments) };
    let object = Object::read(arguments)?;
    value(object.get(name)?, rest)
}

fn scalar(json: &str) -> Option<String> {
    match serde_json::from_str::<Value>(json).ok()? {
        Value::String(text) => Some(text),
        Value::Bool(is_true) => Some(is_true.to_string()),
        Value::Number(number) => {
            let is_integer = json.bytes().all(|byte| matches!(byte, b'-' | b'0'..=b'9'));
            match number.as_f64()? {
                // Minus zero is zero.
                0.0 => Some("0".to_owned()),
                // Longer than a number of 64 bits, too.
                _ if is_integer => Some(json.to_owned()),
                // 42.0 and 4.2e1 are 42.
                number => Some(number.to_string()),
            }
        }
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(schema: &str) -> Result<Vec<String>, Invalid> {
        let declared = declared(schema)?;
        Ok(declared.iter().map(|one| format!("{}={}", one.path.join("."), one.name)).collect())
    }

    #[test]
    fn wire_58_fields_are_declared_by_members_at_any_depth() {
        let schema = r#"{"type":"object","properties":{
            "region":{"type":"string","x-mcp-header":"Region"},
            "x-mcp-header":{"type":"string"},
            "to":{"type":"object","default":{"x-mcp-header":1},"properties":{"dry run":{"type":"boolean","x-mcp-header":"dry"}}}}}"#;
        assert_eq!(
            names(schema),
            Ok(vec!["region=mcp-param-region".to_owned(), "to.dry run=mcp-param-dry".to_owned()])
        );
    }

    #[test]
    fn wire_58_a_declaration_that_breaks_a_rule_is_invalid() {
        for schema in [
            r#"{"x-mcp-header":"a","type":"string"}"#,
            r#"{"properties":{"a":{"type":"string","x-mcp-header":""}}}"#,
            r#"{"properties":{"a":{"type":"string","x-mcp-header":1}}}"#,
            r#"{"properties":{"a":{"type":"string","x-mcp-header":"a b"}}}"#,
            r#"{"properties":{"a":{"type":"string","x-mcp-header":"a\r\nb"}}}"#,
            r#"{"properties":{"a":{"type":"number","x-mcp-header":"a"}}}"#,
            r#"{"properties":{"a":{"type":["string"],"x-mcp-header":"a"}}}"#,
            r#"{"properties":{"a":{"x-mcp-header":"a"}}}"#,
            r#"{"properties":{"a":{"type":"string","x-mcp-header":"A"},"b":{"type":"string","x-mcp-header":"a"}}}"#,
            r#"{"properties":{"a":{"type":"array","items":{"type":"string","x-mcp-header":"a"}}}}"#,
            r#"{"properties":{"a":{"anyOf":[{"type":"string","x-mcp-header":"a"}]}}}"#,
            r#"{"$defs":{"a":{"properties":{"b":{"type":"string","x-mcp-header":"a"}}}}}"#,
            r#"{"patternProperties":{"a":{"type":"string","x-mcp-header":"a"}}}"#,
        ] {
            assert_eq!(names(schema), Err(Invalid), "{schema}");
        }
        let many: Vec<String> =
            (0..=MOST).map(|at| format!(r#""{at}":{{"type":"string","x-mcp-header":"{at}"}}"#)).collect();
        assert_eq!(names(&format!(r#"{{"properties":{{{}}}}}"#, many.join(","))), Err(Invalid));
        let long = format!(r#"{{"properties":{{"{}":{{"type":"string","x-mcp-header":"a"}}}}}}"#, "x".repeat(TEXT + 1));
        assert_eq!(names(&long), Err(Invalid), "what is kept has a limit");
    }

    #[test]
    fn wire_58_the_invalid_tools_of_a_list_are_hidden() {
        let mut tools = Tools::default();
        let list = r#"{"ttlMs":0,"tools":[{"name":"bad","inputSchema":{"x-mcp-header":1}}, {"name":"ok","x":1.0,"inputSchema":
            {"properties":{"a":{"type":"string","x-mcp-header":"A"}}}},{"name":"plain","inputSchema":{}}],"nextCursor":"n"}"#;
        let cut = tools.learn(list).expect("one is invalid");
        assert_eq!(cut.invalid, ["bad"]);
        assert!(cut.result.starts_with(r#"{"ttlMs":0,"tools":[{"name":"ok","x":1.0,"#), "{}", cut.result);
        assert!(cut.result.ends_with(r#"{"name":"plain","inputSchema":{}}],"nextCursor":"n"}"#), "{}", cut.result);
        let fields = |tools: &Tools| tools.fields("ok", r#"{"a":"x"}"#);
        assert_eq!(fields(&tools), [(HeaderName::from_static("mcp-param-a"), "x".to_owned())]);
        // The next list says something else.
        assert_eq!(tools.learn(r#"{"tools":[{"name":"ok","inputSchema":{}}]}"#), None);
        assert!(fields(&tools).is_empty() && tools.is_empty());
    }

    #[test]
    fn wire_58_the_value_of_a_field_is_that_of_the_argument_and_null_is_none() {
        let of = |value_of: &str| value(&format!(r#"{{"a":{{"b":{value_of}}}}}"#), &["a".to_owned(), "b".to_owned()]);
        for (json, text) in [
            (r#""\u00e4 b""#, "ä b"),
            (r#""""#, ""),
            ("true", "true"),
            ("42", "42"),
            ("-7", "-7"),
            ("-0", "0"),
            ("42.0", "42"),
            ("4.2e1", "42"),
            ("0.5", "0.5"),
            ("12345678901234567890123", "12345678901234567890123"),
        ] {
            assert_eq!(of(json).as_deref(), Some(text), "{json}");
        }
        for none in ["null", "[]", "{}", r#"{"b":1}"#] {
            assert_eq!(of(none), None, "{none}");
        }
        assert_eq!(value(r#"{"a":1}"#, &["a".to_owned(), "b".to_owned()]), None);
        assert_eq!(value("[]", &["a".to_owned()]), None);
    }
}
