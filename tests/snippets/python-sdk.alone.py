import asyncio
import os

from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

BRIDGE = StdioServerParameters(
    command="/usr/bin/safeconduct",
    args=["stdio", "https://mcp.example.com/mcp"],
    env=dict(os.environ),
)


async def main():
    async with Client(stdio_client(BRIDGE)) as client:
        print([tool.name for tool in (await client.list_tools()).tools])


asyncio.run(main())
