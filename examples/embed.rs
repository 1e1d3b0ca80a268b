//! An agent that embeds the broker: it greets an MCP server, without a daemon and without a secret. An MCP client library would send the
//! requests that follow in the same way.
//!
//!     cargo run --example embed -- safeconduct.toml deploy
//!
//! The workload identity comes from the platform on which it runs, as with the `safeconduct` program.

use std::error::Error;

use safeconduct::{Broker, Config, Env, Head};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let (Some(file), Some(server)) = (words.next(), words.next()) else {
        return Err("usage: embed FILE SERVER".into());
    };
    let config = Config::from_toml(&std::fs::read_to_string(file)?, &Env::from_process())?;
    let broker = Broker::open(config)?;
    let answer = greet(&broker, &server).await?;
    broker.close().await;
    #[expect(clippy::print_stdout, reason = "it is what the example is for")]
    {
        println!("{answer}");
    }
    Ok(())
}

/// What the server answers to `initialize`. A refused token is replaced once.
pub(crate) async fn greet(broker: &Broker, server: &str) -> Result<String, Box<dyn Error>> {
    let client = reqwest::Client::builder().build()?;
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"embed","version":"1"}}}"#;
    for last in [false, true] {
        let lease = broker.lease(server).await?;
        let request = client.post(lease.url()).header("content-type", "application/json");
        let request = request.header("accept", "application/json, text/event-stream").body(body);
        let fields = lease.authorize(&Head::new("POST", lease.url())?)?;
        let answer = request.headers(fields.into_iter().collect()).send().await?;
        if answer.status() == reqwest::StatusCode::UNAUTHORIZED && !last {
            broker.reject(&lease)?;
            continue;
        }
        return Ok(answer.error_for_status()?.text().await?);
    }
    Err("the server refuses each token".into())
}
