//! The access token of the instance's own account, from the crate `gcp_auth`.
//!
//! The crate makes the request and reads the answer. It has its own HTTP client, which resolves the name by DNS, reads a body of
//! any length, and has no time limit. So the crate is used only
//!
//! - after the metadata server has answered our own request like Google's, under our own limits. This refuses servers that are
//!   silent, redirect, send endless answers or are not Google's;
//! - if the system resolves `metadata.google.internal` to its fixed address and no other;
//! - for ten seconds in total, including its own five tries. Then its connection is closed;
//! - as a task that is polled at most [`POLLS`] times. On our runtime, which has one thread, each poll reads one chunk of a
//!   body, and hyper reads at most 408 KiB at once: an endless body ends by 13 MiB.
//!
//! Its log is disabled (`command/mod.rs`), because it logs the bodies of refusals. Its errors have no status, so after an error
//! we send our own request to find the cause. Our own request is also used where the crate cannot be: it supports neither
//! `GCE_METADATA_HOST` nor an account other than the instance's own.
//!
//! Remaining risks: the crate resolves the name again, and DNS may return another address then. It sends no secret there, and a
//! false token would go only to Google. Its copies of the token are freed without zeroizing. On a runtime with several threads,
//! which embedders of the library may have, a poll may read more than one chunk; there only the time limits the body.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use gcp_auth::{MetadataServiceAccount, Token, TokenProvider};
use tokio::task::JoinSet;

use super::metadata::{Metadata, NAME, NOT_METADATA};
use super::{Error, SOURCE, malformed};
use crate::outbound::{Again, Patience, REQUEST_LIMIT};
use crate::token::AccessToken;

/// Measured: a token and a project need five polls, five refusals thirteen.
const POLLS: u32 = 32;
/// One try, because the crate itself retries.
const ONCE: Patience = Patience { tries: 1, delay: Duration::ZERO, total: REQUEST_LIMIT };
/// The longest lifetime of Google's access tokens (12 hours, with an organisation policy).
const LONGEST_LIFE: Duration = Duration::from_secs(12 * 3_600);

/// The result of the crate.
type Asked = Result<Arc<Token>, gcp_auth::Error>;

/// Why the crate gave no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lost {
    /// It returned an error, which has too little detail.
    Failed,
    /// It did not finish within this time.
    Silent(Duration),
    /// The answer is endless, or made the crate panic.
    Unreadable,
}

impl Metadata {
    /// Gets an access token of the instance's own account. Send it only to Google.
    pub(super) async fn access_token(&self) -> Result<AccessToken, Error> {
        if self.is_at_its_address() { self.by_crate(NAME, ask).await } else { self.access_token_by_hand().await }
    }

    /// `host` is the name that the crate connects to.
    async fn by_crate<F>(&self, host: &str, ask: impl Fn() -> F) -> Result<AccessToken, Error>
    where
        F: Future<Output = Asked> + Send + 'static,
    {
        self.must_be_google().await?;
        if !self.outbound().agrees_with_the_system(host).await {
            debug!(%host, "the system's look-up leads elsewhere or nowhere: the address is dialled instead");
            return self.access_token_by_hand().await;
        }
        let bounded = |limit| bounded(ask(), limit);
        match self.outbound().patiently(ONCE, bounded, |_| Again::No).await {
            Ok(token) => self.read(&token),
            Err(Lost::Failed) => self.access_token_by_hand().await,
            Err(Lost::Silent(limit)) => Err(Error::Unreachable {
                source_name: SOURCE.name,
                what: format!("the metadata server gives no access token within {:.1} s", limit.as_secs_f32()),
                hint: None,
            }),
            Err(Lost::Unreadable) => Err(malformed(
                "the metadata server's answer with the access token does not end, or cannot be read".to_owned(),
                NOT_METADATA,
            )),
        }
    }

    fn read(&self, token: &Token) -> Result<AccessToken, Error> {
        let left = life(token.expires_at().timestamp(), self.unix_now());
        debug!(left_s = left.as_secs(), "the metadata server gives an access token");
        if left.is_zero() {
            return Err(Error::Unreachable {
                source_name: SOURCE.name,
                what: "the metadata server's access token is at its end".to_owned(),
                hint: Some("if that stays so, set this machine's clock".to_owned()),
            });
        }
        AccessToken::parse(token.as_str().to_owned())
            .map_err(|error| malformed(format!("the metadata server: {error}"), NOT_METADATA))
    }
}

/// Lets the crate get a token. It needs the project too, or it fails.
async fn ask() -> Asked {
    MetadataServiceAccount::new().await?.token(&[]).await
}

/// Runs the crate's future within the limits. Dropping this future ends it and its connection.
async fn bounded<F>(work: F, limit: Duration) -> Result<Arc<Token>, Lost>
where
    F: Future<Output = Asked> + Send + 'static,
{
    // In its own task it is polled only when its own I/O is ready, so that the polls can be counted.
    let mut task = JoinSet::new();
    task.spawn(at_most(POLLS, work));
    match tokio::time::timeout(limit, task.join_next()).await {
        Err(_) => Err(Lost::Silent(limit)),
        Ok(Some(Ok(Some(asked)))) => asked.map_err(|_| Lost::Failed),
        // The crate panics on a huge `expires_in`, which it adds to the time.
        Ok(Some(Ok(None) | Err(_)) | None) => Err(Lost::Unreadable),
    }
}

/// Polls the future at most this often. `None` if it needs more polls.
async fn at_most<F: Future>(polls: u32, work: F) -> Option<F::Output> {
    let mut work = pin!(work);
    let mut left = polls;
    std::future::poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        work.as_mut().poll(context).map(Some)
    })
    .await
}

/// The remaining lifetime of a token that expires at `end` by this machine's clock.
fn life(end: i64, unix_now: i64) -> Duration {
    let left = u64::try_from(end.saturating_sub(unix_now)).unwrap_or(0);
    Duration::from_secs(left).min(LONGEST_LIFE)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::clock::Clock;
    use crate::env::Env;
    use crate::identity::Ambient;
    use crate::outbound::{self, Outbound};

    const GOOGLE: &str = "HTTP/1.1 200 OK\r\nmetadata-flavor: Google\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    const BY_HAND: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 26\r\n\
        connection: close\r\n\r\n{\"access_token\":\"by-hand\"}\n";

    /// A metadata server with one answer for each connection, in order.
    struct Server {
        metadata: Metadata,
        _task: JoinSet<()>,
    }

    async fn server(answers: &'static [&'static str]) -> Server {
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let host = socket.local_addr().expect("bound").to_string();
        let mut task = JoinSet::new();
        task.spawn(async move {
            for answer in answers {
                let (mut stream, _) = socket.accept().await.expect("a connection");
                let mut head = [0; 2048];
                let _ = stream.read(&mut head).await.expect("a request");
                stream.write_all(answer.as_bytes()).await.expect("it listens");
            }
        });
        let env = Env::from_vars([("GCE_METADATA_HOST".to_owned(), host)]);
        let clock = Clock::system();
        let ambient = Ambient { env, outbound: Outbound::new(outbound::Config::default()), clock };
        let metadata = Metadata::from_env(&ambient).map_err(|defect| defect.what).expect("on loopback");
        Server { metadata, _task: task }
    }

    fn token(text: &str) -> Asked {
        serde_json::from_str(text).map(Arc::new).map_err(|error| gcp_auth::Error::Json("scripted", error))
    }

    /// The result, and the number of calls of the crate.
    async fn outcome(server: &Server, name: &str, text: &'static str) -> (Result<String, Error>, u32) {
        let asked = AtomicU32::new(0);
        let ask = || {
            asked.fetch_add(1, Ordering::SeqCst);
            async move { token(text) }
        };
        let outcome = server.metadata.by_crate(name, ask).await;
        (outcome.map(|token| token.expose().to_owned()), asked.load(Ordering::SeqCst))
    }

    const HERE: &str = "127.0.0.1";
    const FINE: &str = r#"{"access_token":"of-the-crate","expires_in":3599}"#;

    #[tokio::test]
    async fn the_crate_is_asked_once_google_has_answered() {
        let (token, asked) = outcome(&server(&[GOOGLE]).await, HERE, FINE).await;
        assert_eq!((token.as_deref(), asked), (Ok("of-the-crate"), 1));
    }

    #[tokio::test]
    async fn a_server_that_is_not_googles_keeps_the_crate_out() {
        let page: &[&str] = &["HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"];
        let other: &[&str] =
            &["HTTP/1.1 200 OK\r\nmetadata-flavor: Other\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"];
        let away: &[&str] = &["HTTP/1.1 302 Found\r\nmetadata-flavor: Google\r\nlocation: http://127.0.0.1:1/\r\n\
            content-length: 0\r\nconnection: close\r\n\r\n"];
        let refusal: &[&str] = &["HTTP/1.1 403 Forbidden\r\nmetadata-flavor: Google\r\ncontent-length: 0\r\n\
            connection: close\r\n\r\n"];
        for answers in [page, other, away, refusal] {
            let (token, asked) = outcome(&server(answers).await, HERE, FINE).await;
            assert!(matches!(token, Err(Error::Malformed { .. })), "{answers:?}: {token:?}");
            assert_eq!(asked, 0, "{answers:?}");
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_elsewhere_keeps_the_crate_out_and_costs_nobody_the_token() {
        let (token, asked) = outcome(&server(&[GOOGLE, BY_HAND]).await, "metadata.example", FINE).await;
        assert_eq!((token.as_deref(), asked), (Ok("by-hand"), 0));
    }

    #[tokio::test]
    async fn what_the_crate_cannot_say_our_own_request_says() {
        let refusal = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        let answers: &[&str] = Box::leak(Box::new([GOOGLE, refusal]));
        let (token, asked) = outcome(&server(answers).await, HERE, "<html>").await;
        let error = token.expect_err("refused");
        assert!(error.to_string().contains("gives no access token (status 404)"), "{error}");
        assert_eq!(asked, 1);
    }

    #[tokio::test]
    async fn a_token_at_its_end_or_without_a_time_that_can_be_is_refused() {
        let (ended, _) = outcome(&server(&[GOOGLE]).await, HERE, r#"{"access_token":"x","expires_in":0}"#).await;
        assert!(matches!(ended, Err(Error::Unreachable { .. })), "{ended:?}");
        // The crate panics at it.
        let endless = r#"{"access_token":"x","expires_in":18446744073709551615}"#;
        let (endless, _) = outcome(&server(&[GOOGLE]).await, HERE, endless).await;
        assert!(matches!(endless, Err(Error::Malformed { .. })), "{endless:?}");
    }

    #[test]
    fn an_end_becomes_a_lifetime_between_nothing_and_twelve_hours() {
        for (end, now, left) in [
            (1_000, 400, 600),
            (1_000, 1_000, 0),
            (1_000, 1_001, 0),
            (i64::MIN, i64::MAX, 0),
            (i64::MAX, i64::MIN, 43_200),
            (1_000_000, 0, 43_200),
        ] {
            assert_eq!(life(end, now), Duration::from_secs(left), "{end} - {now}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_answer_ends_with_its_limit_and_an_endless_one_with_its_polls() {
        let silent = bounded(std::future::pending(), Duration::from_secs(3)).await.map(|_| ());
        assert_eq!(silent, Err(Lost::Silent(Duration::from_secs(3))));
        let polls = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&polls);
        let endless = std::future::poll_fn(move |context| {
            counted.fetch_add(1, Ordering::SeqCst);
            context.waker().wake_by_ref();
            Poll::Pending
        });
        let endless = bounded(endless, Duration::from_secs(3)).await.map(|_| ());
        assert_eq!((endless, polls.load(Ordering::SeqCst)), (Err(Lost::Unreadable), POLLS));
    }
}
