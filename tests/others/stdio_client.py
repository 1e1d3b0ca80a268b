"""The official Python client of the wire until 2025-11-25 (PyPI mcp 1.x), with a command as its server, one step for each line on stdin.

As stdio-client.mjs. Arguments: the command.
"""

import asyncio
import json
import os
import sys

from mcp import ClientSession, StdioServerParameters, types
from mcp.client.stdio import stdio_client
from mcp.shared.exceptions import McpError


def say(line):
    print(json.dumps(line), flush=True)


def asked(method, params):
    say({"asked": {"method": method, "params": params and params.model_dump(mode="json", exclude_none=True)}})


async def roots(context):
    asked("roots/list", None)
    return types.ListRootsResult(roots=[types.Root(uri="file:///work", name="work")])


async def sampling(context, params):
    asked("sampling/createMessage", params)
    because = types.TextContent(type="text", text="because")
    return types.CreateMessageResult(role="assistant", model="m", content=because)


async def elicitation(context, params):
    asked("elicitation/create", params)
    return types.ElicitResult(action="accept", content={"sure": True})


async def told(message):
    if isinstance(message, types.ServerNotification):
        say({"told": message.root.model_dump(mode="json", exclude_none=True, include={"method", "params"})})


async def progress(session, what):
    heard = []

    async def hear(done, total, message):
        heard.append(done)

    await session.call_tool(what["name"], what.get("arguments"), progress_callback=hear)
    return len(heard)


async def step(session, name, what):
    if name == "call":
        return (await session.call_tool(what["name"], what.get("arguments"))).content[0].text
    if name == "progress":
        return await progress(session, what)
    if name == "list":
        return [tool.name for tool in (await session.list_tools()).tools]
    if name == "read":
        return (await session.read_resource(what)).contents[0].text
    if name == "prompt":
        return (await session.get_prompt(what)).messages[0].content.text
    one = {"subscribe": session.subscribe_resource, "unsubscribe": session.unsubscribe_resource, "level": session.set_logging_level}
    if name in one:
        await one[name](what)
    elif name == "ping":
        await session.send_ping()
    else:
        await session.send_roots_list_changed()
    return True


async def lines():
    while line := await asyncio.to_thread(sys.stdin.readline):
        yield next(iter(json.loads(line).items()))


CALLBACKS = {"roots": ("list_roots_callback", roots), "sampling": ("sampling_callback", sampling), "elicitation": ("elicitation_callback", elicitation)}


async def main(command, *args):
    todo = lines()
    _, names = await anext(todo)
    server = StdioServerParameters(command=command, args=list(args), env=dict(os.environ))
    async with stdio_client(server) as (read, write):
        async with ClientSession(read, write, message_handler=told, **dict(CALLBACKS[name] for name in names)) as session:
            hello = await session.initialize()
            capabilities = hello.capabilities.model_dump(mode="json", exclude_none=True)
            server = hello.serverInfo.model_dump(mode="json", exclude_none=True)
            say({"done": {"server": server, "capabilities": capabilities}})
            async for name, what in todo:
                try:
                    say({"done": await step(session, name, what)})
                except McpError as problem:
                    say({"failed": problem.error.model_dump(mode="json")})


asyncio.run(main(*sys.argv[1:]))
os._exit(0)
