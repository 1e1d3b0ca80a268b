#!/usr/bin/env python3
"""The network of check-names: a DNS server and an authorization server, both on loopback.

usage: names_server.py DIR

DIR holds cert.pem and key.pem of the authorization server. For each name below it writes DIR/NAME.jwt, the identity that is
good for the issuer https://NAME, and DIR/ready when it listens. The authorization server answers for every name and gives
the access token `token-of-NAME`, so that a client that got it has found the address of that name.
"""

import base64
import ipaddress
import json
import socket
import socketserver
import ssl
import struct
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

# The names in DNS. hosts.names.test is only in the hosts file; `short` is found through the search domain.
RECORDS = {
    "dns.names.test": "127.0.0.3",
    "short.names.test": "127.0.0.4",
    "tcp.names.test": "127.0.0.5",
    "six.names.test": "::1",
}
ISSUERS = ["hosts.names.test", "dns.names.test", "short", "tcp.names.test", "six.names.test"]
A, AAAA, NO_SUCH_NAME, TRUNCATED = 1, 28, 3, 0x0200


def question(message):
    """The name in lower case, the type, and where the question ends (RFC 1035, 4.1.2)."""
    labels, at = [], 12
    while message[at]:
        labels.append(message[at + 1 : at + 1 + message[at]].decode("ascii").lower())
        at += 1 + message[at]
    return ".".join(labels), struct.unpack_from("!H", message, at + 1)[0], at + 5


def answer(message, over_udp):
    name, kind, end = question(message)
    record = RECORDS.get(name)
    flags, answers = 0x8180, b""
    if record is None:
        flags |= NO_SUCH_NAME
    elif over_udp and name == "tcp.names.test":
        flags |= TRUNCATED
    else:
        address = ipaddress.ip_address(record)
        if kind == (A if address.version == 4 else AAAA):
            answers = struct.pack("!HHHIH", 0xC00C, kind, 1, 60, len(address.packed)) + address.packed
    header = message[:2] + struct.pack("!HHHHH", flags, 1, 1 if answers else 0, 0, 0)
    return header + message[12:end] + answers


class OverUdp(socketserver.BaseRequestHandler):
    def handle(self):
        message, reply_to = self.request
        reply_to.sendto(answer(message, True), self.client_address)


class OverTcp(socketserver.StreamRequestHandler):
    def handle(self):
        # A resolver sends both questions on one connection.
        while length := self.rfile.read(2):
            reply = answer(self.rfile.read(struct.unpack("!H", length)[0]), False)
            self.wfile.write(struct.pack("!H", len(reply)) + reply)


class AuthorizationServer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def name(self):
        return self.headers["Host"]

    def reply(self, status, document):
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path != "/.well-known/oauth-authorization-server":
            return self.reply(404, {})
        issuer = f"https://{self.name()}"
        grants = ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
        metadata = {"issuer": issuer, "token_endpoint": f"{issuer}/token", "grant_types_supported": grants}
        return self.reply(200, {**metadata, "response_types_supported": []})

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path != "/token":
            return self.reply(404, {})
        token = {"access_token": f"token-of-{self.name()}", "token_type": "Bearer", "expires_in": 3600}
        return self.reply(200, token)

    def log_message(self, *_):
        pass


def identity(issuer):
    now = int(time.time())
    claims = {"iss": "https://platform.test", "sub": "check-names", "aud": issuer, "iat": now, "exp": now + 3600}
    parts = [json.dumps({"alg": "RS256", "typ": "JWT"}), json.dumps(claims), "no signature: nobody checks it here"]
    return ".".join(base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts)


class EveryAddress(ThreadingHTTPServer):
    address_family = socket.AF_INET6


def authorization_server(directory):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(directory / "cert.pem", directory / "key.pem")
    # On a machine without IPv6, listen on IPv4 only.
    try:
        server = EveryAddress(("::", 443), AuthorizationServer)
    except OSError:
        server = ThreadingHTTPServer(("0.0.0.0", 443), AuthorizationServer)
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    return server


def main():
    directory = Path(sys.argv[1])
    for name in ISSUERS:
        (directory / f"{name}.jwt").write_text(identity(f"https://{name}"))
    servers = [
        socketserver.ThreadingUDPServer(("127.0.0.1", 53), OverUdp),
        socketserver.ThreadingTCPServer(("127.0.0.1", 53), OverTcp),
        authorization_server(directory),
    ]
    threads = [threading.Thread(target=server.serve_forever) for server in servers]
    for thread in threads:
        thread.start()
    (directory / "ready").touch()


main()
