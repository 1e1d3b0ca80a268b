"""Gives each request of an httpx or httpx2 client a fresh MCP access token from the safeconduct daemon.

Copy this file into your program, or install PyPI's `safeconduct`, which has it as its module. It needs Python 3.10 or later and the httpx
package that your MCP SDK brings along:

    # PyPI mcp 2.x; in 1.x the package is httpx
    timeout = httpx2.Timeout(30, read=300)
    async with httpx2.AsyncClient(auth=SafeconductAuth("deploy"), timeout=timeout) as http:
        async with Client(streamable_http_client(url, http_client=http)) as client: ...

The first argument is the server's name or URL in the daemon's configuration. The daemon is found as `safeconduct token` finds it;
`socket=` names another path, and `http=` with `secret_file=` its loopback listener. The daemon holds the tokens and renews them,
so each request asks it again. If the server answers 401, the token is reported to the daemon once and the request is sent once
more.

A failure that can pass (the daemon is restarted, the authorization server is down) is waited for, up to `patience` seconds.
These SDKs end the whole session after an exception in a request. After a long outage the daemon asks the authorization server
less often, so its end may be met later.

The daemon gives headers only for the server's own URL and what lies under it; for another URL the request fails. Servers that bind
tokens to a key (DPoP) or want signed requests (AWS) work too: request bodies are read into memory to be signed. Let the client
follow no redirect, which is httpx's default: of these headers it takes off only `Authorization` when it goes to another host.

This file reads the environment, connects to the daemon and reads the secret's file. It writes nothing, keeps no token, and puts
none into an exception or a log.
"""

import hashlib
import http.client
import importlib
import json
import os
import re
import socket as sockets
import struct
import time
import urllib.parse

import anyio
import anyio.to_thread

# Seconds for each step of an exchange with the daemon, which may have to ask the authorization server first.
_LIMIT = 60
# Seconds between two questions while a failure may pass.
_PAUSE = 0.5
# Larger than any answer of the daemon.
_ANSWER_CAP = 256 * 1024
_OF_THE_SYSTEM = ("/run/safeconduct", "/run/safeconduct/agent")
_JOB_TEMP = ("RUNNER_TEMP", "AGENT_TEMPDIRECTORY")


def _installed():
    for name in ("httpx2", "httpx"):
        try:
            yield importlib.import_module(name)
        except ModuleNotFoundError:
            pass


# One class serves both packages: each checks for its own base class.
_PACKAGES = tuple(_installed())


class SafeconductError(*(package.TransportError for package in _PACKAGES)):
    """The daemon gave no headers. The text says why, in the daemon's words. `code` and `kind` are its `error` and `class`;
    `kind` is "temporary" too if no daemon answers.
    """

    def __init__(self, text, code=None, kind=None):
        super().__init__(f"safeconduct: {text}")
        self.code = code
        self.kind = kind


class SafeconductAuth(*(package.Auth for package in _PACKAGES)):
    """Pass it as `auth` to a client. It has no state, so any number of clients, tasks and threads may share it."""

    def __init__(self, server, *, socket=None, http=None, secret_file=None, patience=15):
        if (http is None) != (secret_file is None) or (http and socket):
            raise ValueError("give `socket`, or `http` together with `secret_file`, or nothing")
        self._server = server
        self._patience = patience
        self._daemon = _Loopback(http, secret_file) if http else _Socket(socket)

    def sync_auth_flow(self, request):
        request.read()
        sent = self._patiently(self._headers, request)
        response = yield _with(request, sent)
        if response.status_code == 401:
            others = self._patiently(self._other_headers, request, response, sent)
            if others is not None:
                yield _with(request, others)

    async def async_auth_flow(self, request):
        await request.aread()
        sent = await self._patiently_in_thread(self._headers, request)
        response = yield _with(request, sent)
        if response.status_code == 401:
            others = await self._patiently_in_thread(self._other_headers, request, response, sent)
            if others is not None:
                yield _with(request, others)

    def _patiently(self, function, *arguments):
        end = time.monotonic() + self._patience
        while True:
            try:
                return function(*arguments)
            except SafeconductError as error:
                if error.kind != "temporary" or time.monotonic() > end:
                    raise
            time.sleep(_PAUSE)

    async def _patiently_in_thread(self, function, *arguments):
        end = time.monotonic() + self._patience
        while True:
            try:
                # A cancelled request must not wait for the daemon. The thread ends by its own limit.
                return await anyio.to_thread.run_sync(function, *arguments, abandon_on_cancel=True)
            except SafeconductError as error:
                if error.kind != "temporary" or time.monotonic() > end:
                    raise
            await anyio.sleep(_PAUSE)

    def _headers(self, request, **more):
        asked = {
            "server": self._server,
            "method": request.method,
            "url": str(request.url),
            "body_sha256": hashlib.sha256(request.content).hexdigest(),
        }
        answer = self._daemon.ask("GET", "/v1/headers?" + urllib.parse.urlencode(asked | more))
        return {name: ", ".join(values) for name, values in answer["headers"].items()}

    def _other_headers(self, request, response, sent):
        """What to send after a 401, or None if the daemon has nothing else to offer."""
        challenge, nonce = response.headers.get("WWW-Authenticate", ""), response.headers.get("DPoP-Nonce")
        if nonce and re.search(r'error="?use_dpop_nonce\b', challenge):
            # Not the token is refused but its proof, which needs this nonce (RFC 9449 section 9).
            return self._headers(request, dpop_nonce=nonce)
        scheme, _, token = sent.get("Authorization", "").partition(" ")
        if scheme.lower() not in ("bearer", "dpop"):
            return None
        rejected = {"server": self._server, "access_token_sha256": hashlib.sha256(token.encode()).hexdigest()}
        self._daemon.ask("POST", "/v1/reject", rejected)
        others = self._headers(request)
        # The daemon keeps a token that it has only just got: then another reason than its age made the server refuse.
        return None if others.get("Authorization") == sent["Authorization"] else others


def _with(request, fields):
    for name, value in fields.items():
        request.headers[name] = value
    return request


class _Daemon:
    """The daemon's API. Each question has a connection of its own, which costs less than to find out whether an old one lives."""

    def ask(self, method, path, body=None):
        try:
            connection = self._connect()
            try:
                fields = self._fields() | ({"Content-Type": "application/json"} if body else {})
                connection.request(method, path, body and json.dumps(body), fields)
                answer = connection.getresponse()
                status, text = answer.status, answer.read(_ANSWER_CAP)
            finally:
                connection.close()
        except http.client.RemoteDisconnected:
            raise SafeconductError("the daemon broke off", kind="temporary") from None
        except http.client.HTTPException:
            # Its text may quote the answer, so it is not shown.
            raise SafeconductError("whoever answers is no daemon of ours") from None
        except OSError as error:
            kind = None if isinstance(error, PermissionError) else "temporary"
            raise SafeconductError(f"{self}: {error.strerror or error}", kind=kind) from None
        return _read(status, text)


def _read(status, text):
    if status == 204:
        return {}
    try:
        document = json.loads(text)
    except ValueError:
        # This error holds the whole text, and with it a token.
        raise SafeconductError("its answer is not JSON") from None
    if not isinstance(document, dict):
        raise SafeconductError("whoever answers is no daemon of ours")
    if status == 200:
        return document
    words = [document.get("error_description") or f"status {status}", document.get("hint")]
    raise SafeconductError("; ".join(filter(None, words)), document.get("error"), document.get("class"))


class _Loopback(_Daemon):
    def __init__(self, url, secret_file):
        parts = urllib.parse.urlsplit(url)
        if parts.scheme != "http" or parts.hostname not in ("127.0.0.1", "::1", "localhost") or parts.port is None:
            raise ValueError("`http` must be http://127.0.0.1:PORT")
        self._host, self._port, self._secret_file = parts.hostname, parts.port, secret_file

    def __str__(self):
        return f"{self._host}:{self._port} with {self._secret_file}"

    def _connect(self):
        return http.client.HTTPConnection(self._host, self._port, timeout=_LIMIT)

    def _fields(self):
        # The secret is new at each start of the daemon.
        with open(self._secret_file, encoding="ascii") as file:
            return {"Authorization": f"Bearer {file.read().strip()}"}


class _Socket(_Daemon):
    def __init__(self, path):
        self._path = path

    def __str__(self):
        return "the daemon's socket"

    def _fields(self):
        return {}

    def _connect(self):
        connection = http.client.HTTPConnection("localhost", timeout=_LIMIT)
        connection.sock = self._first()
        return connection

    def _first(self):
        """Connects to the first place where a daemon listens that may be ours."""
        named = self._path or os.environ.get("SAFECONDUCT_SOCKET")
        places = [os.fspath(named)] if named else _places()
        refused = None
        for place in places:
            try:
                return _dial(place, bool(named))
            except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
                pass
            except PermissionError as error:
                # A socket that we may not use must not hide our own daemon at a later place.
                refused = refused or SafeconductError(f"{place}: {error.strerror}")
            except OSError as error:
                # No error number: the path is too long for a socket, so no daemon is there. The job's own directory can be.
                if named or error.errno is not None:
                    raise
        raise refused or SafeconductError(f"no daemon is running; looked at {', '.join(places)}", kind="temporary")


def _places():
    """Where a daemon may listen that nobody has named, in the order of `safeconduct token`."""
    uid = os.geteuid()
    job = next(filter(None, map(os.environ.get, _JOB_TEMP)), "")
    of_the_job = [os.path.join(job, "safeconduct")] if os.path.isabs(job) else []
    usual = [f"/run/user/{uid}/safeconduct", *_OF_THE_SYSTEM, f"/tmp/safeconduct-{uid}"]
    return [f"{directory}/safeconduct.sock" for directory in of_the_job + usual]


def _dial(path, is_named):
    trusted = (0, os.geteuid())
    if not is_named:
        # Whoever else made the directory could answer there, or let us wait. A link is its owner's to change.
        directory = os.path.dirname(path)
        if any(look(directory).st_uid not in trusted for look in (os.lstat, os.stat)):
            raise FileNotFoundError
    connection = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
    try:
        connection.settimeout(_LIMIT)
        connection.connect(path)
        size = struct.calcsize("3i")
        _, uid, _ = struct.unpack("3i", connection.getsockopt(sockets.SOL_SOCKET, sockets.SO_PEERCRED, size))
        if not is_named and uid not in trusted:
            raise PermissionError(0, f"it belongs to a process of uid {uid}, which is neither ours nor root's")
        return connection
    except BaseException:
        connection.close()
        raise
