"""The official Python client (PyPI mcp): calls one tool of an MCP server with a token it is given.

Arguments: the server's URL. Environment: TOKEN. Prints {"said"}, or {"refused"} with the status the server answered.
"""

import asyncio
import json
import os
import sys

from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client


async def main(url):
    statuses = []

    async def note(response):
        statuses.append(response.status_code)

    async with create_mcp_http_client(headers={"Authorization": f"Bearer {os.environ['TOKEN']}"}) as http:
        http.event_hooks["response"].append(note)
        try:
            return {"said": await greeting(streamable_http_client(url, http_client=http))}
        except Exception:
            # Report the server's answer, whatever exception the client raises for a refusal.
            refusals = [status for status in statuses if status >= 400]
            if not refusals:
                raise
            return {"refused": refusals[0]}


async def greeting(transport):
    async with Client(transport) as client:
        answer = await client.call_tool("greet", {"name": "safeconduct"})
        return answer.content[0].text


print(json.dumps(asyncio.run(main(sys.argv[1]))))
