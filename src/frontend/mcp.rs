//! The handler of `/mcp/NAME`: the injecting proxy, for MCP clients that cannot get a token by themselves.

use std::io;

use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::answer::{Answer, Failure, Outcome};
use super::funnel::{Asked, Finished};
use crate::relay::Call;

/// Below it is a server of each name.
pub(super) const PATH: &str = "/mcp/";

/// `ANY /mcp/NAME[/…]`
pub(super) fn relay(asked: Asked<'_>, body: Incoming) -> Finished<'_> {
    Finished::in_its_time(async move {
        let mut asked = asked;
        let outcome = relayed(&mut asked, body).await;
        (outcome, asked)
    })
}

async fn relayed(asked: &mut Asked<'_>, body: Incoming) -> Outcome {
    let (method, headers) = (asked.method.clone(), std::mem::take(&mut asked.fields));
    let body = Box::pin(body.map_err(io::Error::other));
    let (broker, caller, target) = (&asked.desk.broker, asked.caller, &asked.uri);
    let call = Call { broker, caller, method, target, headers, body };
    asked.desk.fixed.relay.answer(call).await.map(Answer::relayed).map_err(Failure::from)
}
