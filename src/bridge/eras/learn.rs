//! Fields of a tool call that repeat arguments, and the tools that declare them wrongly. For clients of either wire: one on stdio has
//! no fields, so that nobody else makes them.

use std::time::Duration;

use hyper::HeaderMap;
use tokio::time::Instant;

use super::super::Bridge;
use super::super::fields::encoded;
use super::super::link::Lane;
use super::super::told::Why;
use super::Protocol;
use super::made::{Made, new_id};
use crate::mcp::era::request;
use crate::mcp::object::Object;
use crate::mcp::rpc;

/// The most pages of one list.
const PAGES: usize = 64;
/// So long the list may take.
const LIMIT: Duration = Duration::from_secs(30);
/// The most bytes of all these fields of one call. The daemon limits the head of a request.
const BYTES: usize = 8 * 1_024;

impl Bridge {
    /// Learns from a list of tools. `Some`: the list without tools that must not be offered.
    pub(super) fn good_tools(&self, result: &str) -> Option<String> {
        let cut = self.eras.tools().learn(result)?;
        let is_hidden = self.eras.protocol == Protocol::Auto;
        for tool in cut.invalid {
            let tool: String = tool.chars().take(128).collect();
            tracing::warn!(?tool, is_hidden, "a tool declares a header field against the rules of the specification");
        }
        is_hidden.then_some(cut.result)
    }

    /// The same for a whole answer.
    pub(in crate::bridge) fn with_good_tools(&self, line: Vec<u8>) -> Vec<u8> {
        let cut = || {
            let mut answer = Object::read(std::str::from_utf8(&line).ok()?)?;
            let good = self.good_tools(answer.get("result")?)?;
            answer.set("result", good);
            Some(answer.to_json().into_bytes())
        };
        cut().unwrap_or(line)
    }

    /// Adds the fields that repeat arguments of a call.
    pub(in crate::bridge) fn add_param_fields(
        &self,
        fields: &mut HeaderMap,
        method: &str,
        body: &[u8],
    ) -> Result<(), Why> {
        if method != "tools/call" || self.eras.tools().is_empty() {
            return Ok(());
        }
        let params = rpc::params(body).and_then(|params| Object::read(params.get()));
        let Some((params, tool)) = params.and_then(|params| params.text("name").map(|tool| (params, tool))) else {
            return Ok(());
        };
        let Some(arguments) = params.get("arguments") else { return Ok(()) };
        let mut bytes = 0;
        for (name, value) in self.eras.tools().fields(&tool, arguments) {
            let value = encoded(&value).map_err(|_| Why::NameTooLong)?;
            bytes += name.as_str().len() + value.len();
            if bytes > BYTES {
                return Err(Why::NameTooLong);
            }
            fields.insert(name, value);
        }
        Ok(())
    }

    /// Lists the tools anew, because the server says that a field is missing or another one. Where that fails, what was known stays.
    pub(in crate::bridge) async fn learn_anew(&self, meta: &str) {
        let refused = Instant::now();
        let learnt = async {
            let mut last = self.eras.learning.lock().await;
            // Calls that were refused together need one list, begun after the refusals.
            if last.is_some_and(|begun| begun > refused) {
                return Ok(());
            }
            let begun = Instant::now();
            self.list_tools(meta).await.inspect(|()| *last = Some(begun))
        };
        match tokio::time::timeout(LIMIT, learnt).await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => tracing::warn!(?why, "the tools cannot be listed anew"),
            Err(_) => tracing::warn!("the list of the tools is not there within half a minute"),
        }
    }

    async fn list_tools(&self, meta: &str) -> Result<(), Why> {
        let mut cursor = None;
        for _ in 0..PAGES {
            let id = new_id();
            let message = request::list_tools(id.as_str(), meta, cursor.as_deref());
            let reply = self.exchange(Made::new(id), "tools/list", message.into(), Lane::Requests).await?;
            let answer = Object::read(&reply.text).ok_or(Why::Malformed)?;
            let result = answer.get("result").ok_or(Why::Malformed)?;
            self.good_tools(result);
            cursor = Object::read(result).and_then(|result| result.text("nextCursor"));
            if cursor.is_none() {
                break;
            }
        }
        Ok(())
    }
}
