//! The Python SDK: an HTTP client that dials the daemon's socket. Without a daemon the bridge, with the variables that the SDK
//! would keep back. In both the program never has the token.

use super::{Facts, Page, text};

pub(super) fn page(facts: &Facts) -> Page {
    match facts.direct() {
        Some(daemon) => Page::new(
            format!(
                r#"import asyncio

import httpx2
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client

SOCKET = {}
URL = {}


async def main():
    transport = httpx2.AsyncHTTPTransport(uds=SOCKET)
    async with httpx2.AsyncClient(transport=transport, timeout=httpx2.Timeout(30, read=300)) as http:
        async with Client(streamable_http_client(URL, http_client=http)) as client:
            print([tool.name for tool in (await client.list_tools()).tools])


asyncio.run(main())
"#,
                text(&daemon.socket).scalar(),
                text(&format!("http://localhost{}", facts.proxy_path())).scalar(),
            ),
            "the program dials the daemon's socket; the daemon adds the token to each request",
        ),
        None => Page::new(
            format!(
                r#"import asyncio
import os

from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

BRIDGE = StdioServerParameters(
    command={},
    args={},
    env=dict(os.environ),
)


async def main():
    async with Client(stdio_client(BRIDGE)) as client:
        print([tool.name for tool in (await client.list_tools()).tools])


asyncio.run(main())
"#,
                text(&facts.program).scalar(),
                facts.bridge().scalar(),
            ),
            facts.bridge_note("`env` hands on the variables of the job's identity, which the SDK would keep back"),
        ),
    }
}
