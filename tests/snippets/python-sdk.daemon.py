import asyncio

import httpx2
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client

SOCKET = "/run/user/1000/safeconduct/safeconduct.sock"
URL = "http://localhost/mcp/deploy"


async def main():
    transport = httpx2.AsyncHTTPTransport(uds=SOCKET, retries=5)
    async with httpx2.AsyncClient(transport=transport, timeout=httpx2.Timeout(30, read=300)) as http:
        async with Client(streamable_http_client(URL, http_client=http)) as client:
            print([tool.name for tool in (await client.list_tools()).tools])


asyncio.run(main())
