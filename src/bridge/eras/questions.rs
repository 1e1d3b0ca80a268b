//! What the server asks the client while it works on a request: as requests of the wire until 2025-11-25.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::super::Bridge;
use super::super::message::one_line;
use super::super::told::Why;
use super::made::new_id;
use crate::mcp::era::input::Asked;
use crate::mcp::object::Object;
use crate::mcp::rpc::Id;

/// The most questions that are open, of all requests.
const MOST: usize = 64;
/// So long a person may take. The client gives its own request up before that.
const PATIENCE: Duration = Duration::from_secs(900);

/// The questions without an answer.
#[derive(Debug, Default)]
pub(super) struct Questions(Vec<(Id, oneshot::Sender<Bytes>)>);

impl Questions {
    /// One more. `None` if there are too many.
    fn add(&mut self) -> Option<(Id, oneshot::Receiver<Bytes>)> {
        if self.0.len() >= MOST {
            return None;
        }
        let (id, (sender, receiver)) = (new_id(), oneshot::channel());
        self.0.push((id.clone(), sender));
        Some((id, receiver))
    }

    fn take(&mut self, id: &Id) -> Option<oneshot::Sender<Bytes>> {
        let at = self.0.iter().position(|(open, _)| id.answers(open))?;
        Some(self.0.swap_remove(at).1)
    }
}

/// The questions of one round. Those that are open when it is dropped are taken back.
struct Round {
    bridge: Arc<Bridge>,
    ids: Vec<Id>,
}

impl Drop for Round {
    fn drop(&mut self) {
        for id in std::mem::take(&mut self.ids) {
            if self.bridge.eras.questions().take(&id).is_some() {
                let params = format!(r#"{{"requestId":{},"reason":"the answer is no longer needed"}}"#, id.as_str());
                let told = format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{params}}}"#);
                self.bridge.say_later(told.into_bytes());
            }
        }
    }
}

impl Bridge {
    /// Takes a response of the client that answers a question. `false` if there is no such question.
    pub(in crate::bridge) fn settles_question(&self, id: &Id, line: &Bytes) -> bool {
        let found = self.eras.questions().take(id);
        // Nobody waits any more for an answer that comes with the end of its request.
        found.map(|asker| drop(asker.send(line.clone()))).is_some()
    }

    /// Puts the questions to the client, and gives their results, as JSON and in order.
    pub(super) async fn put_to_client(self: &Arc<Self>, asked: &Asked) -> Result<Vec<String>, Why> {
        let until = Instant::now() + PATIENCE;
        let mut round = Round { bridge: Arc::clone(self), ids: Vec::new() };
        let mut answers = Vec::new();
        for question in &asked.questions {
            let (id, answer) = self.eras.questions().add().ok_or(Why::TooMany)?;
            let request = question.to_request(id.as_str());
            round.ids.push(id);
            answers.push(answer);
            self.say(one_line(request.as_bytes())).await;
        }
        let mut results = Vec::new();
        for answer in answers {
            let line = timeout_at(until, answer).await.ok().and_then(Result::ok).ok_or(Why::InputMissing)?;
            results.push(result(&line).ok_or(Why::InputRefused)?);
        }
        Ok(results)
    }
}

/// The result in an answer of the client.
fn result(answer: &[u8]) -> Option<String> {
    let answer = Object::read(std::str::from_utf8(answer).ok()?)?;
    answer.get("result").filter(|result| result.starts_with('{')).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_once_and_there_is_a_most_of_questions() {
        let mut questions = Questions::default();
        let (id, mut answer) = questions.add().expect("there is room");
        assert!(questions.take(&Id::of_text("another")).is_none());
        questions.take(&id).expect("it is open").send(Bytes::from_static(b"x")).expect("it is waited for");
        assert!(questions.take(&id).is_none());
        assert_eq!(answer.try_recv().expect("it is there"), "x");
        let _open: Vec<_> = (0..MOST).map(|_| questions.add().expect("there is room")).collect();
        assert!(questions.add().is_none());
    }

    #[test]
    fn an_answer_without_a_result_is_none() {
        assert_eq!(result(br#"{"id":1,"result":{ "roots":[]}}"#).as_deref(), Some(r#"{ "roots":[]}"#));
        for none in [r#"{"id":1,"error":{"code":-1}}"#, r#"{"id":1,"result":1}"#, r#"{"result":{},"result":{}}"#] {
            assert_eq!(result(none.as_bytes()), None, "{none}");
        }
    }
}
