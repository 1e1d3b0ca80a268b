//! A request of the client for a server without sessions: the rounds until it has an answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::super::Bridge;
use super::super::message::one_line;
use super::super::requests::Ticket;
use super::super::told::Why;
use super::Met;
use super::exchange::KEPT;
use super::made::new_id;
use super::own::{Own, answered_here};
use crate::mcp::era::answer::Answer;
use crate::mcp::era::input::{Asked, Carried};
use crate::mcp::era::request;

/// So often a server may ask for more input.
const ROUNDS: u32 = 10;
/// The first pause before a round, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(1));

/// How long to wait before this round, the first of which is 1. A server that only wants its state back is busy, and is not asked
/// at once. A client that has answered a question is not kept waiting, unless a server asks again and again.
fn pause(round: u32, was_client_asked: bool) -> Duration {
    let (first, longest) = PAUSES;
    let doubled = |times: u32| longest.min(first.saturating_mul(1 << times.min(16)));
    match (was_client_asked, round) {
        (false, round) => doubled(round.saturating_sub(1)),
        (true, 0..=2) => Duration::ZERO,
        (true, round) => doubled(round - 3),
    }
}

impl Bridge {
    /// Brings a request of the client to its answer.
    pub(in crate::bridge) async fn translated(
        self: &Arc<Self>,
        ticket: &Ticket,
        met: &Arc<Met>,
        body: Bytes,
    ) -> Result<(), Why> {
        match answered_here(ticket, met, &body).await? {
            Some(Own::Result) => return self.give(ticket, "result", "{}").await,
            Some(Own::Error(error)) => return self.give(ticket, "error", &error).await,
            None => {}
        }
        self.rounds(ticket, met, body).await
    }

    async fn rounds(self: &Arc<Self>, ticket: &Ticket, met: &Arc<Met>, mut body: Bytes) -> Result<(), Why> {
        let (mut carried, length, mut round) = (Carried::default(), body.len(), 0);
        loop {
            round += 1;
            // In the first round nothing else has the id of the client.
            let id = if round == 1 { ticket.id.clone() } else { new_id() };
            let text = std::str::from_utf8(&body).map_err(|_| Why::NotTranslatable)?;
            let message = request::translated(text, id.as_str(), &met.meta(), &carried).ok_or(Why::NotTranslatable)?;
            let reply = self.exchange_learning(&id, &ticket.method, message.into(), met).await?;
            if length > KEPT {
                // Until here it counts for what was made of it.
                body = Bytes::new();
            }
            match Answer::read(&reply.text) {
                Answer::Result(result) if ticket.method == "tools/list" => {
                    return self.give(ticket, "result", &self.good_tools(&result).unwrap_or(result)).await;
                }
                Answer::Result(result) => return self.give(ticket, "result", &result).await,
                Answer::Error(error) => return self.give(ticket, "error", &error).await,
                Answer::Unknown => return Err(Why::UnknownResult),
                Answer::Input(_) if !request::may_need_input(&ticket.method) => return Err(Why::InputNotPossible),
                Answer::Input(_) if length > KEPT => return Err(Why::TooLongToRepeat),
                Answer::Input(_) if round > ROUNDS => return Err(Why::TooManyRounds),
                Answer::Input(asked) => {
                    // It is kept until the client has answered.
                    let mut room = self.room.part();
                    if !room.grow(reply.text.len()) {
                        return Err(Why::AnswerTooLong);
                    }
                    drop(reply);
                    carried = self.next_round(met, &asked, round).await?;
                }
            }
        }
    }

    /// What the round after this one carries.
    async fn next_round(self: &Arc<Self>, met: &Met, asked: &Asked, round: u32) -> Result<Carried, Why> {
        let can_be_asked = |kind| met.meta().declared().covers(kind);
        if !asked.questions.iter().all(|question| question.kind.is_some_and(can_be_asked)) {
            return Err(Why::InputNotPossible);
        }
        let results = self.put_to_client(asked).await?;
        tokio::time::sleep(pause(round, !results.is_empty())).await;
        Ok(asked.carried(&results))
    }

    /// Answers a request of the client with a result or an error, which is JSON.
    pub(super) async fn give(&self, ticket: &Ticket, member: &str, value: &str) -> Result<(), Why> {
        let answer = format!(r#"{{"jsonrpc":"2.0","id":{},"{member}":{value}}}"#, ticket.id.as_str());
        self.answer(ticket, one_line(answer.as_bytes())).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_before_a_round_grows_and_a_client_that_answers_is_not_kept_waiting() {
        let pauses = |was_asked| (1..=ROUNDS).map(|round| pause(round, was_asked).as_millis()).collect::<Vec<_>>();
        assert_eq!(pauses(false), [250, 500, 1_000, 1_000, 1_000, 1_000, 1_000, 1_000, 1_000, 1_000]);
        assert_eq!(pauses(true), [0, 0, 250, 500, 1_000, 1_000, 1_000, 1_000, 1_000, 1_000]);
        assert_eq!(pause(u32::MAX, false), PAUSES.1);
    }
}
