//! What can be told of a message of which only the beginning is there.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{Id, Once, SKIP};

/// The id of the request that begins so. `None` if it is not in this part, if it occurs twice, or if this is the answer to a
/// request.
pub(crate) fn request_id(beginning: &[u8]) -> Option<Id> {
    // The last character may be cut.
    let valid = match std::str::from_utf8(beginning) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&beginning[..error.valid_up_to()]).ok()?,
    };
    let mut seen = Seen::default();
    // It fails at the cut; what was seen before counts.
    drop(serde_json::Deserializer::from_str(valid).deserialize_map(&mut seen));
    seen.id.one().filter(|_| !seen.is_response)
}

#[derive(Default)]
struct Seen {
    id: Once<Id>,
    is_response: bool,
}

impl<'de> Visitor<'de> for &mut Seen {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON-RPC message")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        let mut last = None;
        loop {
            let key = object.next_key::<Cow<'de, str>>();
            // A number at the cut may go on. What another member follows is complete.
            if let (Ok(_), Some(id)) = (&key, last.take()) {
                self.id.add(id);
            }
            match key?.as_deref() {
                None => return Ok(()),
                Some("id") => last = Id::of(object.next_value::<&RawValue>()?),
                Some(name) => {
                    self.is_response |= matches!(name, "result" | "error");
                    object.next_value_seed(SKIP)?;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(beginning: &str) -> Option<String> {
        request_id(beginning.as_bytes()).map(|id| id.as_str().to_owned())
    }

    #[test]
    fn the_id_before_the_cut_is_found_and_no_other() {
        let found = |text: &str| id(text).unwrap_or_default();
        assert_eq!(found(r#"{"jsonrpc":"2.0","id":1.0,"method":"tools/call","params":{"a":"xxxx"#), "1.0");
        assert_eq!(found(r#"{"jsonrpc":"2.0","\u0069d":"a\n","method":"x","params":[[[{"id":2"#), r#""a\n""#);
        assert_eq!(found("{\"id\":7,\"params\":{\"a\":\"\u{1f600}"), "7");
        for none in [
            r#"{"id":12"#,
            r#"{"id":1,"id":2,"params":""#,
            r#"{"params":{"id":1,"a":"xx"#,
            r#"{"id":1,"result":{"a":"xx"#,
            r#"{"id":[1],"params":""#,
            r#"[{"id":1,"params":""#,
            "",
            "xxxx",
        ] {
            assert_eq!(id(none), None, "{none}");
        }
        let mut cut = "{\"id\":7,\"params\":{\"a\":\"\u{1f600}".as_bytes().to_vec();
        cut.pop();
        assert_eq!(request_id(&cut).expect("it is before the cut").as_str(), "7", "a cut within a character");
    }
}
