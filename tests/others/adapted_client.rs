//! The Rust SDK (`rmcp`) as the client of an MCP server that wants tokens, which `examples/adapters/rmcp/safeconduct.rs` gets from the
//! daemon; one step for each line on stdin. As `adapted-client.mjs`; argument: the URL. Environment: `HTTP` and `SECRET_FILE` of the
//! daemon's loopback listener, or `SAFECONDUCT_SOCKET`.
#![allow(
    clippy::disallowed_methods,
    reason = "the rules of safeconduct's own code are not those of a program that uses it"
)]

use std::error::Error;
use std::io::Write;

use rmcp::model::CallToolRequestParams;
use rmcp::service::RunningService;
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{RoleClient, ServiceExt};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

#[allow(unreachable_pub, reason = "a program that takes the file decides who uses what")]
#[allow(dead_code, reason = "no program uses all of it")]
#[path = "../../examples/adapters/rmcp/safeconduct.rs"]
mod safeconduct;

use safeconduct::Safeconduct;

type Outcome<T> = Result<T, Box<dyn Error>>;

struct Program {
    url: String,
    adapter: Safeconduct,
    client: Option<RunningService<RoleClient, ()>>,
}

impl Program {
    async fn step(&mut self, step: &str, what: &Value) -> Outcome<Value> {
        match step {
            "connect" => {
                let config = StreamableHttpClientTransportConfig::with_uri(self.url.clone());
                let transport = StreamableHttpClientTransport::with_client(self.adapter.clone(), config);
                self.client = Some(().serve(transport).await?);
                Ok(json!(true))
            }
            "call" => {
                let client = self.client.as_ref().ok_or("there is no session")?;
                let name = what["name"].as_str().ok_or("no name")?.to_owned();
                let arguments = what["arguments"].as_object().ok_or("no arguments")?.clone();
                let result = client.call_tool(CallToolRequestParams::new(name).with_arguments(arguments)).await?;
                let text = result.content.first().and_then(|content| content.as_text());
                Ok(json!(text.ok_or("the tool gave no text")?.text))
            }
            _ => Ok(json!(format!("{:?}", self.adapter))),
        }
    }
}

fn adapter() -> Outcome<Safeconduct> {
    let adapter = Safeconduct::new("target");
    let Ok(http) = std::env::var("HTTP") else { return Ok(adapter) };
    let address = http.strip_prefix("http://").ok_or("HTTP is no http URL")?.parse()?;
    Ok(adapter.loopback(address, std::env::var("SECRET_FILE")?))
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let url = std::env::args().nth(1).ok_or("the argument is the server's URL")?;
    let mut program = Program { url, adapter: adapter()?, client: None };
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let line: Value = serde_json::from_str(&line)?;
        let (step, what) = line.as_object().and_then(|object| object.iter().next()).ok_or("no step")?;
        let said = match program.step(step, what).await {
            Ok(done) => json!({ "done": done }),
            Err(error) => json!({ "failed": printed(&*error) }),
        };
        writeln!(std::io::stdout(), "{said}")?;
    }
    if let Some(client) = program.client {
        client.cancel().await?;
    }
    Ok(())
}

/// An error as a program would print it, with its causes.
fn printed(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    format!("{error:?}: {}", causes.map(ToString::to_string).collect::<Vec<_>>().join(": "))
}
