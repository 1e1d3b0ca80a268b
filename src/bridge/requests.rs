//! The requests of the client that have no answer yet, and what their cancellation leads to. Pure.
//!
//! A request is answered once. Whoever takes it out of here may write its answer; what comes later is dropped.

use tokio_util::sync::CancellationToken;

use super::fields::Wire;
use crate::mcp::rpc::Id;

/// The most requests that may be open. More than any client has; each costs a few kilobytes.
const MOST: usize = 4_096;

/// What is known of a request.
#[derive(Clone, Debug)]
pub(super) struct Ticket {
    serial: u64,
    pub(super) id: Id,
    pub(super) method: String,
    pub(super) wire: Wire,
    /// Ends what waits for its answer.
    pub(super) stop: CancellationToken,
}

impl Ticket {
    pub(super) fn is_initialize(&self) -> bool {
        self.method == "initialize"
    }

    pub(super) fn is_stateless(&self) -> bool {
        matches!(self.wire, Wire::Stateless(_))
    }
}

#[derive(Debug)]
struct Entry {
    ticket: Ticket,
    is_sent: bool,
}

/// The open requests.
#[derive(Debug, Default)]
pub(super) struct Requests {
    last: u64,
    open: Vec<Entry>,
}

/// What the cancellation of a request leads to.
#[derive(Debug)]
pub(super) enum Cancelled {
    /// `initialize` cannot be cancelled.
    Never,
    /// The stream of the answer is closed: that says it.
    Close(Ticket),
    /// The server is told, and then the stream is closed.
    Tell(Ticket),
    /// It is not open. The server may know it all the same.
    Unknown,
}

impl Requests {
    /// Notes a request. `None` if there are too many.
    pub(super) fn add(&mut self, id: Id, method: String, wire: Wire) -> Option<Ticket> {
        if self.open.len() >= MOST {
            return None;
        }
        self.last += 1;
        let ticket = Ticket { serial: self.last, id, method, wire, stop: CancellationToken::new() };
        self.open.push(Entry { ticket: ticket.clone(), is_sent: false });
        Some(ticket)
    }

    /// From now on the server may know it by its id. One that is translated is closed, whoever knows it.
    pub(super) fn sent(&mut self, ticket: &Ticket) {
        if let Some(entry) = self.open.iter_mut().find(|entry| entry.ticket.serial == ticket.serial) {
            entry.is_sent = true;
        }
    }

    /// It is answered now. `false` if it was before, or was cancelled.
    pub(super) fn finish(&mut self, ticket: &Ticket) -> bool {
        self.take(|entry| entry.ticket.serial == ticket.serial).is_some()
    }

    /// The request that a response with this id answers, which is answered now.
    pub(super) fn answered(&mut self, id: &Id) -> Option<Ticket> {
        self.take(|entry| id.answers(&entry.ticket.id)).map(|entry| entry.ticket)
    }

    /// The client cancels the request with this id.
    pub(super) fn cancel(&mut self, id: &Id) -> Cancelled {
        let Some(at) = self.open.iter().position(|entry| id.answers(&entry.ticket.id)) else {
            return Cancelled::Unknown;
        };
        if self.open[at].ticket.is_initialize() {
            return Cancelled::Never;
        }
        let Entry { ticket, is_sent } = self.open.swap_remove(at);
        if is_sent && !ticket.is_stateless() { Cancelled::Tell(ticket) } else { Cancelled::Close(ticket) }
    }

    /// The client has ended: all of them, and whether the server has to be told.
    pub(super) fn end(&mut self) -> Vec<Cancelled> {
        let ids: Vec<Id> = self.open.iter().map(|entry| entry.ticket.id.clone()).collect();
        ids.iter().map(|id| self.cancel(id)).collect()
    }

    fn take(&mut self, which: impl Fn(&Entry) -> bool) -> Option<Entry> {
        let at = self.open.iter().position(which)?;
        Some(self.open.remove(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::rpc::Message;

    fn id(text: &str) -> Id {
        Message::read(format!("{{\"id\":{text},\"method\":\"x\"}}").as_bytes()).id.expect("an id")
    }

    fn stateless() -> Wire {
        Wire::Stateless(Box::default())
    }

    fn add(requests: &mut Requests, text: &str, method: &str, wire: Wire) -> Ticket {
        let ticket = requests.add(id(text), method.to_owned(), wire).expect("there is room");
        requests.sent(&ticket);
        ticket
    }

    #[test]
    fn wire_44_a_request_is_answered_once_and_by_its_own_id() {
        let mut requests = Requests::default();
        add(&mut requests, "1", "ping", Wire::Session);
        assert!(requests.answered(&id("\"1\"")).is_none(), "1 is not \"1\"");
        let zero = add(&mut requests, "0", "ping", Wire::Session);
        assert_eq!(requests.answered(&id("1.0")).expect("1.0 is 1").id.as_str(), "1");
        assert!(requests.finish(&zero) && !requests.finish(&zero));
        assert!(requests.answered(&id("0")).is_none() && requests.answered(&id("1")).is_none());
    }

    #[test]
    fn wire_48_to_50_each_wire_is_told_in_its_own_way() {
        let mut requests = Requests::default();
        add(&mut requests, "1", "tools/call", Wire::Session);
        add(&mut requests, "2", "tools/call", stateless());
        assert!(matches!(requests.cancel(&id("1")), Cancelled::Tell(_)));
        assert!(matches!(requests.cancel(&id("2")), Cancelled::Close(_)));
        assert!(matches!(requests.cancel(&id("2")), Cancelled::Unknown));
        let unsent = requests.add(id("3"), "tools/call".to_owned(), Wire::Session);
        assert!(unsent.is_some() && matches!(requests.cancel(&id("3")), Cancelled::Close(_)), "nobody knows it yet");
    }

    #[test]
    fn wire_52_initialize_is_never_cancelled() {
        let mut requests = Requests::default();
        let hello = add(&mut requests, "1", "initialize", Wire::Session);
        assert!(matches!(requests.cancel(&id("1")), Cancelled::Never));
        assert!(requests.finish(&hello), "it is still open");
    }

    #[test]
    fn wire_54_the_end_cancels_all() {
        let mut requests = Requests::default();
        add(&mut requests, "0", "initialize", Wire::Session);
        add(&mut requests, "1", "tools/call", Wire::Session);
        add(&mut requests, "2", "tools/call", stateless());
        let ended = requests.end();
        let told = |cancelled: &&Cancelled| matches!(cancelled, Cancelled::Tell(_));
        assert_eq!((ended.len(), ended.iter().filter(told).count()), (3, 1));
    }

    #[test]
    fn there_is_a_most_of_them() {
        let mut requests = Requests::default();
        for _ in 0..MOST {
            add(&mut requests, "1", "ping", Wire::Session);
        }
        assert!(requests.add(id("1"), "ping".to_owned(), Wire::Session).is_none());
    }
}
