//! The floor: a minimal hyper http1 server on a Unix socket with the same answer as the broker.
//!
//! It has no routes, checks and look-ups. With `--like FILE` it repeats an answer that was recorded from the broker
//! (status line, headers and body as raw bytes), so that both write the same number of bytes with the same headers.

use std::convert::Infallible;
use std::path::PathBuf;

use clap::Parser;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, DATE, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use safeconduct_bench_tools::{Result, wire};
use tokio::net::UnixListener;

#[derive(Parser)]
struct Flags {
    /// Where to listen; a stale socket there is removed.
    #[arg(long)]
    socket: PathBuf,
    /// A recorded answer to repeat (`load once --raw`).
    #[arg(long)]
    like: Option<PathBuf>,
    /// The runtime's worker threads.
    #[arg(long, default_value_t = 2)]
    workers: usize,
}

fn main() -> Result<()> {
    let flags = Flags::parse();
    let answer = match &flags.like {
        Some(file) => Answer::recorded(&std::fs::read(file)?)?,
        None => Answer::example(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(flags.workers)
        .enable_all()
        .build()?;
    runtime.block_on(serve(&flags, answer))
}

async fn serve(flags: &Flags, answer: Answer) -> Result<()> {
    if flags.socket.exists() {
        std::fs::remove_file(&flags.socket)?;
    }
    let listener = UnixListener::bind(&flags.socket)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let answer = answer.clone();
        tokio::spawn(async move {
            let respond = service_fn(move |_: Request<Incoming>| {
                let response = answer.response();
                async move { Ok::<_, Infallible>(response) }
            });
            // A client that hangs up is the normal end of a connection here.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), respond)
                .await;
        });
    }
}

#[derive(Clone)]
struct Answer {
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn recorded(raw: &[u8]) -> Result<Self> {
        let head = wire::head_length(raw).ok_or("the recorded answer has no header block")?;
        let mut headers = HeaderMap::new();
        for line in str::from_utf8(&raw[..head])?
            .lines()
            .skip(1)
            .filter(|line| !line.is_empty())
        {
            let (name, value) = line
                .split_once(':')
                .ok_or("the recorded answer has a header without a colon")?;
            headers.append(
                HeaderName::try_from(name)?,
                HeaderValue::try_from(value.trim())?,
            );
        }
        // hyper adds these fields.
        for own in [CONTENT_LENGTH, DATE, CONNECTION, TRANSFER_ENCODING] {
            headers.remove(own);
        }
        Ok(Self {
            headers,
            body: Bytes::copy_from_slice(&raw[head..]),
        })
    }

    /// An answer of the usual size, for a floor without a recorded answer.
    fn example() -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(
            hyper::header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        headers.insert(
            hyper::header::CACHE_CONTROL,
            HeaderValue::from_static("no-store"),
        );
        let body = serde_json::json!({
            "access_token": "x".repeat(750), "token_type": "Bearer", "expires_in": 3600, "expires_at": "2030-01-01T00:00:00Z",
            "scope": "bench:read", "resource": "http://127.0.0.1:10000/mcp", "issuer": "http://127.0.0.1:10001",
        });
        Self {
            headers,
            body: Bytes::from(body.to_string()),
        }
    }

    fn response(&self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.body.clone()));
        *response.headers_mut() = self.headers.clone();
        response
    }
}
