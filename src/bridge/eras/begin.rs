//! The beginning: whether the server has no sessions, and what the client is told of it.

use std::time::Duration;

use super::super::Bridge;
use super::super::link::Lane;
use super::super::passing::class_of_ours;
use super::super::requests::Ticket;
use super::super::told::Why;
use super::exchange::Reply;
use super::made::{Made, new_id};
use super::{Met, Protocol};
use crate::mcp::era::answer::Answer;
use crate::mcp::era::declared::{Declared, Meta};
use crate::mcp::era::discovered::Discovered;
use crate::mcp::era::{is_worth_a_probe, request};

/// So long the answer to `server/discover` is waited for. A failure that passes is waited for by the relay.
const PROBE: Duration = Duration::from_secs(30);

impl Bridge {
    /// Was the server of this `initialize` met as one without sessions, and is it still? Then the client is answered.
    pub(in crate::bridge) async fn meet_again(&self, ticket: &Ticket, body: &[u8]) -> Result<bool, Why> {
        Ok(self.eras.met().is_some() && self.meet(ticket, body).await?)
    }

    /// The server refuses an `initialize`. If it has no sessions, the client is answered.
    pub(in crate::bridge) async fn meet_refused(
        &self,
        ticket: &Ticket,
        body: &[u8],
        status: u16,
        answer: &[u8],
    ) -> Result<bool, Why> {
        let is_asked = self.eras.protocol == Protocol::Auto && is_worth_a_probe(status, answer);
        Ok(is_asked && self.meet(ticket, body).await?)
    }

    /// Asks the server who it is.
    async fn meet(&self, ticket: &Ticket, body: &[u8]) -> Result<bool, Why> {
        let Some(declared) = Declared::read(body) else { return Ok(self.forget()) };
        let (id, meta) = (new_id(), Meta::new(declared));
        let probe = request::discover(id.as_str(), &meta.added_to(None).ok_or(Why::NotTranslatable)?);
        let asked = self.exchange(Made::new(id), "server/discover", probe.into(), Lane::Requests);
        let reply = match tokio::time::timeout(PROBE, asked).await.map_err(|_| Why::AnswerLost)? {
            Ok(reply) => reply,
            // It does not know the method, and says so in its own way.
            Err(Why::Status(400..=499) | Why::Malformed | Why::NoAnswer) => return Ok(self.forget()),
            Err(why) => return Err(why),
        };
        self.introduce(ticket, &reply, meta).await
    }

    async fn introduce(&self, ticket: &Ticket, reply: &Reply, meta: Meta) -> Result<bool, Why> {
        if let Some(server) = Discovered::read(&reply.text) {
            let hello = server.hello(meta.declared(), &self.name());
            debug!("the server has no sessions; messages of this client are translated");
            *self.eras.met_now() = Some(Met::new(server, meta).into());
            return self.give(ticket, "result", &hello).await.map(|()| true);
        }
        match Answer::read(&reply.text) {
            Answer::Error(error) if class_of_ours(&error).is_some() => {
                self.give(ticket, "error", &error).await.map(|()| true)
            }
            _ => Ok(self.forget()),
        }
    }

    /// The server knows sessions.
    fn forget(&self) -> bool {
        *self.eras.met_now() = None;
        false
    }
}
