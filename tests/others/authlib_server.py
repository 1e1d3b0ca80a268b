"""Authlib (PyPI) as an authorization server: for the workloads of one outside issuer, by its own RFC 7523 grant, and for one
client with a key of its own, by its own client_credentials.

Environment: TRUSTED_ISSUER, TRUSTED_JWKS (JSON), RESOURCE (the one it issues tokens for), CLIENT_JWKS (JSON: the key of the
client "machine").
Prints {"issuer","jwks"} when ready, then {"token_request"} for every token request; ends when stdin does, or after 120 s.
For workloads no client is registered or asked for: the issuer of the assertion is the client, as RFC 7523 has it.
"""

import json
import logging
import os
import sys
import threading

# Authlib refuses plain http without this setting; everything here is on loopback.
os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc6749 import ClientMixin, InvalidGrantError
from authlib.oauth2.rfc6749.grants import ClientCredentialsGrant
from authlib.oauth2.rfc7523 import JWTBearerClientAssertion, JWTBearerGrant
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata
from authlib.oauth2.rfc9068 import JWTBearerTokenGenerator
from flask import Flask, jsonify
from flask import request as incoming
from joserfc.jwk import ECKey, KeySet
from werkzeug.serving import WSGIRequestHandler, make_server

TRUSTED_ISSUER = os.environ["TRUSTED_ISSUER"]
TRUSTED_KEYS = KeySet.import_key_set(json.loads(os.environ["TRUSTED_JWKS"]))
CLIENT_KEYS = KeySet.import_key_set(json.loads(os.environ["CLIENT_JWKS"])) if "CLIENT_JWKS" in os.environ else KeySet([])
RESOURCE = os.environ["RESOURCE"]
SIGNING_KEY = ECKey.generate_key("P-256", {"use": "sig", "alg": "ES256"}, private=True, auto_kid=True)


def say(line):
    print(json.dumps(line), flush=True)


class InvalidTargetError(OAuth2Error):
    """RFC 8707 section 2; Authlib has no resource indicators of its own."""

    error = "invalid_target"


class TrustedIssuer(ClientMixin):
    def get_client_id(self):
        return TRUSTED_ISSUER

    def get_allowed_scope(self, scope):
        # A request without a scope gets the default, and the answer says so (RFC 6749 section 3.3).
        return scope or "tools:read"

    def check_grant_type(self, grant_type):
        return grant_type == JWTBearerGrant.GRANT_TYPE


class Workload:
    def __init__(self, subject):
        self.subject = subject

    def get_user_id(self):
        return self.subject


class WorkloadGrant(JWTBearerGrant):
    # Every public client may ask: only the assertion decides (section 2.1).
    TOKEN_ENDPOINT_AUTH_METHODS = ["none"]
    CLAIMS_OPTIONS = {**JWTBearerGrant.CLAIMS_OPTIONS, "sub": {"essential": True}, "jti": {"essential": True}}
    issuer = None
    seen = set()

    def resolve_issuer_client(self, issuer):
        return TrustedIssuer() if issuer == TRUSTED_ISSUER else None

    def resolve_client_public_key(self, client):
        return TRUSTED_KEYS

    def get_audiences(self):
        return [self.issuer]

    def authenticate_user(self, subject):
        return Workload(subject)

    def has_granted_permission(self, client, user):
        return True

    def verify_claims(self, claims):
        super().verify_claims(claims)
        # Authlib accepts any list that contains the issuer; the workload profile requires one value.
        if not isinstance(claims["aud"], str):
            raise InvalidGrantError(description="aud is not a single value")
        if claims["jti"] in self.seen:
            raise InvalidGrantError(description="assertion was used before")
        self.jti = claims["jti"]

    def validate_token_request(self):
        super().validate_token_request()
        if self.request.form.getlist("resource") != [RESOURCE]:
            raise InvalidTargetError(description="no such resource here")
        # Only now, because an assertion without success may be presented again.
        self.seen.add(self.jti)

    def save_token(self, token):
        """The access token is a JWT, so nothing has to be kept."""


class Machine(ClientMixin):
    """A client that was registered by hand, with its public key."""

    client_id = "machine"

    def get_client_id(self):
        return self.client_id

    def get_allowed_scope(self, scope):
        return scope or "tools:read"

    def check_endpoint_auth_method(self, method, endpoint):
        return method == OwnKey.CLIENT_AUTH_METHOD

    def check_grant_type(self, grant_type):
        return grant_type == ClientCredentialsGrant.GRANT_TYPE


class OwnKey(JWTBearerClientAssertion):
    issuer = None
    seen = set()

    def get_audiences(self):
        # The issuer alone: a token endpoint is named by whoever wrote the metadata (draft-ietf-oauth-rfc7523bis).
        return [self.issuer]

    def validate_jti(self, claims, jti):
        if jti in self.seen:
            return False
        self.seen.add(jti)
        return True

    def resolve_client_public_key(self, client):
        return CLIENT_KEYS


class MachineGrant(ClientCredentialsGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = [OwnKey.CLIENT_AUTH_METHOD]

    def validate_token_request(self):
        super().validate_token_request()
        if self.request.form.getlist("resource") != [RESOURCE]:
            raise InvalidTargetError(description="no such resource here")

    def save_token(self, token):
        """The access token is a JWT, so nothing has to be kept."""


class ResourceToken(JWTBearerTokenGenerator):
    def get_jwks(self):
        return SIGNING_KEY

    def get_audiences(self, client, user, scope):
        return RESOURCE


def application(issuer):
    app = Flask("others")
    authorization = AuthorizationServer(app, query_client={Machine.client_id: Machine()}.get)
    authorization.register_token_generator("default", ResourceToken(issuer, alg="ES256", expires_generator=600))
    WorkloadGrant.issuer = OwnKey.issuer = issuer
    authorization.register_grant(WorkloadGrant)
    authorization.register_client_auth_method(OwnKey.CLIENT_AUTH_METHOD, OwnKey())
    authorization.register_grant(MachineGrant)

    metadata = AuthorizationServerMetadata(
        issuer=issuer,
        token_endpoint=f"{issuer}/token",
        jwks_uri=f"{issuer}/jwks",
        response_types_supported=[],
        grant_types_supported=[JWTBearerGrant.GRANT_TYPE, ClientCredentialsGrant.GRANT_TYPE],
        token_endpoint_auth_methods_supported=["none", "private_key_jwt"],
        token_endpoint_auth_signing_alg_values_supported=["ES256"],
    )

    @app.get("/.well-known/oauth-authorization-server")
    def describe():
        return jsonify(metadata)

    @app.get("/jwks")
    def keys():
        return jsonify(public_keys())

    @app.post("/token")
    def token():
        answer = authorization.create_token_response(incoming)
        body = answer.get_json()
        say({"token_request": body.get("error", "granted"), "why": body.get("error_description")})
        return answer

    return app


def public_keys():
    return {"keys": [SIGNING_KEY.as_dict(private=False)]}


def end_with_stdin():
    sys.stdin.read()
    os._exit(0)


class Silent(WSGIRequestHandler):
    def log_request(self, *_):
        """A line per request would only bury what matters."""


def main():
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    threading.Thread(target=end_with_stdin, daemon=True).start()
    limit = threading.Timer(120, os._exit, [0])
    limit.daemon = True
    limit.start()
    # The issuer contains the port, which is known once the socket is bound; the application follows.
    server = make_server("127.0.0.1", 0, None, threaded=True, request_handler=Silent)
    issuer = f"http://127.0.0.1:{server.server_port}"
    server.app = application(issuer)
    say({"issuer": issuer, "jwks": public_keys()})
    server.serve_forever()


main()
