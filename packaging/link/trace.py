#!/usr/bin/env python3
"""Writes hot-functions.txt: what a helper call and a daemon at work really run, in the order in which build.rs links it.

The kernel maps 64 KB around each page of code that is touched. Left in the compiler's order, a start touches a function in
nearly every 64 KB of the binary, and all of it is in memory; with these functions side by side, a quarter is
(benches/README.md). A function that is missing here, or here and gone, costs a little memory and nothing else: write the
file anew when `benches/compare.sh --only memory` has grown, or after an update of the toolchain.

Needs valgrind, openssl, nm, and an x86-64 Linux with glibc. Everything listens on loopback and is ended by its pid.
"""

import http.server
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
OUT = Path(__file__).with_name("hot-functions.txt")
# What the linker or the optimiser added to a name, and what differs from build to build in it: the hash of a generic's
# types, the id of a crate of the standard library, the version of the TLS library.
ADDED = re.compile(r"\.(llvm|isra|constprop|part|cold)\..*|\.\d+$")
HASH = re.compile(r"17h[0-9a-f]{16}E")
CRATE = re.compile(r"Cs[0-9A-Za-z]+_")
VERSION = re.compile(r"aws_lc_\d+_\d+_\d+_")


def main():
    build("--manifest-path", str(ROOT / "benches/tools/Cargo.toml"))
    binary = named_binary()
    with tempfile.TemporaryDirectory(prefix="wl") as work:
        traces = trace(binary, Path(work))
    patterns = patterns_for(functions_of(binary), [name for file in traces for name in file])
    OUT.write_text("".join(f"{pattern}\n" for pattern in patterns))
    print(f"{OUT.relative_to(ROOT)}: {len(patterns)} patterns")


def build(*arguments):
    subprocess.run(["cargo", "build", "--quiet", "--release", "--locked", *arguments], check=True, env=environment())


def environment():
    return {**os.environ, "CARGO_TARGET_DIR": str(TARGET)}


def named_binary():
    """The release binary with its symbols: the same profile, since the hashes in the names depend on it."""
    asked = ["cargo", "rustc", "--quiet", "--release", "--locked", "--bin", "wayleave", "--", "-C", "strip=none"]
    subprocess.run(asked, check=True, cwd=ROOT, env=environment())
    return TARGET / "release/wayleave"


def trace(binary, work):
    """The names of what ran, first to last: in a helper's call for a token, one for headers, then in the daemon."""
    upstream = subprocess.Popen([TARGET / "release/upstream"], stdout=subprocess.PIPE, text=True)
    stopped = threading.Event()
    try:
        world = json.loads(upstream.stdout.readline())
        encrypted = encrypted_server(work, stopped)
        socket = work / "w.sock"
        config = work / "w.toml"
        config.write_text(
            f'[egress]\ninsecure_loopback = true\nca_file = "{work}/cert.pem"\n[listen]\nsocket = "{socket}"\n'
            f'[servers.bench]\nurl = "{world["mcp"]}/mcp/bench"\nissuer = "{world["issuer"]}"\n'
            f'[servers.found]\nurl = "{world["mcp"]}/mcp/found"\n'
            f'[servers.encrypted]\nurl = "{encrypted}/mcp"\nissuer = "{encrypted}"\n'
        )
        config.chmod(0o600)
        usual = {"PATH": os.environ["PATH"], "HOME": str(work)}
        daemon = traced(work / "daemon", [binary, "--config", config, "run"], {**usual, **world["env"]})
        until(socket.exists)

        def call(*arguments):
            subprocess.run([binary, "--socket", socket, *arguments], env=usual, capture_output=True, timeout=60)

        for server in ["bench", "found", "encrypted", "bench", "found", "bench"]:
            call("token", server)
        call("status")
        for name in ["token", "headers"]:
            traced(work / name, [binary, "--socket", socket, name, "bench"], usual).wait(60)
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(60)
        return [ran(work / name) for name in ["token", "headers", "daemon"]]
    finally:
        stopped.set()
        upstream.terminate()
        upstream.wait(10)


def traced(out, command, env):
    tool = ["valgrind", "--quiet", "--tool=callgrind", "--demangle=no", f"--callgrind-out-file={out}"]
    return subprocess.Popen([*tool, *command], env=env, stdout=subprocess.DEVNULL)


def encrypted_server(work, stopped):
    """A server that knows nothing, over TLS: what a handshake runs is wanted, not an answer."""
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
    subject += ["-addext", "basicConstraints=critical,CA:FALSE"]
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    files = ["-keyout", work / "key.pem", "-out", work / "cert.pem"]
    subprocess.run(["openssl", "req", "-x509", *curve, *files, *subject], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(work / "cert.pem", work / "key.pem")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    server.RequestHandlerClass.do_GET = lambda handler: handler.send_error(404)
    server.RequestHandlerClass.log_message = lambda *_: None
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    threading.Thread(target=lambda: (stopped.wait(), server.shutdown()), daemon=True).start()
    return f"https://localhost:{server.server_port}"


def until(true):
    for _ in range(600):
        if true():
            return
        time.sleep(0.1)
    sys.exit("the daemon did not start within a minute")


def ran(file):
    names = re.findall(r"^c?fn=\(\d+\) (\S+)$", file.read_text(errors="replace"), re.MULTILINE)
    return [re.sub(r"'\d+$", "", name) for name in names]


def functions_of(binary):
    """Each function's size and address."""
    lines = subprocess.run(["nm", "-S", binary], check=True, capture_output=True, text=True).stdout.splitlines()
    split = [line.split() for line in lines]
    return {part[3]: (int(part[1], 16), part[0]) for part in split if len(part) == 4 and part[2] in "tTwW"}


def patterns_for(functions, names):
    # The linker folds equal functions into one, and which one gives it its place is the linker's choice.
    folded = defaultdict(list)
    for name, (_, address) in functions.items():
        folded[address].append(name)
    ran_here = (name for name in names if name in functions)
    hot = list(dict.fromkeys(twin for name in ran_here for twin in folded[functions[name][1]]))
    total, of_hot = Counter(), Counter()
    for name, (size, _) in functions.items():
        total[lasting(name)] += size
    for name in hot:
        of_hot[lasting(name)] += functions[name][0]
    # A name that stands for many, most of which are never run, is taken with its hash: it holds until its types change.
    chosen = (lasting(name) if is_std(name) or of_hot[lasting(name)] * 2 >= total[lasting(name)] else name for name in hot)
    return list(dict.fromkeys(chosen))


def is_std(name):
    return name.startswith("_R")


def lasting(name):
    """A pattern for the name that still fits after the next build."""
    name = ADDED.sub("", name)
    name = f"{CRATE.sub('Cs*_', name)}*" if is_std(name) else HASH.sub("17h*", name)
    return VERSION.sub("aws_lc_*_", name)


main()
