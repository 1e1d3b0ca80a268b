//! A message of the server on its way to the client.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Bridge;
use super::eras::Made;
use super::fields::version;
use super::output::Outgoing;
use super::requests::Ticket;
use super::subscription::Subscription;
use crate::mcp::era::answer::Notified;
use crate::mcp::rpc::{self, Id, Kind, Message};

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivered {
    /// It is the answer to the request whose body or stream it came in.
    Answer,
    /// Anything else that the client gets, or that comes too late.
    Other,
    /// It is no message.
    Nothing,
}

/// What a message came in.
#[derive(Clone, Copy)]
pub(super) enum Route<'a> {
    /// The stream of a session, or the answer to a message that is no request.
    Session,
    /// The answer to a request that was sent as it is.
    Request(&'a Ticket),
    /// The same for a `subscriptions/listen`.
    Listen(&'a Ticket, &'a Subscription),
    /// The answer to a request that was made here, for a server without sessions.
    Made(&'a Made),
}

impl<'a> Route<'a> {
    /// The request of the client that is answered.
    fn ticket(self) -> Option<&'a Ticket> {
        match self {
            Self::Request(ticket) | Self::Listen(ticket, _) => Some(ticket),
            Self::Session | Self::Made(_) => None,
        }
    }

    /// A server without sessions sends no requests.
    fn is_stateless(self) -> bool {
        matches!(self, Self::Made(_)) || self.ticket().is_some_and(Ticket::is_stateless)
    }
}

impl Bridge {
    /// Passes a message on to the client, on one line. A response passes if its request is open.
    pub(super) async fn deliver(&self, text: &[u8], route: Route<'_>) -> Delivered {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text).trim_ascii();
        let message = Message::read(text);
        let (kind, is_error) = (message.kind, message.error_code.is_some());
        match (kind, route) {
            (Kind::Request, route) if route.is_stateless() => {
                tracing::warn!("the server sends a request, and on this wire it must not; it is dropped");
                Delivered::Other
            }
            (Kind::Notification, Route::Made(made)) => {
                let method = message.method.as_deref().unwrap_or_default();
                let notified = std::str::from_utf8(text).map_or(Notified::Nothing, |text| Notified::read(method, text));
                match notified {
                    Notified::AsItIs => self.say(one_line(text)).await,
                    Notified::So(text) => self.say(one_line(text.as_bytes())).await,
                    Notified::Acknowledged(filter) => made.acknowledge(filter),
                    Notified::Nothing => {}
                }
                Delivered::Other
            }
            (Kind::Notification, Route::Listen(ticket, subscription)) => {
                let changes = subscription.notified(&message, text, &ticket.id);
                for line in changes.unwrap_or_else(|| vec![one_line(text)]) {
                    self.say(line).await;
                }
                Delivered::Other
            }
            (Kind::Request | Kind::Notification, _) => {
                self.say(one_line(text)).await;
                Delivered::Other
            }
            (Kind::Response, Route::Made(made)) => match made.is_answered(message.id.as_ref(), is_error, text) {
                true => Delivered::Answer,
                false => Delivered::Other,
            },
            (Kind::Response, Route::Listen(_, subscription)) if subscription.is_break(&message, text) => {
                Delivered::Other
            }
            (Kind::Response, route) => self.respond(text, route.ticket(), message.id, is_error).await,
            (Kind::Batch | Kind::Unreadable, _) => Delivered::Nothing,
        }
    }

    /// Passes a response on.
    async fn respond(&self, text: &[u8], ticket: Option<&Ticket>, id: Option<Id>, is_error: bool) -> Delivered {
        let is_own = |ticket: &&Ticket| id.as_ref().is_some_and(|id| id.answers(&ticket.id));
        if let Some(ticket) = ticket.filter(is_own) {
            return self.answer(ticket, one_line(text)).await;
        }
        // Servers that cannot tell the id of a request leave it out or say null. We know it.
        let names_nobody = id.as_ref().is_none_or(Id::is_null);
        match (ticket, id) {
            (Some(ticket), _) if names_nobody && is_error => match with_id(text, &ticket.id) {
                Some(answer) => self.answer(ticket, answer).await,
                None => Delivered::Nothing,
            },
            (_, Some(id)) => self.answer_other(&id, text).await,
            (_, None) => Delivered::Nothing,
        }
    }

    /// Answers the request whose body or stream it is.
    pub(super) async fn answer(&self, ticket: &Ticket, line: Vec<u8>) -> Delivered {
        let line = match &*ticket.method {
            "tools/list" if ticket.is_stateless() => self.with_good_tools(line),
            _ => line,
        };
        if !self.requests().finish(ticket) {
            debug!("an answer comes too late");
            return Delivered::Answer;
        }
        if ticket.is_initialize() {
            self.session.agreed(rpc::negotiated(&line).as_deref().and_then(version));
            self.session.answered();
        }
        self.say(line).await;
        Delivered::Answer
    }

    /// A response that came in another stream than that of its request.
    async fn answer_other(&self, id: &Id, text: &[u8]) -> Delivered {
        let found = self.requests().answered(id);
        match found {
            Some(ticket) => {
                self.say(one_line(text)).await;
                ticket.stop.cancel();
            }
            None => debug!("an answer to no open request is dropped"),
        }
        Delivered::Other
    }

    /// Writes a line, in the room for what comes from the server. Where there is none, it is written all the same, and the
    /// queue bounds how many there are.
    pub(super) async fn say(&self, message: Vec<u8>) {
        let mut room = self.room.part();
        let taken = room.grow(message.len());
        self.output.send(Outgoing { message, _room: taken.then_some(room) }).await;
    }
}

/// The message on one line. In JSON a raw line break is between two tokens.
pub(super) fn one_line(text: &[u8]) -> Vec<u8> {
    let mut line = Vec::with_capacity(text.len() + 1);
    line.extend(text.iter().map(|&byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
    line
}

/// The same error with this id.
fn with_id(text: &[u8], id: &Id) -> Option<Vec<u8>> {
    #[derive(Deserialize)]
    struct Error<'a> {
        #[serde(borrow)]
        error: &'a RawValue,
    }
    let error = serde_json::from_slice::<Error<'_>>(text).ok()?.error;
    let answer = format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"error\":{}}}", id.as_str(), error.get());
    Some(one_line(answer.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_3_a_message_is_one_line_whatever_the_server_sends() {
        let text = "{\r\n\t\"jsonrpc\": \"2.0\",\n\"a\": \"\u{2028}\\n\"\r}";
        assert_eq!(one_line(text.as_bytes()), "{  \t\"jsonrpc\": \"2.0\", \"a\": \"\u{2028}\\n\" }".as_bytes());
    }

    #[test]
    fn an_error_without_an_id_gets_that_of_its_request() {
        let id = Message::read(br#"{"id":"a\u0062","method":"x"}"#).id.expect("an id");
        let error = with_id(b"{\"error\":{\"code\":-32000,\n\"message\":\"no\"},\"id\":null}", &id).expect("an error");
        let expected = r#"{"jsonrpc":"2.0","id":"a\u0062","error":{"code":-32000, "message":"no"}}"#;
        assert_eq!(String::from_utf8(error).expect("UTF-8"), expected);
        assert_eq!(with_id(br#"{"error":1,"error":2}"#, &id), None);
    }
}
