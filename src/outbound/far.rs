//! Documents and tokens: one request, and its whole small answer.
//!
//! The HTTP client is that of `stream.rs`. reqwest is not used for the far side: it has no limits for headers and interim answers,
//! no staggered dialling (RFC 8305) and no error type for each step.
//!
//! A kept connection may break just when a request is sent over it. If it breaks before the first byte of the answer, the
//! request is sent once more over a new connection: here, if nothing of it was written or it is repeatable; else by its sender,
//! who learns of it as [`Error::Stale`].
//!
//! A kept connection may also be forgotten by the network, which then drops what is sent over it without a word. So a repeatable
//! request waits only a second for the first byte over a kept connection; then it is sent over a new one, and no other request
//! uses a kept connection for a while. A request that is not repeatable is sent over a kept connection only if its host was heard
//! within the last second.

use std::future::poll_fn;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use hyper::Response;
use hyper::header::{self, HeaderValue};
use tokio::time::Instant;

use super::call::{Call, Collected, WORDS_LIMIT};
use super::connector::Connect;
use super::stream::{Download, Http, Limit, Request, RequestHead, reason};
use super::{Answer, Error, USER_AGENT};

/// How long a repeatable request waits for the first byte over a kept connection. More than servers take for a document.
const SILENCE: Duration = Duration::from_secs(1);

impl<C: Connect> Http<C> {
    /// Sends a request and reads the answer as far as the call wants it.
    pub(super) async fn ask(&self, mut call: Call) -> Result<Answer, Error> {
        call.headers.entry(header::USER_AGENT).or_insert(HeaderValue::from_static(USER_AGENT));
        let body = call.take_body();
        let answer = self.begin(&call, &body).await?;
        read(&call, answer).await
    }

    /// The exchange up to the head of the answer.
    async fn begin(&self, call: &Call, body: &Bytes) -> Result<Response<Download>, Error> {
        let head = RequestHead { method: &call.method, url: &call.url, headers: &call.headers, more: &[] };
        let write = || Request::whole(&head, body.clone());
        let place = self.place(&call.url, None);
        let silent_at = Instant::now() + SILENCE;
        let late = || silent_at;
        let until = call.repeatable.then_some((&late as _, SILENCE));
        let mut limit = Limit { host: &call.host, until, is_for_head: false };
        let mut request = write();
        if self.trust.may_use_kept(place.origin, call.repeatable) {
            match self.over_kept(&place, request, &limit).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(failed)) if failed.is_heard => return Err(failed.lost.error),
                Ok(Err(failed)) => {
                    let error = failed.lost.error;
                    match error {
                        // It did not break: nothing came back over it.
                        Error::Timeout { .. } => self.trust.lose_all(),
                        _ => self.trust.lose(place.origin.to_owned()),
                    }
                    if !call.repeatable {
                        return Err(Error::Stale { host: call.host.clone(), what: error.to_string() });
                    }
                    debug!(host = %call.host, "a kept connection was dead: trying a new one");
                    request = write();
                }
                Err(back) => request = back,
            }
        }
        limit.until = None;
        self.over_new(&place, &call.url, request, &limit).await.map_err(|failed| failed.lost.error)
    }
}

async fn read(call: &Call, answer: Response<Download>) -> Result<Answer, Error> {
    let (head, mut body) = answer.into_parts();
    let mut collected = Collected::new(call, head.status, head.headers)?;
    if !collected.wants_body() {
        pass_over(body);
        return Ok(collected.answer());
    }
    if !collected.is_decided() {
        read_body(call, &mut body, &mut collected).await?;
        return Ok(collected.answer());
    }
    match tokio::time::timeout(WORDS_LIMIT, read_body(call, &mut body, &mut collected)).await {
        Ok(Ok(())) => Ok(collected.answer()),
        Ok(Err(_)) | Err(_) => Ok(collected.without_body()),
    }
}

async fn read_body(call: &Call, body: &mut Download, collected: &mut Collected) -> Result<(), Error> {
    let host = &call.host;
    while let Some(piece) = poll_fn(|context| body.poll_piece(context)).await.map_err(|error| reason(host, &error))? {
        collected.add(host, &piece)?;
    }
    Ok(())
}

/// Reads what is there of a body that nobody wants, without waiting: if that is all, its connection can be used again.
fn pass_over(mut body: Download) {
    let mut context = Context::from_waker(Waker::noop());
    while let Poll::Ready(Ok(Some(_))) = body.poll_piece(&mut context) {}
}

#[cfg(test)]
mod tests;
