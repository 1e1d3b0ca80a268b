//! The Python SDK: an HTTP client that dials the daemon's socket. Without a daemon the bridge, with the variables that the SDK
//! would keep back. In both the program never has the token.

use super::{Row, USUAL};

pub(super) const ROW: Row = Row {
    place: "your program (PyPI mcp 2)",
    replaces: &[],
    direct: Some((
        r#"import asyncio

import httpx2
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client

SOCKET = «socket»
URL = «proxy»


async def main():
    transport = httpx2.AsyncHTTPTransport(uds=SOCKET, retries=5)
    async with httpx2.AsyncClient(transport=transport, timeout=httpx2.Timeout(30, read=300)) as http:
        async with Client(streamable_http_client(URL, http_client=http)) as client:
            print([tool.name for tool in (await client.list_tools()).tools])


asyncio.run(main())
"#,
        "the program dials the daemon's socket, for some seconds also while the daemon is restarted; the daemon adds the token to each \
        request",
    )),
    bridge: r#"import asyncio
import os

from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

BRIDGE = StdioServerParameters(
    command=«program»,
    args=«args»,
    env=dict(os.environ),
)


async def main():
    async with Client(stdio_client(BRIDGE)) as client:
        print([tool.name for tool in (await client.list_tools()).tools])


asyncio.run(main())
"#,
    alone: "`env` hands on the variables of the job's identity, which the SDK would keep back",
    ..USUAL
};
