"""Starts programs for ``commands``, and says how long each took and how much memory it had at its peak.

Run as a script, so that it stays small: Linux counts the memory of who starts a program towards that program's peak.
Reads one command a line, its words separated by tabs; answers each with seconds and bytes.
"""

import os
import sys
import time

BYTES = 1 if sys.platform == "darwin" else 1024
ACTIONS = [(os.POSIX_SPAWN_OPEN, file, os.devnull, os.O_RDWR, 0) for file in (0, 1, 2)]

for line in sys.stdin:
    words = line.rstrip("\n").split("\t")
    begin = time.perf_counter()
    pid = os.posix_spawn(words[0], words, os.environ, file_actions=ACTIONS)
    _, status, usage = os.wait4(pid, 0)
    print(time.perf_counter() - begin, usage.ru_maxrss * BYTES, os.waitstatus_to_exitcode(status), flush=True)
