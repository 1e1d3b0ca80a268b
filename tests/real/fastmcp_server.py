"""An MCP server of FastMCP that takes the tokens of one issuer. Writes its URL as one line of JSON and ends with standard input.

Environment: ISSUER, JWKS (the URL of its keys), ALGORITHM.
"""

import json
import os
import socket
import sys
import threading

# Read when FastMCP is imported.
os.environ["FASTMCP_LOG_LEVEL"] = "ERROR"

import uvicorn
from fastmcp import FastMCP
from fastmcp.server.auth import RemoteAuthProvider
from fastmcp.server.auth.providers.jwt import JWTVerifier
from fastmcp.server.dependencies import get_access_token


def main():
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    origin = "http://127.0.0.1:%d" % listening.getsockname()[1]
    issuer = os.environ["ISSUER"]
    verifier = JWTVerifier(
        jwks_uri=os.environ["JWKS"],
        issuer=issuer,
        audience=f"{origin}/mcp",
        algorithm=os.environ["ALGORITHM"],
        # After a look at the keys, the next one. 30 seconds if it is not said.
        jwks_refresh_interval=2.0,
    )
    server = FastMCP(
        name="real", auth=RemoteAuthProvider(token_verifier=verifier, authorization_servers=[issuer], base_url=origin)
    )

    @server.tool
    def caller() -> str:
        """Who calls, by the token."""
        return get_access_token().claims["sub"]

    web = uvicorn.Server(uvicorn.Config(server.http_app(path="/mcp"), log_level="warning"))

    def end():
        sys.stdin.read()
        web.should_exit = True

    threading.Thread(target=end, daemon=True).start()
    listening.listen()
    print(json.dumps({"ready": f"{origin}/mcp"}), flush=True)
    web.run(sockets=[listening])


main()
