"""The official Python client (PyPI mcp, 2.x or 1.x) of an MCP server that wants tokens, which
examples/adapters/python/safeconduct_auth.py gets from the daemon; one step for each line on stdin.

As adapted-client.mjs; arguments: the URL. With "sync", {"connect"} and {"call"} are one POST of an httpx client without asyncio
each. "shown" contains the log of all packages too.
"""

import asyncio
import contextlib
import importlib.metadata
import io
import json
import logging
import os
import sys
import traceback

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../../examples/adapters/python"))
sys.dont_write_bytecode = True

from mcp.client.streamable_http import streamable_http_client  # noqa: E402
from safeconduct_auth import SafeconductAuth  # noqa: E402

if importlib.metadata.version("mcp").startswith("1."):
    import httpx
    from mcp import ClientSession
else:
    import httpx2 as httpx
    from mcp.client import Client

LOG = io.StringIO()


def say(line):
    print(json.dumps(line), flush=True)


def auth():
    if http := os.environ.get("HTTP"):
        return SafeconductAuth("target", http=http, secret_file=os.environ["SECRET_FILE"])
    return SafeconductAuth("target")


@contextlib.asynccontextmanager
async def session(url, http):
    if httpx.__name__ == "httpx2":
        async with Client(streamable_http_client(url, http_client=http)) as client:
            yield client
    else:
        async with streamable_http_client(url, http_client=http) as (read, write, _):
            async with ClientSession(read, write) as client:
                await client.initialize()
                yield client


ADAPTER = auth()


def shown():
    return f"{LOG.getvalue()}\n{ADAPTER!r}\n{vars(ADAPTER)}"


async def converse(url, todo):
    async with httpx.AsyncClient(auth=ADAPTER, timeout=60) as http, session(url, http) as client:
        say({"done": True})
        async for step, what in todo:
            try:
                if step == "shown":
                    say({"done": shown()})
                else:
                    say({"done": (await client.call_tool(what["name"], what["arguments"])).content[0].text})
            except Exception:
                say({"failed": traceback.format_exc()})


async def lines():
    while line := await asyncio.to_thread(sys.stdin.readline):
        yield next(iter(json.loads(line).items()))


async def main(url):
    todo = lines()
    # A failure may end the session; then "connect" opens another.
    async for step, _ in todo:
        if step == "shown":
            say({"done": shown()})
            continue
        try:
            return await converse(url, todo)
        except Exception:
            say({"failed": traceback.format_exc()})


def without_asyncio(url):
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    accepted = {"Accept": "application/json, text/event-stream"}
    with httpx.Client(auth=ADAPTER, timeout=60) as http:
        for line in sys.stdin:
            if "shown" in json.loads(line):
                say({"done": shown()})
                continue
            try:
                say({"done": http.post(url, json=ping, headers=accepted).status_code})
            except Exception:
                say({"failed": traceback.format_exc()})


logging.basicConfig(level=logging.DEBUG, stream=LOG)
if sys.argv[1] == "sync":
    without_asyncio(sys.argv[2])
else:
    asyncio.run(main(sys.argv[1]))
os._exit(0)
