//! One request to a server without sessions, and its answer.

use bytes::Bytes;
use hyper::{HeaderMap, Method, StatusCode};

use super::super::Bridge;
use super::super::events::{Progress, drain};
use super::super::fields::{self, Media, Wire, media};
use super::super::link::{Answer, Lane, Outbound};
use super::super::message::Route;
use super::super::passing::is_passing;
use super::super::post::no_message;
use super::super::told::Why;
use super::Met;
use super::made::Made;
use crate::mcp::era::is_header_mismatch;
use crate::mcp::rpc::Id;

/// The longest request that is kept to be sent again.
pub(in crate::bridge) const KEPT: usize = 4 * 1024 * 1024;

/// The answer of the server.
pub(super) struct Reply {
    status: StatusCode,
    pub(super) text: String,
}

impl Reply {
    /// Is it a failure that passes, whatever the body says?
    pub(super) fn is_passing(&self) -> bool {
        is_passing(self.status)
    }

    /// The field that repeats a value of the body was missing, or was another one.
    fn is_header_mismatch(&self) -> bool {
        is_header_mismatch(self.status.as_u16(), self.text.as_bytes())
    }
}

impl Bridge {
    /// Sends a request, passes on what comes with its answer, and gives the answer.
    pub(super) async fn exchange(&self, made: Made, method: &str, body: Bytes, lane: Lane) -> Result<Reply, Why> {
        let fields = self.made_fields(method, &body)?;
        let outbound = Outbound { method: Method::POST, target: self.target().await?, fields, body };
        let Answer { head, mut body } = self.send_repeatable(method, outbound, lane).await?;
        let status = head.status;
        let media = media(&head.headers);
        match (status, media) {
            (StatusCode::ACCEPTED | StatusCode::NO_CONTENT, _) => return Err(Why::NoAnswer),
            (_, Media::Events) => {
                self.events(&mut body, Route::Made(&made), &mut Progress::until_answer()).await?;
                self.tasks.spawn(drain(body));
                return made.into_answer().map(|text| Reply { status, text }).ok_or(Why::AnswerLost);
            }
            (_, Media::Json) => {
                self.deliver(&self.whole(body).await?, Route::Made(&made)).await;
            }
            (_, Media::Other) => {}
        }
        made.into_answer().map(|text| Reply { status, text }).ok_or_else(|| no_message(status, media))
    }

    /// The same. If the server misses a field, the tools are listed anew, and it is sent once more: a request that was refused so was
    /// not carried out.
    pub(super) async fn exchange_learning(&self, id: &Id, method: &str, body: Bytes, met: &Met) -> Result<Reply, Why> {
        let kept = (method == "tools/call" && body.len() <= KEPT).then(|| body.clone());
        let reply = self.exchange(Made::new(id.clone()), method, body, Lane::Requests).await?;
        match kept {
            Some(body) if reply.is_header_mismatch() => {
                self.learn_anew(&met.own_meta()).await;
                self.exchange(Made::new(id.clone()), method, body, Lane::Requests).await
            }
            _ => Ok(reply),
        }
    }

    fn made_fields(&self, method: &str, body: &[u8]) -> Result<HeaderMap, Why> {
        let mut fields = fields::post(&self.common);
        if let Ok(Wire::Stateless(of_body)) = Wire::of(body, method) {
            fields.extend(*of_body);
        } else {
            return Err(Why::NameTooLong);
        }
        self.add_param_fields(&mut fields, method, body)?;
        Ok(fields)
    }
}
