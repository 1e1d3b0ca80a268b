//! The broker inside a Rust program: what an agent needs to send its own requests, and nothing of the daemon.
//!
//! [`Broker::open`] puts the rooms together, [`Broker::lease`] gets a token as any caller does, and [`Lease::authorize`] writes the header
//! fields for one request. The program is the only caller: it asks as its own user, under the rules of its configuration.

use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};

use crate::assembly::{self, Core};
use crate::broker::{self, Action, Class, Least, Request, Target};
use crate::caller::Caller;
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::env::Env;
use crate::oauth::ServerUrl;

/// A broker in this process. It keeps the tokens that are in use fresh until it is dropped.
///
/// ```no_run
/// # async fn example() -> Result<(), safeconduct::Error> {
/// use safeconduct::{Broker, Config, Env, Head};
///
/// let text = "[servers.deploy]\nurl = 'https://mcp.example.com/mcp'";
/// let broker = Broker::open(Config::from_toml(text, &Env::from_process())?)?;
/// let lease = broker.lease("deploy").await?;
/// for (name, value) in lease.authorize(&Head::new("POST", lease.url())?)? {
///     println!("{name}: {} secret bytes", value.len());
/// }
/// # Ok(())
/// # }
/// ```
pub struct Broker {
    core: Core,
    this_process: Caller,
}

/// A token for one MCP server, with the key or certificate that it is bound to.
pub struct Lease {
    lease: broker::Lease,
    url: ServerUrl,
}

/// The request that is to be authorised.
#[derive(Clone, Debug)]
pub struct Head(broker::Head);

/// Why there is no broker, no token or no header field. What it says is one line without secrets.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    message: String,
    class: Class,
    hint: Option<String>,
    retry_in: Option<Duration>,
}

impl Broker {
    /// Finds the identity of this process and prepares the servers of the configuration. No token is fetched yet. `[listen]` has no effect.
    ///
    /// # Errors
    ///
    /// A needed identity is not here, or the audit file cannot be written.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn open(config: Config) -> Result<Self, Error> {
        Self::open_in(config, Env::from_process(), Clock::system())
    }

    /// The same with another environment and another clock than those of the process.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn open_in(config: Config, env: Env, clock: Clock) -> Result<Self, Error> {
        let this_process = Caller::own(env.uid(), env.gid());
        Ok(Self { core: assembly::core_beside_others(config, env, clock)?, this_process })
    }

    /// Gets a token for a configured server, from memory or newly made. Calls for one server at a time share one exchange. Gives up
    /// after the time limits of the configuration.
    ///
    /// # Errors
    ///
    /// There is no such server, this user may not use it, or it or its authorization server refuses or cannot be reached.
    pub async fn lease(&self, server: &str) -> Result<Lease, Error> {
        let request = Request {
            target: Target::Name(server.to_owned()),
            scopes: None,
            least: Least::Of(Duration::ZERO),
            fresh: false,
            action: Action::Headers,
            helper: false,
            may_be_a_retry: false,
        };
        let lease = self.core.broker.token(&self.this_process, &request).await?;
        let url = lease.server.url.clone();
        Ok(Lease { lease, url })
    }

    /// Says that the server answered 401 to this lease: the next [`Self::lease`] waits for a new token. Says it of the same token only
    /// once.
    ///
    /// # Errors
    ///
    /// This user may no longer use the server.
    pub fn reject(&self, lease: &Lease) -> Result<(), Error> {
        let target = Target::Name(lease.lease.server.name.to_string());
        self.core.broker.reject(&self.this_process, &target, &lease.lease.token.digest)?;
        Ok(())
    }

    /// Ends all that runs in the background, then revokes the tokens of servers with `revoke_on_exit`, for at most 5 s. Dropping the
    /// broker does the first alone.
    pub async fn close(self) {
        // First of all nothing may be made anew.
        self.core.stop.cancel();
        self.core.broker.revoke_at_exit().await;
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.core.stop.cancel();
    }
}

impl Lease {
    /// The server's URL.
    pub fn url(&self) -> &str {
        self.url.as_str()
    }

    /// The header fields that authorise this one request. Their values are secrets, and marked as sensitive. Ask for each request
    /// anew: a proof (DPoP) or a signature (SigV4) is for one alone.
    ///
    /// # Errors
    ///
    /// The URL is not the server's own or below it, or a signature needs the digest of the body.
    pub fn authorize(&self, head: &Head) -> Result<Vec<(HeaderName, HeaderValue)>, Error> {
        Ok(self.lease.ready(&head.0.url, || head.0.clone())?)
    }
}

impl Head {
    /// A request with this method to this URL.
    ///
    /// # Errors
    ///
    /// The URL cannot be that of an MCP server.
    pub fn new(method: &str, url: &str) -> Result<Self, Error> {
        let url = ServerUrl::parse(url).map_err(|error| Error {
            message: format!("the URL of the request: {error}"),
            class: Class::BadRequest,
            hint: None,
            retry_in: None,
        })?;
        Ok(Self(broker::Head { method: Some(method.to_owned()), url, nonce: None, body_sha256: None }))
    }

    /// With the SHA-256 of its body, in lower-case hexadecimal. Only a signature needs it.
    #[must_use]
    pub fn with_body_sha256(mut self, digest: &str) -> Self {
        self.0.body_sha256 = Some(digest.to_owned());
        self
    }

    /// With the nonce that the server sent last (RFC 9449 section 9).
    #[must_use]
    pub fn with_nonce(mut self, nonce: &str) -> Self {
        self.0.nonce = Some(nonce.to_owned());
        self
    }
}

impl Error {
    /// What kind of failure it is.
    pub fn class(&self) -> Class {
        self.class
    }

    /// What to do about it, if that is known.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// When to try again at the earliest, if it is temporary and the other side or the broker says so.
    pub fn retry_in(&self) -> Option<Duration> {
        self.retry_in
    }
}

impl From<broker::Error> for Error {
    fn from(error: broker::Error) -> Self {
        Self { message: error.in_full(), class: error.class(), hint: error.hint(), retry_in: error.retry_in() }
    }
}

impl From<assembly::Error> for Error {
    fn from(error: assembly::Error) -> Self {
        Self { message: error.to_string(), class: error.class(), hint: error.hint(), retry_in: None }
    }
}

impl From<config::Error> for Error {
    fn from(error: config::Error) -> Self {
        let message = error.lines().iter().map(|line| line.trim()).collect::<Vec<_>>().join("; ");
        Self { message, class: Class::Config, hint: None, retry_in: None }
    }
}
