"""Runs Keycloak for one test program, on loopback alone, and ends it when standard input ends.

    keycloak.py prepare HOME            once, after HOME was unpacked: writes what a start needs into it
    keycloak.py run HOME TLS_FOLDER [FEATURE…]
                                        TLS_FOLDER has server.pem, server.key and authority.pem; a further feature is compiled
                                        in at the start, which costs half a minute
    keycloak.py options                 what `prepare` makes of HOME

`run` writes one line of JSON as soon as Keycloak answers: its two origins. TLS_FOLDER may go then. Nothing is written into HOME by `run`: each run has a
home of its own, made of links into HOME and of copies of the few files that Keycloak writes to.
"""

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

# A start that competes with a compiler for two cores took 50 seconds; the first one, which compiles its own classes, 136.
START_LIMIT = 600
STOP_LIMIT = 60

# Which features a version has under which name. They are compiled into the prepared home.
FEATURES = {
    "26.5": "client-auth-federated,spiffe,kubernetes-service-accounts,jwt-authorization-grant",
    "26.7": "spiffe,kubernetes-service-accounts,identity-assertion-jwt",
}

# The only other option that is compiled in.
OPTIONS = ["--https-client-auth=request"]

# The realm of all tests. It takes three seconds to make, so it is made once.
REALM = {"realm": "agents", "enabled": True, "sslRequired": "none", "accessTokenLifespan": 300}

# A start is short-lived work: the first compiler of the JVM alone and the simplest collector halve its time and its memory.
JAVA_OPTS = "-Xms64m -Xmx512m -XX:MaxMetaspaceSize=256m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Dfile.encoding=UTF-8"
PR_SET_PDEATHSIG = 1


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def end_with_parent():
    """In the child: if this script is killed, Keycloak ends too."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def start(home, log, options, more=()):
    version = home.joinpath("version.txt").read_text().split()[-1]
    features = next(names for start, names in FEATURES.items() if version.startswith(start + "."))
    port = free_port()
    command = [home / "bin/kc.sh", "start-dev", "--http-host=127.0.0.1", f"--http-port={port}", *OPTIONS]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "JAVA_OPTS": JAVA_OPTS,
        "KC_DB": "dev-file",
        "KC_BOOTSTRAP_ADMIN_USERNAME": "admin",
        "KC_BOOTSTRAP_ADMIN_PASSWORD": "admin",
    }
    if "JAVA_HOME" in os.environ:
        environment["JAVA_HOME"] = os.environ["JAVA_HOME"]
    process = subprocess.Popen(
        [*command, f"--features={','.join([features, *more])}", *options],
        cwd=home,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=end_with_parent,
    )
    return process, f"http://127.0.0.1:{port}"


def wait_until_ready(process, origin, log):
    end = time.monotonic() + START_LIMIT
    while True:
        try:
            urllib.request.urlopen(f"{origin}/realms/master", timeout=10).close()
            return
        except (urllib.error.URLError, OSError):
            pass
        if process.poll() is not None or time.monotonic() > end:
            stop(process)
            raise SystemExit(f"Keycloak did not start; its log:\n{Path(log.name).read_text()}")
        time.sleep(0.1)


def stop(process):
    """kc.sh passes SIGTERM on to its java; what is left of the two after that is killed by their process group."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            pass
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def prepare(home):
    """The first start compiles the features into the home, and makes the database with the realms."""
    with tempfile.NamedTemporaryFile("w") as log:
        process, origin = start(home.resolve(), log, [])
        wait_until_ready(process, origin, log)
        try:
            make_realm(origin)
        finally:
            stop(process)


def make_realm(origin):
    form = {"grant_type": "password", "client_id": "admin-cli", "username": "admin", "password": "admin"}
    form = urllib.parse.urlencode(form).encode()
    with urllib.request.urlopen(f"{origin}/realms/master/protocol/openid-connect/token", form, timeout=60) as answer:
        token = json.load(answer)["access_token"]
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{origin}/admin/realms", json.dumps(REALM).encode(), headers)
    urllib.request.urlopen(request, timeout=60).close()


def own_home(prepared, place):
    """Links to everything but what Keycloak writes to, and but what it finds its home by."""
    for name in ["conf", "providers", "themes", "version.txt"]:
        place.joinpath(name).symlink_to(prepared / name)
    for name in ["bin", "lib"]:
        place.joinpath(name).mkdir()
    place.joinpath("lib/lib").symlink_to(prepared / "lib/lib")
    for name in ["app", "quarkus"]:
        shutil.copytree(prepared / "lib" / name, place / "lib" / name)
    shutil.copytree(prepared / "data/h2", place / "data/h2")
    for name in ["bin/kc.sh", "lib/quarkus-run.jar"]:
        shutil.copy2(prepared / name, place / name)


def run(prepared, tls, *more):
    # A signal ends this script as the end of standard input does.
    for number in [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]:
        signal.signal(number, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix="keycloak") as place:
        home = Path(place)
        own_home(prepared.resolve(), home)
        shutil.copytree(tls, home / "tls")
        https = free_port()
        options = [
            f"--https-port={https}",
            f"--https-certificate-file={home}/tls/server.pem",
            f"--https-certificate-key-file={home}/tls/server.key",
            f"--https-trust-store-file={home}/tls/authority.pem",
            f"--truststore-paths={home}/tls/authority.pem",
        ]
        with open(home / "log", "w") as log:
            process, origin = start(home, log, options, map(str, more))
            try:
                threading.Thread(target=lambda: (sys.stdin.read(), os.kill(os.getpid(), signal.SIGTERM)), daemon=True).start()
                wait_until_ready(process, origin, log)
                ready = {"http": origin, "https": f"https://127.0.0.1:{https}"}
                print(json.dumps(ready), flush=True)
                ended = threading.Thread(target=process.wait, daemon=True)
                ended.start()
                ended.join()
                raise SystemExit(f"Keycloak ended by itself; its log:\n{Path(log.name).read_text()}")
            finally:
                stop(process)


if __name__ == "__main__":
    what, *places = sys.argv[1:]
    if what == "options":
        print(FEATURES, OPTIONS, REALM)
    elif what == "prepare":
        prepare(*map(Path, places))
    else:
        run(*map(Path, places))
