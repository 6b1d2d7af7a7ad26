"""python -I -S measure.py RUNS FILE COMMAND... - runs COMMAND with FILE piped in, and prints one line a run:

    wall seconds, user+system CPU seconds, peak RSS in KiB, exit code

A process of its own, and a small one: what a program's peak is said to be includes the peak of the process that started
it (Linux copies the high-water mark at exec), so nothing below this interpreter's own size can be told.
"""

import os
import sys
import time


def run(file: str, command: list[str]) -> tuple[float, float, int, int]:
    source, sink = os.pipe()
    null = os.open(os.devnull, os.O_RDWR)
    begin = time.perf_counter()
    # Piped in by `cat`, as Helm does it: a regular file could be taken apart in ways that a pipe cannot.
    feeder = os.posix_spawn("/bin/cat", ["cat", file], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, sink, 1)])
    os.close(sink)
    actions = [(os.POSIX_SPAWN_DUP2, source, 0), (os.POSIX_SPAWN_DUP2, null, 1)]
    child = os.posix_spawnp(command[0], command, os.environ, file_actions=actions)
    os.close(source)
    _, status, usage = os.wait4(child, 0)
    wall = time.perf_counter() - begin
    os.waitpid(feeder, 0)
    os.close(null)
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss, os.waitstatus_to_exitcode(status)


for _ in range(int(sys.argv[1])):
    print(*run(sys.argv[2], sys.argv[3:]), flush=True)
