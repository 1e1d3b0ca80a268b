//! Messages of the client on their way to the server, and the answers to them.

use std::sync::Arc;

use bytes::Bytes;
use hyper::header::{ACCEPT, HeaderMap, HeaderValue};
use hyper::{Method, StatusCode};

use super::Bridge;
use super::events::Progress;
use super::fields::{self, Media, Wire, media};
use super::link::{Answer, Body, Lane, Outbound};
use super::message::{Delivered, Route};
use super::requests::Ticket;
use super::session::Waits;
use super::told::Why;
use crate::mcp::fields::{LAST_EVENT_ID, SESSION_ID};
use crate::mcp::rpc::is_repeatable;
use crate::mcp::rpc::refusal::AnswerTo;

/// The longest request that is kept to be sent again.
const REPEATED: usize = 1024 * 1024;
/// So often in a row a stream that broke is asked for in vain.
const RESUMES: u32 = 5;

impl Bridge {
    /// Brings a request to its answer: that of the server, or ours.
    pub(super) async fn request(self: Arc<Self>, ticket: Ticket, body: Bytes) {
        let asked = self.ask(&ticket, body);
        // Its future is dropped before the server is told anything else, so a stream of the stateless wire closes.
        let outcome = ticket.stop.run_until_cancelled(asked).await;
        if let Some(Err(why)) = outcome
            && self.requests().finish(&ticket)
        {
            let why = match why {
                Why::AnswerLost if ticket.method == "tools/call" => Why::ToolMayHaveRun,
                why => why,
            };
            self.say(why.to_json(&self.name(), AnswerTo::Request(&ticket.id))).await;
        }
        if ticket.is_initialize() {
            self.session.answered();
        }
        self.requests().finish(&ticket);
    }

    async fn ask(self: &Arc<Self>, ticket: &Ticket, body: Bytes) -> Result<(), Why> {
        self.session.wait(waits(ticket)).await;
        if ticket.is_stateless() {
            return Box::pin(self.stateless(ticket, body)).await;
        }
        if ticket.is_initialize() {
            return Box::pin(self.initialize(ticket, body)).await;
        }
        if let Some(met) = self.eras.met() {
            return Box::pin(self.translated(ticket, &met, body)).await;
        }
        let Answer { head, body } = self.send_request(ticket, body).await?;
        match (head.status, media(&head.headers)) {
            (_, Media::Events) => self.stream(ticket, body).await,
            (status, Media::Json) => self.deliver_whole(ticket, status, &self.whole(body).await?).await,
            (status, media) => Err(no_message(status, media)),
        }
    }

    /// `initialize` goes out as it came. What its answer says of the server decides how the client is answered.
    async fn initialize(&self, ticket: &Ticket, body: Bytes) -> Result<(), Why> {
        if self.meet_again(ticket, &body).await? {
            return Ok(());
        }
        let Answer { head, body: answer } = self.send_request(ticket, body.clone()).await?;
        if head.status.is_success() {
            self.session.opened(fields::session_id(&head.headers));
        }
        match (head.status, media(&head.headers)) {
            (_, Media::Events) => self.stream(ticket, answer).await,
            (status, Media::Json) => {
                let answer = self.whole(answer).await?;
                if self.meet_refused(ticket, &body, status.as_u16(), &answer).await? {
                    return Ok(());
                }
                self.deliver_whole(ticket, status, &answer).await
            }
            (status, media) => Err(no_message(status, media)),
        }
    }

    /// Sends a request as it is, and waits for the head of its answer.
    pub(super) async fn send_request(&self, ticket: &Ticket, body: Bytes) -> Result<Answer, Why> {
        let mut fields = self.fields(&ticket.wire, !ticket.is_initialize());
        if ticket.is_stateless() {
            self.add_param_fields(&mut fields, &ticket.method, &body)?;
        }
        let target = self.target().await?;
        self.requests().sent(ticket);
        let outbound = Outbound { method: Method::POST, target, fields, body };
        let answer = self.send_repeatable(&ticket.method, outbound, Lane::Requests).await?;
        match answer.head.status {
            StatusCode::ACCEPTED | StatusCode::NO_CONTENT => Err(Why::NoAnswer),
            _ => Ok(answer),
        }
    }

    /// Sends a request, and once more if its answer is lost and it may be carried out twice.
    pub(super) async fn send_repeatable(&self, method: &str, outbound: Outbound, lane: Lane) -> Result<Answer, Why> {
        // The daemon may end at any time. The next one gets what may be carried out twice.
        let may_repeat = is_repeatable(method) && outbound.body.len() <= REPEATED;
        let kept = may_repeat.then(|| outbound.clone());
        match (self.link.send(outbound, lane).await, kept) {
            (Err(Why::AnswerLost), Some(again)) => self.link.send(again, lane).await,
            (answer, _) => answer,
        }
    }

    /// Passes on an answer that is one message.
    pub(super) async fn deliver_whole(&self, ticket: &Ticket, status: StatusCode, answer: &[u8]) -> Result<(), Why> {
        match self.deliver(answer, Route::Request(ticket)).await {
            Delivered::Answer => Ok(()),
            _ => Err(no_message(status, Media::Json)),
        }
    }

    /// Reads the stream of a request. If it ends before the answer, it is resumed where it broke, on the wire that can.
    pub(super) async fn stream(&self, ticket: &Ticket, mut body: Body) -> Result<(), Why> {
        let mut progress = Progress::of_request();
        self.events(&mut body, Route::Request(ticket), &mut progress).await?;
        while !progress.is_answered {
            let Some(last_id) = progress.last_id.clone().filter(|_| !ticket.is_stateless()) else {
                return Err(Why::AnswerLost);
            };
            if progress.failures >= RESUMES {
                return Err(Why::AnswerLost);
            }
            progress.wait().await;
            progress.failures += 1;
            let mut answer = match self.open_stream(Some(last_id)).await {
                Ok(answer) => answer,
                Err(Why::DaemonAway) => continue,
                Err(_) => return Err(Why::AnswerLost),
            };
            match (answer.head.status, media(&answer.head.headers)) {
                (StatusCode::OK, Media::Events) => {
                    self.events(&mut answer.body, Route::Request(ticket), &mut progress).await?;
                }
                (status, _) if status.is_server_error() => {}
                _ => return Err(Why::AnswerLost),
            }
        }
        Ok(())
    }

    /// GET: the stream for what the server sends by itself, or the rest of one that broke.
    pub(super) async fn open_stream(&self, last_id: Option<HeaderValue>) -> Result<Answer, Why> {
        let mut fields = self.common.clone();
        fields.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        fields.extend(self.session.fields());
        if let Some(id) = last_id {
            fields.insert(LAST_EVENT_ID, id);
        }
        let outbound = Outbound { method: Method::GET, target: self.target().await?, fields, body: Bytes::new() };
        self.link.send(outbound, Lane::Others).await
    }

    /// Sends a notification, or the answer of the client to a request of the server. There is nobody to tell what becomes
    /// of it. `true` if the server has it.
    pub(super) async fn tell(&self, what: &str, waits: Waits, body: Bytes) -> bool {
        self.session.wait(waits).await;
        if self.eras.met().is_some() {
            debug!(what, "the server has no sessions, and no such message; it ends here");
            return true;
        }
        let fields = self.fields(&Wire::Session, true);
        let sent = async {
            let target = self.target().await?;
            let outbound = Outbound { method: Method::POST, target, fields, body };
            let Answer { head, mut body } = self.link.send(outbound, Lane::Others).await?;
            if !head.status.is_success() {
                return Err(Why::Status(head.status.as_u16()));
            }
            match media(&head.headers) {
                // Some servers answer so, with their own requests in it.
                Media::Events => self.events(&mut body, Route::Session, &mut Progress::default()).await,
                // `null`, or nothing. The connection is used again.
                Media::Json | Media::Other => self.whole(body).await.map(drop),
            }
        };
        let sent: Result<(), Why> = sent.await;
        if let Err(why) = sent {
            tracing::warn!(what, ?why, "the server does not have a message of the client");
        }
        sent.is_ok()
    }

    /// DELETE: the end of a session.
    pub(super) async fn delete(&self, session: HeaderMap) {
        if !session.contains_key(SESSION_ID) {
            return;
        }
        let mut fields = self.common.clone();
        fields.extend(session);
        if let Ok(target) = self.target().await {
            let outbound = Outbound { method: Method::DELETE, target, fields, body: Bytes::new() };
            match self.link.send(outbound, Lane::Others).await {
                // 405: the server ends its sessions by itself.
                Ok(answer) => debug!(status = answer.head.status.as_u16(), "the session is over"),
                Err(why) => debug!(?why, "the session could not be ended"),
            }
        }
    }

    pub(super) fn fields(&self, wire: &Wire, is_of_session: bool) -> HeaderMap {
        let mut fields = fields::post(&self.common);
        match wire {
            Wire::Stateless(of_body) => fields.extend(of_body.as_ref().clone()),
            Wire::Session if is_of_session => fields.extend(self.session.fields()),
            Wire::Session => {}
        }
        fields
    }

    /// All of a body.
    pub(super) async fn whole(&self, mut body: Body) -> Result<Vec<u8>, Why> {
        let mut part = self.room.part();
        let mut bytes = Vec::new();
        while let Some(piece) = body.piece().await? {
            if bytes.len() + piece.len() > self.cap || !part.grow(piece.len()) {
                return Err(Why::AnswerTooLong);
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }
}

/// Why an answer with this status and content is none.
pub(super) fn no_message(status: StatusCode, media: Media) -> Why {
    match media {
        Media::Json | Media::Other if status.is_success() => Why::Malformed,
        _ => Why::Status(status.as_u16()),
    }
}

fn waits(ticket: &Ticket) -> Waits {
    match &*ticket.method {
        _ if ticket.is_stateless() => Waits::Nothing,
        "initialize" => Waits::Nothing,
        "ping" => Waits::ForId,
        // While it does this, a server can ask its client.
        "tools/call" | "prompts/get" | "resources/read" => Waits::ForStream,
        _ => Waits::ForBeginning,
    }
}
