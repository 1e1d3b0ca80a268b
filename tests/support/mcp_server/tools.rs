//! The tools behind the bearer check.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::http::request::Parts;
use rmcp::handler::server::router::tool::ToolRouter;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{ServerCapabilities, ServerConfig};
use rmcp::service::{RequestContext, RoleServer};
use rmcp::{ServerHandler, schemars, tool, tool_handler, tool_router};
use serde::Deserialize;
use serde_json::json;

use super::super::keys::Claims;

/// Calls of the tool `wait`.
#[derive(Default)]
pub(super) struct Waits {
    pub(super) begun: AtomicUsize,
    pub(super) cancelled: AtomicUsize,
}

#[derive(Clone)]
pub(super) struct Tools {
    waits: Arc<Waits>,
    tool_router: ToolRouter<Self>,
}

#[derive(Deserialize, schemars::JsonSchema)]
struct Addends {
    a: i64,
    b: i64,
}

#[derive(Deserialize, schemars::JsonSchema)]
struct Wait {
    millis: u64,
}

#[tool_router]
impl Tools {
    pub(super) fn new(waits: Arc<Waits>) -> Self {
        Self { waits, tool_router: Self::tool_router() }
    }

    #[tool(description = "The sum of two numbers")]
    fn add(&self, Parameters(Addends { a, b }): Parameters<Addends>) -> String {
        a.saturating_add(b).to_string()
    }

    /// JSON, so that tests can read it: `sub`, `scope`, `aud`, `jti`.
    #[tool(description = "Who the access token says is calling, and with which scope")]
    fn whoami(&self, context: RequestContext<RoleServer>) -> String {
        let parts = context.extensions.get::<Parts>().expect("it came over HTTP");
        let claims = parts.extensions.get::<Claims>().expect("it passed the bearer check");
        json!({"sub": claims["sub"], "scope": claims["scope"], "aud": claims["aud"], "jti": claims["jti"]}).to_string()
    }

    #[tool(description = "Waits, at most a minute")]
    async fn wait(&self, Parameters(Wait { millis }): Parameters<Wait>, context: RequestContext<RoleServer>) -> String {
        self.waits.begun.fetch_add(1, Ordering::SeqCst);
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(millis.min(60_000))) => "waited".to_owned(),
            () = context.ct.cancelled() => {
                self.waits.cancelled.fetch_add(1, Ordering::SeqCst);
                "cancelled".to_owned()
            }
        }
    }
}

#[tool_handler(router = self.tool_router)]
impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }
}
