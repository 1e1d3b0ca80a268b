"""An MCP server for the conformance suite's scenarios of servers, made of the official Python SDK (PyPI mcp). It speaks both
wires and asks for no token.

Prints {"issuer","resource"} when ready (the same URL twice: there is no issuer); ends when stdin does, or after 120 s.
"""

import asyncio
import base64
import json
import logging
import os
import socket
import sys
import threading

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.prompts.base import UserMessage
from mcp_types import (
    AudioContent,
    Completion,
    ElicitRequest,
    EmbeddedResource,
    ImageContent,
    InputRequiredResult,
    TextContent,
    TextResourceContents,
)
from pydantic import BaseModel, Field

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
SILENCE = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA="

server = MCPServer("fixture", log_level="CRITICAL")
# A tool of it fails on purpose.
logging.disable(logging.CRITICAL)


def embedded(uri, mime_type, text):
    return EmbeddedResource(
        type="resource", resource=TextResourceContents(uri=uri, mime_type=mime_type, text=text)
    )


def image():
    return ImageContent(type="image", data=PIXEL, mime_type="image/png")


@server.tool()
def test_simple_text() -> str:
    return "This is a simple text response for testing."


@server.tool()
def test_image_content() -> list[ImageContent]:
    return [image()]


@server.tool()
def test_audio_content() -> list[AudioContent]:
    return [AudioContent(type="audio", data=SILENCE, mime_type="audio/wav")]


@server.tool()
def test_embedded_resource() -> list[EmbeddedResource]:
    return [embedded("test://embedded-resource", "text/plain", "An embedded resource.")]


@server.tool()
def test_multiple_content_types() -> list[TextContent | ImageContent | EmbeddedResource]:
    data = embedded("test://mixed-content-resource", "application/json", '{"test":"data","value":123}')
    return [TextContent(type="text", text="Several kinds:"), image(), data]


@server.tool()
def test_error_handling() -> str:
    raise RuntimeError("This tool intentionally returns an error for testing")


@server.tool()
async def test_tool_with_logging(ctx: Context) -> str:
    for step in ("started", "processing data", "completed"):
        await ctx.info(f"Tool execution {step}")
        await asyncio.sleep(0.05)
    return "done"


@server.tool()
async def test_tool_with_progress(ctx: Context) -> str:
    for step in (0, 50, 100):
        await ctx.report_progress(step, 100, f"{step} of 100")
        await asyncio.sleep(0.05)
    return "done"


class Contact(BaseModel):
    username: str = Field(description="User's response")
    email: str = Field(description="User's email address")


class Defaults(BaseModel):
    name: str = Field(default="John Doe")
    age: int = Field(default=30)
    score: float = Field(default=95.5)
    status: str = Field(default="active", json_schema_extra={"enum": ["active", "inactive", "pending"]})
    verified: bool = Field(default=True)


@server.tool()
async def test_elicitation(message: str, ctx: Context) -> str:
    answer = await ctx.elicit(message=message, schema=Contact)
    return f"User response: action={answer.action}"


@server.tool()
async def test_elicitation_sep1034_defaults(ctx: Context) -> str:
    answer = await ctx.elicit(message="Who are you?", schema=Defaults)
    return f"Elicitation completed: action={answer.action}"


def question(message, name):
    schema = {"type": "object", "properties": {name: {"type": "string"}}, "required": [name]}
    return ElicitRequest.model_validate(
        {"method": "elicitation/create", "params": {"message": message, "requestedSchema": schema}}
    )


@server.tool()
def test_input_required_result_elicitation(ctx: Context) -> str | InputRequiredResult:
    if not ctx.input_responses:
        return InputRequiredResult(input_requests={"user_name": question("What is your name?", "name")})
    return "Hello!"


@server.tool()
def test_input_required_result_request_state(ctx: Context) -> str | InputRequiredResult:
    if ctx.request_state is None:
        asked = {"confirm": question("Please confirm", "ok")}
        return InputRequiredResult(input_requests=asked, request_state="first")
    return f"state-ok {ctx.request_state}"


@server.tool()
def test_input_required_result_multi_round(ctx: Context) -> str | InputRequiredResult:
    if ctx.request_state is None:
        asked = {"step1": question("What is your name?", "name")}
        return InputRequiredResult(input_requests=asked, request_state="first")
    if ctx.request_state == "first":
        asked = {"step2": question("What is your favorite color?", "color")}
        return InputRequiredResult(input_requests=asked, request_state="second")
    return "done"


@server.resource("test://static-text", mime_type="text/plain")
def static_text() -> str:
    return "The text."


@server.resource("test://static-binary", mime_type="image/png")
def static_binary() -> bytes:
    return base64.b64decode(PIXEL)


@server.resource("test://template/{id}/data", mime_type="application/json")
def template(id: str) -> str:
    return json.dumps({"id": id, "templateTest": True, "data": f"Data for ID: {id}"})


@server.prompt()
def test_simple_prompt() -> list[UserMessage]:
    return [UserMessage("A simple prompt.")]


@server.prompt()
def test_prompt_with_arguments(arg1: str, arg2: str) -> list[UserMessage]:
    return [UserMessage(f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'")]


@server.prompt()
def test_prompt_with_embedded_resource(resourceUri: str) -> list[UserMessage]:
    return [UserMessage(embedded(resourceUri, "text/plain", "Embedded.")), UserMessage("Read it.")]


@server.prompt()
def test_prompt_with_image() -> list[UserMessage]:
    return [UserMessage(image()), UserMessage("Look at it.")]


@server.completion()
async def complete(ref, argument, context):
    return Completion(values=[], total=0, has_more=False)


def follow_stdin():
    for _ in sys.stdin:
        pass
    os._exit(0)


def main():
    limit = threading.Timer(120, os._exit, [0])
    limit.daemon = True
    limit.start()
    listener = socket.create_server(("127.0.0.1", 0))
    resource = f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
    threading.Thread(target=follow_stdin, daemon=True).start()
    print(json.dumps({"issuer": resource, "resource": resource}), flush=True)
    uvicorn.Server(uvicorn.Config(server.streamable_http_app(), log_level="error")).run(sockets=[listener])


main()
