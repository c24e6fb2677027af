# SPDX-License-Identifier: Apache-2.0
"""One of several processes that take loop devices at the same time.

`loop_racer.py HOW FILE ROUNDS` waits for a line on stdin, so that all begin together. It prints a
JSON list of what went wrong.
"""

import fcntl
import json
import os
import sys
from pathlib import Path

from bugbox.errors import BugboxError
from bugbox.storage import loop

SET_FD, CLR_FD, GET_FREE = 0x4C00, 0x4C01, 0x4C82


def ours(backing: Path, mark: bytes) -> str:
    try:
        with loop.attached(backing, read_only=True) as device:
            seen = os.pread(device.fd, len(mark), 0)
    except (BugboxError, OSError) as error:
        return str(error)
    return "" if seen == mark else f"{device.path} shows {seen!r}"


def naive(backing: Path, mark: bytes) -> str:
    """Ask for a free device, open it, bind it: what a first program does."""
    fds = []
    try:
        fds.append(control := os.open("/dev/loop-control", os.O_RDWR))
        number = fcntl.ioctl(control, GET_FREE)
        fds.append(file := os.open(backing, os.O_RDONLY))
        fds.append(device := os.open(f"/dev/loop{number}", os.O_RDONLY))
        fcntl.ioctl(device, SET_FD, file)
        seen = os.pread(device, len(mark), 0)
        fcntl.ioctl(device, CLR_FD)
    except OSError as error:
        return str(error.strerror)
    finally:
        for fd in fds:
            os.close(fd)
    return "" if seen == mark else f"/dev/loop{number} shows {seen!r}"


def main(how: str, file: str, rounds: str) -> None:
    backing = Path(file)
    mark = backing.read_bytes()[:32]
    take = {"ours": ours, "naive": naive}[how]
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps([wrong for _ in range(int(rounds)) if (wrong := take(backing, mark))]))


if __name__ == "__main__":
    main(*sys.argv[1:])
