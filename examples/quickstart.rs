//! A demonstration of safeconduct that needs only this machine: `cargo run --example quickstart`.
//!
//! It runs four parties in one process, on loopback, with real signatures: a CI platform that identifies the job, an authorization
//! server that trusts the platform, an MCP server that trusts the authorization server, and safeconduct. No secret is configured. An
//! MCP client asks safeconduct's socket for a token and calls a tool. When the token has expired and is refused, the client asks
//! again and calls again.
//!
//! The first three parties are fakes from the project's tests; they verify signatures, audiences and times as real servers do.
//! safeconduct runs from its library. `safeconduct run` with the same configuration does the same.

#![expect(clippy::print_stdout, reason = "the purpose of this program is to print")]

use std::error::Error;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use rmcp::ServiceExt;
use rmcp::model::CallToolRequestParams;
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use serde_json::{Value, json};
use support::authorization_server::FakeAs;
use support::keys;
use support::mcp_server::FakeMcp;
use support::platform::FakePlatform;
use support::unix_http;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Short, so that you can watch a token expire.
const TOKEN_LIFE: Duration = Duration::from_secs(6);

/// The time limit of the whole demonstration.
const LIMIT: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            heading(&format!("Failed: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Outcome<()> {
    let platform = FakePlatform::start().await;
    let authorization_server = FakeAs::start(platform.trust()).await;
    authorization_server.set_token_life(TOKEN_LIFE);
    let mcp = FakeMcp::start(&authorization_server, &["demo:read"]).await;

    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("safeconduct.sock");
    let text = configuration(&socket, &mcp.url(), &authorization_server.issuer());
    let env = safeconduct::Env::from_vars(platform.env());
    let config = safeconduct::Config::from_toml(&text, &env)?;
    let app = safeconduct::App::build(config, env, safeconduct::Clock::system()).await?;

    let world = World { platform, authorization_server, mcp, socket: app.socket().to_owned() };
    let (finished, shutdown) = tokio::sync::oneshot::channel::<()>();
    let story = async {
        let told = tokio::time::timeout(LIMIT, world.story()).await;
        drop(finished);
        told.map_err(|_| format!("it took longer than {LIMIT:?}"))?
    };
    let daemon = app.run(async {
        let _ = shutdown.await;
    });
    let (_, told) = tokio::join!(daemon, story);
    told
}

/// The whole configuration. It names no identity, because safeconduct detects it, and no secret.
fn configuration(socket: &Path, url: &str, issuer: &str) -> String {
    format!(
        r#"
        [listen]
        socket = "{}"

        [egress]
        insecure_loopback = true

        [servers.demo]
        url    = "{url}"
        issuer = "{issuer}"
        scopes = ["demo:read"]
        "#,
        socket.display()
    )
}

struct World {
    platform: FakePlatform,
    authorization_server: FakeAs,
    mcp: FakeMcp,
    socket: PathBuf,
}

impl World {
    async fn story(&self) -> Outcome<()> {
        heading("Who is here (all on loopback, every signature real, no secret configured)");
        line("platform", &format!("{}, knows which job this is", self.platform.issuer()));
        line("authorization", &format!("{}, trusts the platform", self.authorization_server.issuer()));
        line("MCP server", &format!("{}, trusts the authorization server", self.mcp.url()));
        line("safeconduct", &format!("unix:{}", self.socket.display()));

        heading("1. The MCP client asks safeconduct for a token, and safeconduct asks the others");
        let first = self.ask().await?;
        self.tell_exchange()?;
        tell_token("first token", &first);
        let sum = self.call(&first, "add", json!({"a": 19, "b": 23})).await?;
        line("client", &format!("calls add(19, 23) with it: {sum}"));

        heading("2. The client lets that token expire");
        self.wait_for_expiry(&first).await;
        let (status, challenge) = self.present(&first).await?;
        line("client", "shows the first token to the MCP server once more");
        line("MCP server", &format!("{status}, {challenge}"));
        if status != 401 {
            return Err(format!("the expired token was answered with {status}").into());
        }

        heading("3. The MCP client asks safeconduct again");
        let unasked = self.authorization_server.token_requests() - 1;
        if unasked > 0 {
            line("safeconduct", "saw the token in use and renewed it before anybody had to wait");
        }
        let second = self.ask().await?;
        tell_token("second token", &second);
        let who = self.call(&second, "whoami", json!({})).await?;
        let who: Value = serde_json::from_str(&who)?;
        line("client", &format!("calls whoami() with it: {}, {}", plain(&who["sub"]), plain(&who["scope"])));

        let (asked, minted) = (self.platform.requests(), self.authorization_server.token_requests());
        heading(&format!("Done: add gave {sum}, whoami gave {}", plain(&who["sub"])));
        line("in all", &format!("{asked} subject tokens, {minted} access tokens, 0 secrets stored, 0 people asked"));
        if first == second || sum != "42" {
            return Err("the second token should be new, and the sum 42".into());
        }
        Ok(())
    }

    /// What any program can do: `curl --unix-socket … http://localhost/v1/token?server=demo`.
    async fn ask(&self) -> Outcome<String> {
        let reply = unix_http::get(&self.socket, "/v1/token?server=demo").await?;
        let body = reply.json();
        line("client", &format!("GET /v1/token?server=demo: {}, {} s left", reply.status, body["expires_in"]));
        let token = body["access_token"].as_str();
        let token = token.ok_or_else(|| format!("safeconduct refused: {}", reply.body))?;
        Ok(token.to_owned())
    }

    /// Shows what the platform and the authorization server saw.
    fn tell_exchange(&self) -> Outcome<()> {
        let audience = self.platform.audiences().pop().ok_or("nobody asked the platform")?;
        line("platform", &format!("signs a JWT for {audience} alone"));
        let request = self.authorization_server.last_request();
        let claims = &request.assertion;
        line("", &format!("it says {}", plain(&claims["sub"])));
        line(
            "",
            &format!(
                "workflow {}, event {}, valid {} min",
                plain(&claims["workflow"]),
                plain(&claims["event_name"]),
                life(claims) / 60
            ),
        );
        let grant = request.params["grant_type"].rsplit(':').next().unwrap_or_default();
        line("authorization", &format!("is sent that JWT as grant {grant}, verifies it, issues a token"));
        Ok(())
    }

    /// Makes one call with a real MCP client. A new token gets a new connection, because there is no session to keep.
    async fn call(&self, token: &str, tool: &'static str, arguments: Value) -> Outcome<String> {
        let config = StreamableHttpClientTransportConfig::with_uri(self.mcp.url()).auth_header(token);
        let transport = StreamableHttpClientTransport::with_client(http()?, config);
        let client = ().serve(transport).await?;
        let request = CallToolRequestParams::new(tool).with_arguments(keys::object(arguments));
        let result = client.call_tool(request).await?;
        client.cancel().await?;
        let text = result.content.first().and_then(|content| content.as_text());
        Ok(text.ok_or("the tool gave no text")?.text.clone())
    }

    /// Status and error of the MCP server's answer to this token.
    async fn present(&self, token: &str) -> Outcome<(u16, String)> {
        let answer = http()?.post(self.mcp.url()).bearer_auth(token).send().await?;
        let challenge =
            answer.headers().get("www-authenticate").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let error = challenge.split(", ").find(|part| part.starts_with("error=")).unwrap_or("no challenge");
        Ok((answer.status().as_u16(), error.to_owned()))
    }

    /// On a terminal this counts the seconds, so that it does not look stuck.
    async fn wait_for_expiry(&self, token: &str) {
        let expiry = keys::peek(token)["exp"].as_f64().unwrap_or_default();
        while keys::now() < expiry {
            if std::io::stdout().is_terminal() {
                print!("\r  {:<14}{:.0} s left on the first token ", "", (expiry - keys::now()).ceil());
                let _ = std::io::Write::flush(&mut std::io::stdout());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        if std::io::stdout().is_terminal() {
            print!("\r{:60}\r", "");
        }
        line("clock", "the first token's last second is over");
    }
}

/// Loopback needs neither a proxy nor the system's certificates.
fn http() -> Outcome<reqwest::Client> {
    Ok(reqwest::Client::builder().no_proxy().tls_certs_only([]).build()?)
}

/// A token's claims and the start of its digest; never the token.
fn tell_token(name: &str, token: &str) {
    let claims = keys::peek(token);
    line(name, &format!("sha256 {}…, scope {}", &keys::digest(token)[..12], plain(&claims["scope"])));
    line("", &format!("for {} alone", plain(&claims["aud"])));
}

/// In seconds.
fn life(claims: &keys::Claims) -> u64 {
    let time = |name: &str| claims.get(name).and_then(Value::as_u64).unwrap_or_default();
    time("exp") - time("iat")
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn heading(text: &str) {
    match std::io::stdout().is_terminal() {
        true => println!("\n\x1b[1m{text}\x1b[0m"),
        false => println!("\n{text}"),
    }
}

fn line(who: &str, what: &str) {
    println!("  {who:<14}{what}");
}
