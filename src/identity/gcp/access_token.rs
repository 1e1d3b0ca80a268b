//! The access token of the instance's own account, which the crate `gcp_auth` gets.
//!
//! The crate makes the request and reads the answer. It has a client of its own: it dials by name, reads a body of any length,
//! and has no limit of time. So it is asked only
//!
//! - after the metadata server has answered us as Google's does, under our own limits: a server that is silent, endless,
//!   redirecting or somebody else's is refused by then;
//! - where the system's look-up of `metadata.google.internal` gives the address that we dial for it, and no other;
//! - for ten seconds in all, its own five tries included; then its connection ends;
//! - as a task that is polled [`POLLS`] times at most. On our runtime, which has one thread, it takes one piece of a body each
//!   time, and the largest that hyper reads at once has 408 KiB: an endless body ends by 13 MiB.
//!
//! Its log is switched off (`command/mod.rs`), because it logs the bodies of refusals. Its errors have no status, so after
//! one our own request is made, which says what is wrong. That request is also the way where the crate cannot be used: it
//! knows neither `GCE_METADATA_HOST` nor any account but the instance's own.
//!
//! What remains: it looks the name up again, and DNS may send it elsewhere in that moment. It sends no secret there, and the
//! token of a stranger would go to Google alone. Its copies of the token are freed without being cleared. On a runtime of
//! several threads, which embedders of the library may have, a poll may take more than one piece: there the time alone bounds
//! what is read.

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

/// A token and a project take five of them, and five refusals thirteen (measured).
const POLLS: u32 = 32;
/// One attempt: the crate tries again by itself.
const ONCE: Patience = Patience { tries: 1, delay: Duration::ZERO, total: REQUEST_LIMIT };
/// Google gives none that lives longer (12 hours, by an organisation's policy).
const LONGEST_LIFE: Duration = Duration::from_secs(12 * 3_600);

/// What the crate is asked.
type Asked = Result<Arc<Token>, gcp_auth::Error>;

/// Why there is no token of the crate's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lost {
    /// It has an error, which says too little.
    Failed,
    /// Nothing within this time.
    Silent(Duration),
    /// The answer does not end, or cannot be read without a panic.
    Unreadable,
}

impl Metadata {
    /// An access token of the instance's own account. It goes to Google and nowhere else.
    pub(super) async fn access_token(&self) -> Result<AccessToken, Error> {
        if self.is_at_its_address() { self.by_crate(NAME, ask).await } else { self.access_token_by_hand().await }
    }

    /// `host` is where the crate goes.
    async fn by_crate<F>(&self, host: &str, ask: impl Fn() -> F) -> Result<AccessToken, Error>
    where
        F: Future<Output = Asked> + Send + 'static,
    {
        self.must_be_google().await?;
        if !self.outbound().agrees_with_the_system(host).await {
            tracing::debug!(%host, "the system's look-up leads elsewhere or nowhere: the address is dialled instead");
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
        tracing::debug!(left_s = left.as_secs(), "the metadata server gives an access token");
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

/// The crate's own work: a token, and the project, without which it gives none.
async fn ask() -> Asked {
    MetadataServiceAccount::new().await?.token(&[]).await
}

/// The crate's work within its limits. It ends with this future, and its connection with it.
async fn bounded<F>(work: F, limit: Duration) -> Result<Arc<Token>, Lost>
where
    F: Future<Output = Asked> + Send + 'static,
{
    // As a task of its own it is polled only when something came for it, whatever else its caller waits for.
    let mut task = JoinSet::new();
    task.spawn(at_most(POLLS, work));
    match tokio::time::timeout(limit, task.join_next()).await {
        Err(_) => Err(Lost::Silent(limit)),
        Ok(Some(Ok(Some(asked)))) => asked.map_err(|_| Lost::Failed),
        // A panic is the crate's own: it adds any number of seconds to the time.
        Ok(Some(Ok(None) | Err(_)) | None) => Err(Lost::Unreadable),
    }
}

/// `None` where it wants to be polled more often.
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

/// What a token has left that ends at `end`, a moment of this machine's own clock.
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

    /// What comes of it, and how often the crate was asked.
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
