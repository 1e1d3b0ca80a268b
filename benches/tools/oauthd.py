#!/usr/bin/env python3
"""The issuer that oidc-agent is measured against: discovery and a token endpoint over TLS on loopback.

oidc-agent accepts no plain http, hence the certificate. Prints its port, then serves until it is ended.
GET /counters tells how many tokens were asked for; GET /reset?delay_ms=N forgets that and delays tokens from then on.
"""

import base64
import http.server
import json
import os
import ssl
import sys
import threading
import time
import urllib.parse

LIFE = 3600
TOKEN_LENGTH = 700


class State:
    lock = threading.Lock()
    tokens = 0
    delay = 0.0


class Issuer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        if url.path.endswith("/.well-known/openid-configuration"):
            return self.reply(self.discovery())
        if url.path == "/counters":
            return self.reply({"exchanges": State.tokens})
        if url.path == "/reset":
            with State.lock:
                State.tokens = 0
                State.delay = int(urllib.parse.parse_qs(url.query).get("delay_ms", ["0"])[0]) / 1000
            return self.reply({"delay_ms": int(State.delay * 1000)})
        return self.reply({"error": "not_found"}, 404)

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with State.lock:
            State.tokens += 1
            delay = State.delay
        time.sleep(delay)
        self.reply(
            {
                "access_token": base64.urlsafe_b64encode(os.urandom(TOKEN_LENGTH))[:TOKEN_LENGTH].decode(),
                "token_type": "Bearer",
                "expires_in": LIFE,
                "refresh_token": "rt-1",
                "scope": "openid offline_access",
            }
        )

    def discovery(self):
        issuer = f"https://localhost:{self.server.server_address[1]}/"
        return {
            "issuer": issuer,
            "token_endpoint": issuer + "token",
            "authorization_endpoint": issuer + "auth",
            "jwks_uri": issuer + "jwks",
            "scopes_supported": ["openid", "offline_access"],
            "grant_types_supported": ["refresh_token"],
            "response_types_supported": ["code"],
        }

    def reply(self, body, status=200):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        """Logs nothing: standard error is for the measurements."""


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: oauthd.py CERT KEY")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Issuer)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(sys.argv[1], sys.argv[2])
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
