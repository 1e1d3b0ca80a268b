"""The official Python SDK (PyPI mcp) as authorization server and MCP server in one: it takes ID-JAGs of one identity
provider (SEP-990) from one client with a secret, and checks the tokens it issued.

Environment: CLIENT_SECRET (of the client "agent"), NEIGHBOUR (a resource of somebody else that it issues tokens for too).
Prints {"issuer","resource"} when ready; a line {"trusted_issuer","jwks"} on stdin names the identity provider. Then prints
{"token_request"} for every ID-JAG; ends when stdin does, or after 120 s.
"""

import json
import os
import secrets
import socket
import sys
import threading
import time

import jwt
import uvicorn
from mcp.server.auth.provider import AccessToken, OAuthAuthorizationServerProvider, TokenError
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import MCPServer
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken

GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
AGENT = OAuthClientInformationFull(
    client_id="agent",
    client_secret=os.environ["CLIENT_SECRET"],
    token_endpoint_auth_method="client_secret_post",
    grant_types=[GRANT],
)
trust = {}


def say(line):
    print(json.dumps(line), flush=True)


class Provider(OAuthAuthorizationServerProvider):
    """What the SDK leaves to its operator: who the clients are, which ID-JAGs count, where tokens are kept."""

    def __init__(self, issuer, resources):
        self.issuer, self.resources, self.tokens, self.seen = issuer, resources, {}, set()

    async def get_client(self, client_id):
        return AGENT if client_id == AGENT.client_id else None

    async def load_access_token(self, token):
        return self.tokens.get(token)

    async def exchange_identity_assertion(self, client, params):
        try:
            token = self.issue(client, self.verified(client, params))
        except TokenError as refusal:
            say({"token_request": refusal.error, "why": refusal.error_description})
            raise
        say({"token_request": "granted"})
        return token

    def verified(self, client, params):
        claims = decoded(params.assertion, self.issuer)
        if claims["client_id"] != client.client_id:
            raise TokenError("invalid_grant", "the ID-JAG was issued to another client")
        if claims["jti"] in self.seen:
            raise TokenError("invalid_grant", "the ID-JAG was used before")
        if claims["resource"] not in self.resources or params.resource not in (None, claims["resource"]):
            raise TokenError("invalid_target", "no such resource here")
        self.seen.add(claims["jti"])
        return claims

    def issue(self, client, claims):
        token = secrets.token_urlsafe(32)
        self.tokens[token] = AccessToken(
            token=token,
            client_id=client.client_id,
            scopes=["tools:read"],
            expires_at=int(time.time()) + 600,
            resource=claims["resource"],
            subject=claims["sub"],
        )
        return OAuthToken(access_token=token, token_type="Bearer", expires_in=600, scope="tools:read")


def decoded(assertion, issuer):
    try:
        if jwt.get_unverified_header(assertion).get("typ") != "oauth-id-jag+jwt":
            raise TokenError("invalid_grant", "this is no ID-JAG")
        rules = {"require": ["sub", "exp", "jti", "client_id", "resource"]}
        key = jwt.PyJWKSet.from_dict(trust["jwks"]).keys[0]
        return jwt.decode(assertion, key, ["ES256"], options=rules, audience=issuer, issuer=trust["trusted_issuer"])
    except jwt.PyJWTError as problem:
        raise TokenError("invalid_grant", f"ID-JAG refused: {problem}".replace('"', "")) from problem


def application(issuer, resource):
    settings = AuthSettings(
        issuer_url=issuer,
        resource_server_url=resource,
        required_scopes=["tools:read"],
        identity_assertion_enabled=True,
        validate_token_resource=True,
    )
    provider = Provider(issuer, [resource, os.environ["NEIGHBOUR"]])
    server = MCPServer("others", auth_server_provider=provider, auth=settings, log_level="ERROR")

    @server.tool()
    def greet(name: str) -> str:
        return f"hello {name}"

    return server.streamable_http_app()


def follow_stdin():
    for line in sys.stdin:
        trust.update(json.loads(line))
        say({"trusts": trust["trusted_issuer"]})
    os._exit(0)


def main():
    limit = threading.Timer(120, os._exit, [0])
    limit.daemon = True
    limit.start()
    # The issuer contains the port, which is known once the socket is bound.
    listener = socket.create_server(("127.0.0.1", 0))
    issuer = f"http://127.0.0.1:{listener.getsockname()[1]}"
    resource = f"{issuer}/mcp"
    config = uvicorn.Config(application(issuer, resource), log_level="error")
    threading.Thread(target=follow_stdin, daemon=True).start()
    say({"issuer": issuer, "resource": resource})
    # New connections wait in the listener's queue until the server accepts them.
    uvicorn.Server(config).run(sockets=[listener])


main()
