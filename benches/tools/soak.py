#!/usr/bin/env python3
"""Runs the daemon among faults and hostile callers, and says whether anybody was hurt.

Twenty servers with tokens of a minute, guarded by five issuers. Honest callers ask for tokens of all of them and check what
they get. Meanwhile one of the other parties fails every few seconds, hostile callers misbehave, nobody reads the daemon's
log for a while, and the configuration is reloaded every thirty seconds.

A request may fail only while no token could exist: from the beginning of a fault until some time after its end, and never
because of a fault that is shorter than a twentieth of a token's life (a token is renewed before that part of its life).
"""

import argparse
import base64
import hashlib
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

LIFE = 60
SERVERS = 20
ISSUERS = 5
RELOAD_EVERY = 30
# Nothing fails in this time: every server gets its first token.
WARM_UP = 15


class World:
    """The other parties: identity, MCP servers, authorization servers."""

    def __init__(self, program):
        self.process = subprocess.Popen([program, "--life", str(LIFE)], stdout=subprocess.PIPE, text=True)
        self.told = json.loads(self.process.stdout.readline())
        self.faults = []

    def fault(self):
        at = random.choice(["identity", "authorization", "authorization", "mcp"])
        kind = random.choice(["busy", "limit", "page", "close", "silent", "slow"])
        span = random.choice([0.5, 1, 2, 4, 8, 12])
        query = f"at={at}&kind={kind}&for_ms={int(span * 1000)}"
        begin = time.monotonic()
        urllib.request.urlopen(f"http://{self.told['control']}/fault?{query}", timeout=5).read()
        # What is malformed counts as permanent, and that is remembered for 30 s. Back-off grows with the outage.
        after = 30 if kind == "page" else 3 + 2 * span
        self.faults.append((begin, begin + span + after, span, f"{at} {kind} {span} s"))
        return span

    def excuse(self, begin, end):
        """The fault during which a request from `begin` to `end` could get no token, if there is one."""
        for first, last, span, name in self.faults:
            if span > LIFE / 20 and begin <= last and end >= first:
                return name
        return None


class Daemon:
    def __init__(self, program, world, directory):
        self.directory, self.program = directory, program
        self.socket = f"{directory}/s.sock"
        self.config = f"{directory}/config.toml"
        self.audit = f"{directory}/audit.jsonl"
        self.servers = {}
        lines = ["[egress]", "insecure_loopback = true", "[listen]", f'socket = "{self.socket}"', "[audit]", f'file = "{self.audit}"']
        for index in range(SERVERS):
            tenant = f"/t{index % ISSUERS}"
            url = f"{world.told['mcp']}{tenant}/s{index}"
            self.servers[f"s{index}"] = url
            lines += [f"[servers.s{index}]", f'url = "{url}"', 'scopes = ["bench:read"]']
            if index % 2:
                lines += [f'issuer = "{world.told["issuer"]}{tenant}"']
        self.text = "\n".join(lines) + "\n"
        self.write(0)
        environment = {"PATH": os.environ["PATH"], "HOME": directory, **world.told["env"]}
        command = [program, "--config", self.config, "run"]
        self.process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
        self.log = open(f"{directory}/log", "wb")
        self.reading = threading.Event()
        self.reading.set()
        threading.Thread(target=self.read_log, daemon=True).start()

    def write(self, generation):
        new = f"{self.config}.new"
        with open(new, "w", encoding="ascii") as file:
            file.write(f"# {generation}\n{self.text}")
        os.chmod(new, 0o600)
        os.replace(new, self.config)

    def read_log(self):
        while line := self.process.stderr.readline():
            self.reading.wait()
            self.log.write(line)

    def reload(self, generation):
        self.write(generation)
        self.process.send_signal(signal.SIGHUP)

    def usage(self):
        """Private memory in KB, open descriptors, threads."""
        base = f"/proc/{self.process.pid}"
        status = dict(line.split(":", 1) for line in open(f"{base}/status", encoding="ascii") if ":" in line)
        return int(status["RssAnon"].split()[0]), len(os.listdir(f"{base}/fd")), int(status["Threads"])


def connect(path, limit=15):
    stream = socket.socket(socket.AF_UNIX)
    stream.settimeout(limit)
    stream.connect(path)
    return stream


def ask(stream, head, body=b""):
    stream.sendall(head.encode() + body)
    got = b""
    while b"\r\n\r\n" not in got:
        piece = stream.recv(65536)
        if not piece:
            raise ConnectionError("closed before the answer")
        got += piece
    fields, rest = got.split(b"\r\n\r\n", 1)
    lines = fields.decode().split("\r\n")
    length = next((int(line[15:]) for line in lines if line.lower().startswith("content-length:")), 0)
    while len(rest) < length:
        piece = stream.recv(65536)
        if not piece:
            raise ConnectionError("closed within the answer")
        rest += piece
    return int(lines[0].split()[1]), rest


def get(path):
    return f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n"


def claims(token):
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


class Honest(threading.Thread):
    """Asks for tokens of all servers, on kept and on new connections, and checks each."""

    def __init__(self, daemon, stop):
        super().__init__(daemon=True)
        self.target, self.stop, self.outcomes = daemon, stop, []

    def once(self, stream, name):
        status, body = ask(stream, get(f"/v1/token?server={name}"))
        answer = json.loads(body)
        if status != 200:
            return f"{status} {answer.get('class')} {answer.get('error')}: {answer.get('error_description')}"
        told = claims(answer["access_token"])
        if told["aud"] != self.target.servers[name]:
            return "WRONG: the token of another server"
        if told["exp"] <= time.time():
            return "WRONG: an expired token"
        return None

    def run(self):
        stream = None
        while not self.stop.is_set():
            name = random.choice(list(self.target.servers))
            begin = time.monotonic()
            try:
                if stream is None or random.random() < 0.2:
                    stream = connect(self.target.socket)
                problem = self.once(stream, name)
            except OSError as error:
                stream, problem = None, f"{type(error).__name__}: {error}"
            self.outcomes.append((begin, time.monotonic(), name, problem))
            time.sleep(0.02)


class Hostile(threading.Thread):
    """Misbehaves in every way that a caller can, as fast as it can."""

    def __init__(self, daemon, stop):
        super().__init__(daemon=True)
        self.target, self.stop, self.count = daemon, stop, 0

    def raw(self, text, wait=0.05):
        with connect(self.target.socket, 5) as stream:
            stream.sendall(text if isinstance(text, bytes) else text.encode())
            time.sleep(wait)

    def hold_many(self):
        held = [connect(self.target.socket, 5) for _ in range(100)]
        time.sleep(2)
        for stream in held:
            stream.close()

    def reject_unknown(self):
        """Honest and hostile callers are one user here, and a user who rejects its good token has none for a while."""
        name = random.choice(list(self.target.servers))
        text = json.dumps({"server": name, "access_token_sha256": hashlib.sha256(os.urandom(9)).hexdigest()}).encode()
        with connect(self.target.socket) as stream:
            ask(stream, f"POST /v1/reject HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(text)}\r\n\r\n", text)

    def acts(self):
        name = random.choice(list(self.target.servers))
        return [
            lambda: self.raw(get(f"/v1/token?server={name}"), 0),
            lambda: self.raw("GET /v1/token?server="),
            lambda: self.raw("POST /v1/reject HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\ntransfer-encoding: chunked\r\n\r\n"),
            lambda: self.raw(os.urandom(300)),
            lambda: self.raw(get("/v1/token?server=nobody")),
            lambda: self.raw(get(f"/v1/token?server={name}&scope=" + "+".join(f"x{n}" for n in range(300)))),
            lambda: self.raw(get(f"/v1/token?server={name}&scope=bench:read+x{random.random()}")),
            lambda: self.raw("GET /healthz HTTP/1.1\r\nhost: localhost\r\norigin: http://evil\r\n\r\n" * 20),
            lambda: self.raw(get("/readyz?" + "server=s1&" * 500)),
            self.hold_many,
            self.reject_unknown,
        ]

    def run(self):
        while not self.stop.is_set():
            try:
                random.choice(self.acts())()
            except (OSError, ValueError):
                # Refusing it is what the daemon should do.
                pass
            self.count += 1


def sleep_until(stop, seconds):
    return stop.wait(seconds)


def disturb(daemon, world, stop):
    """Faults of other parties, reloads, and a log that nobody reads."""
    generation, next_reload = 0, time.monotonic() + RELOAD_EVERY
    while not sleep_until(stop, random.uniform(3, 10)):
        span = world.fault()
        if random.random() < 0.2:
            daemon.reading.clear()
        sleep_until(stop, span)
        daemon.reading.set()
        if time.monotonic() > next_reload:
            generation, next_reload = generation + 1, time.monotonic() + RELOAD_EVERY
            daemon.reload(generation)


def judge(world, outcomes, usages):
    """The list of what went wrong."""
    wrong, excused = [], 0
    for begin, end, name, problem in outcomes:
        if problem is None:
            continue
        if problem.startswith("WRONG") or world.excuse(begin, end) is None:
            wrong.append(f"{name}: {problem} (after {end - begin:.1f} s)")
        else:
            excused += 1
    quarter = len(usages) // 4
    before, after = usages[quarter : 2 * quarter], usages[-quarter:]
    for at, what, slack in [(0, "KB of private memory", 1_024), (1, "descriptors", 32), (2, "threads", 4)]:
        was, now = (statistics.median(usage[at] for usage in part) for part in (before, after))
        print(f"{what}: {was:.0f} in the second quarter, {now:.0f} in the last, {max(u[at] for u in usages)} at most")
        if now > was + slack:
            wrong.append(f"{what} grew from {was:.0f} to {now:.0f}")
    print(f"requests: {len(outcomes)}, failed while no token could exist: {excused}, faults: {len(world.faults)}")
    return wrong


def main():
    parser = argparse.ArgumentParser(description="Runs the daemon among faults and hostile callers.")
    parser.add_argument("--daemon", required=True)
    parser.add_argument("--upstream", required=True)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    flags = parser.parse_args()
    random.seed(flags.seed)
    print(f"seed {flags.seed}, {flags.seconds} s, {SERVERS} servers, tokens of {LIFE} s", flush=True)
    stop = threading.Event()
    with tempfile.TemporaryDirectory() as directory:
        world = World(flags.upstream)
        daemon = Daemon(flags.daemon, world, directory)
        try:
            wrong, count = run(flags.seconds, world, daemon, stop)
        finally:
            stop.set()
            daemon.process.kill()
            world.process.kill()
            daemon.process.wait()
            world.process.wait()
    print(f"hostile acts: {count}")
    for line in wrong[:20]:
        print(f"WRONG: {line}")
    print(f"{len(wrong)} wrong" if wrong else "nobody was hurt")
    return 1 if wrong else 0


def run(seconds, world, daemon, stop):
    for _ in range(200):
        if os.path.exists(daemon.socket):
            break
        time.sleep(0.05)
    honest = [Honest(daemon, stop) for _ in range(4)]
    hostile = [Hostile(daemon, stop) for _ in range(2)]
    for caller in honest:
        caller.start()
    time.sleep(WARM_UP)
    for caller in hostile:
        caller.start()
    threading.Thread(target=disturb, args=(daemon, world, stop), daemon=True).start()
    usages, end = [], time.monotonic() + seconds
    while time.monotonic() < end and daemon.process.poll() is None:
        usages.append(daemon.usage())
        time.sleep(1)
    stop.set()
    for caller in honest + hostile:
        caller.join(30)
    outcomes = [outcome for caller in honest for outcome in caller.outcomes]
    wrong = judge(world, outcomes, usages)
    if daemon.process.poll() is not None:
        wrong.append(f"the daemon ended by itself: {daemon.process.returncode}")
    daemon.process.terminate()
    try:
        if daemon.process.wait(15) != 0:
            wrong.append(f"it ended with {daemon.process.returncode}")
    except subprocess.TimeoutExpired:
        wrong.append("it did not end within 15 s of SIGTERM")
    verified = subprocess.run([daemon.program, "audit", "verify", daemon.audit], capture_output=True, check=False)
    if verified.returncode != 0:
        wrong.append(f"the audit is broken: {verified.stderr.decode(errors='replace')}")
    return wrong, sum(caller.count for caller in hostile)


if __name__ == "__main__":
    sys.exit(main())
