"""`python bound.py PROGRAM ARGUMENTS`: the program, which is asked to end as soon as the process that started it ends.

A flow's process may be killed where it can clean nothing up; DVC would then go on, and nobody would wait for it.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - it takes this process's place
