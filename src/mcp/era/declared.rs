//! What a client says of itself: in `initialize` on the older wire, in `_meta` of each request on the newer one.

use super::super::object::{Object, quoted};
use super::super::rpc;
use super::input::Kind;
use super::{CLIENT_CAPABILITIES, CLIENT_INFO, LOG_LEVEL, PROTOCOL_VERSION, VERSION};

/// The longest of each that is repeated in every request.
const CAP: usize = 64 * 1_024;
/// The levels of RFC 5424 that `logging/setLevel` knows.
const LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];

/// What a client declared, as JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Declared {
    info: Option<String>,
    capabilities: String,
    /// The version that it asked for.
    pub(super) version: Option<String>,
}

impl Declared {
    /// Reads an `initialize`. `None` if it has no capabilities, or if they are too long.
    pub(crate) fn read(initialize: &[u8]) -> Option<Self> {
        let params = Object::read(rpc::params(initialize)?.get())?;
        let part = |name| params.get(name).filter(|value| value.starts_with('{') && value.len() <= CAP);
        Some(Self {
            info: part("clientInfo").map(str::to_owned),
            capabilities: part("capabilities")?.to_owned(),
            version: params.text("protocolVersion"),
        })
    }

    /// Did the client declare that it can be asked this?
    pub(crate) fn covers(&self, kind: Kind) -> bool {
        let Some(capabilities) = Object::read(&self.capabilities) else { return false };
        let of = |name| capabilities.get(name).and_then(Object::read);
        match kind {
            Kind::Roots => of("roots").is_some(),
            Kind::Sampling => of("sampling").is_some(),
            Kind::SamplingWithTools => of("sampling").is_some_and(|sampling| sampling.get("tools").is_some()),
            // Before there were modes, a form was meant.
            Kind::Form => {
                of("elicitation").is_some_and(|modes| modes.get("form").is_some() || modes.get("url").is_none())
            }
            // The wires differ in how its end is told.
            Kind::Url => false,
        }
    }
}

/// What the `_meta` of each request holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    declared: Declared,
    level: Option<&'static str>,
}

impl Meta {
    pub(crate) fn new(declared: Declared) -> Self {
        Self { declared, level: None }
    }

    pub(crate) fn declared(&self) -> &Declared {
        &self.declared
    }

    /// From now on the server sends messages of its log of this level and above. `false` if there is no such level.
    pub(crate) fn set_level(&mut self, level: &str) -> bool {
        let found = LEVELS.iter().find(|known| **known == level);
        self.level = found.copied().or(self.level);
        found.is_some()
    }

    /// The same `_meta` with these members. `None` if it is no object.
    pub(crate) fn added_to(&self, meta: Option<&str>) -> Option<String> {
        let mut meta = meta.map_or_else(|| Some(Object::default()), Object::read)?;
        meta.set(PROTOCOL_VERSION, quoted(VERSION));
        meta.set(CLIENT_CAPABILITIES, &*self.declared.capabilities);
        for (name, value) in [(CLIENT_INFO, self.declared.info.clone()), (LOG_LEVEL, self.level.map(quoted))] {
            match value {
                Some(value) => meta.set(name, value),
                None => drop(meta.remove(name)),
            }
        }
        Some(meta.to_json())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(capabilities: &str) -> Declared {
        let body = format!(
            r#"{{"id":1,"method":"initialize","params":{{"protocolVersion":"2025-06-18","capabilities":{capabilities}}}}}"#
        );
        Declared::read(body.as_bytes()).expect("it is good")
    }

    #[test]
    fn exactly_what_the_client_declared_is_declared_upstream() {
        let body = br#"{"id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25",
            "capabilities":{ "roots" : {"listChanged":true}, "x":1.0},"clientInfo":{"name":"\u00e4"}}}"#;
        let mut meta = Meta::new(Declared::read(body).expect("it is good"));
        let client = r#"{"progressToken":1.0,"io.modelcontextprotocol/clientCapabilities":{"sampling":{}},"io.modelcontextprotocol/logLevel":"debug"}"#;
        let expected = concat!(
            r#"{"progressToken":1.0,"io.modelcontextprotocol/clientCapabilities":{ "roots" : {"listChanged":true}, "x":1.0},"#,
            r#""io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"\u00e4"}}"#
        );
        assert_eq!(
            meta.added_to(Some(client)).as_deref(),
            Some(expected),
            "the log level is what `logging/setLevel` says"
        );
        assert!(!meta.set_level("loud") && meta.set_level("notice") && !meta.set_level("NOTICE"));
        assert!(meta.added_to(None).expect("an object").ends_with(r#""io.modelcontextprotocol/logLevel":"notice"}"#));
        assert_eq!(meta.added_to(Some("[]")), None);
    }

    #[test]
    fn a_kind_counts_if_the_client_declared_it() {
        use Kind::{Form, Roots, Sampling, SamplingWithTools, Url};
        let all = [Roots, Sampling, SamplingWithTools, Form, Url];
        for (capabilities, covered) in [
            ("{}", &[][..]),
            (r#"{"roots":{}}"#, &[Roots]),
            (r#"{"roots":null,"sampling":true,"elicitation":[]}"#, &[]),
            (r#"{"sampling":{}}"#, &[Sampling]),
            (r#"{"sampling":{"tools":{}}}"#, &[Sampling, SamplingWithTools]),
            (r#"{"elicitation":{}}"#, &[Form]),
            (r#"{"elicitation":{"form":{},"url":{}}}"#, &[Form]),
            (r#"{"elicitation":{"url":{}}}"#, &[]),
            (r#"{"roots":{},"roots":{}}"#, &[]),
        ] {
            let declared = declared(capabilities);
            let found: Vec<Kind> = all.into_iter().filter(|kind| declared.covers(*kind)).collect();
            assert_eq!(found, covered, "{capabilities}");
        }
    }

    #[test]
    fn an_initialize_without_capabilities_is_not_translated() {
        let long = format!(r#"{{"method":"initialize","params":{{"capabilities":{{"x":"{}"}}}}}}"#, "x".repeat(CAP));
        for body in [r#"{"method":"initialize"}"#, r#"{"method":"initialize","params":{"capabilities":[]}}"#, &long] {
            assert_eq!(Declared::read(body.as_bytes()), None);
        }
    }
}
