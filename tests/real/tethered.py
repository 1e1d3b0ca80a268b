"""Runs a program and ends it when standard input ends, so that it ends with the test program, also if that is killed.

    tethered.py LOG PROGRAM [ARGUMENT…]
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading

PR_SET_PDEATHSIG = 1


def end_with_parent():
    # This script ends the server in good order. If the script is killed, nobody waits for that.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


with open(sys.argv[1], "w") as log:
    process = subprocess.Popen(
        sys.argv[2:], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, preexec_fn=end_with_parent
    )
threading.Thread(target=lambda: (sys.stdin.read(), process.terminate()), daemon=True).start()
code = process.wait()
# A thread that still reads would hold up an end in good order.
os._exit(code if code >= 0 else 128 - code)
