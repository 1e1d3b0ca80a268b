"""The official Python client (PyPI mcp) of an MCP server behind the injecting proxy or the bridge, one step for each line on stdin.

As proxied-client.mjs; arguments: the URL, or the bridge's command. Environment: SECRET.
"""

import asyncio
import json
import os
import sys
from contextlib import asynccontextmanager

from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.shared.exceptions import MCPError


def say(line):
    print(json.dumps(line), flush=True)


def told(problem):
    """The one cause within groups of exceptions."""
    while isinstance(problem, BaseExceptionGroup):
        problem = problem.exceptions[0]
    if isinstance(problem, MCPError):
        return {"message": problem.error.message, "code": problem.error.code, "data": problem.error.data}
    return {"message": f"{type(problem).__name__}: {problem}"}


async def called(client, what, **options):
    return await client.call_tool(what["name"], what["arguments"], **options)


async def progress(client, what):
    heard = []

    async def hear(done, total, message):
        heard.append(done)

    await called(client, what, progress_callback=hear)
    return len(heard)


async def step(client, name, what):
    if name == "list":
        return [tool.name for tool in (await client.list_tools()).tools]
    if name == "call":
        return (await called(client, what)).content[0].text
    return await progress(client, what)


async def lines():
    while line := await asyncio.to_thread(sys.stdin.readline):
        yield next(iter(json.loads(line).items()))


@asynccontextmanager
async def transport(way, *args):
    if args:
        yield stdio_client(StdioServerParameters(command=way, args=args))
        return
    async with create_mcp_http_client(headers={"Authorization": f"Bearer {os.environ['SECRET']}"}) as http:
        yield streamable_http_client(way, http_client=http)


async def converse(way, todo):
    async with transport(*way) as there, Client(there, mode="auto") as client:
        say({"done": True})
        async for name, what in todo:
            try:
                say({"done": await step(client, name, what)})
            except Exception as problem:
                say({"failed": told(problem)})


async def main(way):
    todo = lines()
    # The first line is "connect"; after a failure another one may come.
    async for _ in todo:
        try:
            return await converse(way, todo)
        except Exception as problem:
            say({"failed": told(problem)})


asyncio.run(main(sys.argv[1:]))
os._exit(0)
