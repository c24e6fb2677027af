# SPDX-License-Identifier: Apache-2.0
"""Run programs: the only importer of subprocess.

`run` waits for a program that ends, `reading` passes on its output as it comes, `spawn` starts one
that outlives us, such as a VMM. All take an argv list, never a shell; give a small, fixed
environment; and put the program in a process group of its own, which is killed as a whole. What
ends has a time limit.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from bugbox.errors import CommandFailed, MissingTool

__all__ = ["PACKAGES", "Completed", "Process", "find", "reading", "run", "spawn", "start_time"]

log = logging.getLogger(__name__)

#: Debian package that brings each program, for the hint of MissingTool.
PACKAGES = {
    "bc": "bc",
    "bison": "bison",
    "busybox": "busybox-static",
    "dmsetup": "dmsetup",
    "debugfs": "e2fsprogs",
    "docker": "docker.io",
    "flex": "flex",
    "gcc": "gcc",
    "ld": "binutils",
    "make": "make",
    "mke2fs": "e2fsprogs",
    "mmdebstrap": "mmdebstrap",
    "musl-gcc": "musl-tools",
    "newuidmap": "uidmap",
    "nft": "nftables",
    "qemu-img": "qemu-utils",
    "qemu-system-x86_64": "qemu-system-x86",
    "tar": "tar",
    "unshare": "util-linux",
    "xz": "xz-utils",
    "zstd": "zstd",
}

_LAST_WORDS_TIMEOUT = 2.0

# Debian keeps mke2fs and friends in sbin, which an ordinary user's PATH lacks.
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """A program that ended: its status and what it printed."""

    status: int
    stdout: bytes
    stderr: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process told apart from a later one with the same pid by its start time (clock ticks)."""

    pid: int
    started: int

    @property
    def alive(self) -> bool:
        """Whether this very process still runs (a zombie does not)."""
        return start_time(self.pid) == self.started

    def cpu_ticks(self) -> int:
        """Return the CPU time it and its living children have used, in clock ticks; 0: it is gone.

        A VMM may be the child of the process that looks after it.
        """
        return sum(_cpu_ticks(pid) for pid in self._family())

    def private_mib(self) -> int:
        """Return the MiB that it and its children share with nobody; 0 when it cannot be told."""
        return sum(_private_kib(pid) for pid in self._family()) >> 10

    def _family(self) -> list[int]:
        try:
            text = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        except OSError:  # it is gone, or the kernel does not tell
            text = ""
        return [self.pid, *map(int, text.split())]

    def kill(self, signo: int = signal.SIGKILL) -> None:
        """Send a signal, if it is still this process. A pidfd keeps the check and the kill one."""
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            if self.alive:
                signal.pidfd_send_signal(pidfd, signo)
        except ProcessLookupError:
            pass
        finally:
            os.close(pidfd)

    def wait_gone(self, timeout: float) -> bool:
        """Wait until it has ended; reap it if it is our child. False when time ran out.

        Ended means that the last of its threads has let go of its files and memory: a process
        whose first thread is a zombie already may still hold both.
        """
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            if _state_and_start(self.pid)[1] == self.started:
                ended = select.poll()
                ended.register(pidfd, select.POLLIN)
                if not ended.poll(timeout * 1000):
                    return False
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(self.pid, os.WNOHANG)
        finally:
            os.close(pidfd)
        return True


def _cpu_ticks(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    after = stat[stat.rindex(")") + 2 :].split()
    return int(after[11]) + int(after[12])


def _private_kib(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    lines = text.splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def start_time(pid: int) -> int | None:
    """Return the start time of /proc/PID/stat, or None: no such process, or a zombie."""
    state, started = _state_and_start(pid)
    return None if state in "ZX" else started


def _state_and_start(pid: int) -> tuple[str, int]:
    """Fields 3 and 22 of /proc/PID/stat (see proc(5)); ("X", -1): no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return "X", -1
    # The command's name stands in parentheses and may hold anything, so count from the last one.
    after = stat[stat.rindex(")") + 2 :].split()
    return after[0], int(after[19])


def find(program: str) -> str:
    """Return the program's absolute path; raise MissingTool with the package that brings it."""
    if "/" in program:
        if os.access(program, os.X_OK):
            return program
        raise MissingTool(f"{program} is not a program that can be run")
    found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:{_PATH}")
    if found is None:
        package = PACKAGES.get(program)
        raise MissingTool(
            f"{program} is not installed",
            hint=f"apt-get install {package}" if package else None,
        )
    return found


def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    path = os.environ.get("PATH", "")
    kept = {name: os.environ[name] for name in ("HOME", "TMPDIR") if name in os.environ}
    proxies = {k: v for k, v in os.environ.items() if k.lower().endswith("_proxy")}
    return {**kept, **proxies, "PATH": f"{path}:{_PATH}", "LC_ALL": "C.UTF-8", **(extra or {})}


def run(
    argv: Sequence[str | Path],
    *,
    timeout: float,
    input: bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    ok: Collection[int] = (0,),
    pass_fds: Collection[int] = (),
    stdout: IO[bytes] | int = subprocess.PIPE,
) -> Completed:
    """Run a program to its end.

    Raises CommandFailed when its status is not in `ok` or `timeout` seconds pass (its whole
    process group is then killed, as it is when we are interrupted), MissingTool when it is not
    there.
    """
    command = [find(str(argv[0])), *(str(arg) for arg in argv[1:])]
    log.debug("+ %s", shlex.join(command))
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=_environment(env),
        cwd=cwd,
        pass_fds=tuple(pass_fds),
        start_new_session=True,
    ) as child:
        try:
            out, err = child.communicate(input, timeout=timeout)
        except subprocess.TimeoutExpired:
            _kill_group(child.pid)
            raise CommandFailed(command, None, _last_words(child)) from None
        except BaseException:
            _kill_group(child.pid)
            raise
    stderr = err.decode(errors="replace")
    if child.returncode not in ok:
        raise CommandFailed(command, child.returncode, stderr)
    return Completed(status=child.returncode, stdout=out or b"", stderr=stderr)


@contextmanager
def reading(
    argv: Sequence[str | Path],
    *,
    source: IO[bytes],
    timeout: float,
    env: Mapping[str, str] | None = None,
) -> Iterator[IO[bytes]]:
    """Run a program on what `source` holds and yield its output as it comes.

    When the block ends well, all of the output must have been read: CommandFailed when the program
    then ends with another status than 0, or has taken longer than `timeout` seconds. It is killed
    when the block fails.
    """
    command = [find(str(argv[0])), *(str(arg) for arg in argv[1:])]
    log.debug("+ %s", shlex.join(command))
    late = threading.Event()
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            command,
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=_environment(env),
            start_new_session=True,
        ) as child,
    ):

        def give_up() -> None:
            late.set()
            _kill_group(child.pid)

        watch = threading.Timer(timeout, give_up)
        watch.start()
        try:
            assert child.stdout is not None
            yield child.stdout
            child.stdout.close()
            child.wait()
        except BaseException:
            _kill_group(child.pid)
            raise
        finally:
            watch.cancel()
        errors.seek(0)
        said = errors.read(1 << 16).decode(errors="replace")
    if late.is_set() or child.returncode != 0:
        raise CommandFailed(command, None if late.is_set() else child.returncode, said)


def spawn(
    argv: Sequence[str | Path],
    *,
    log_file: Path,
    pass_fds: Collection[int] = (),
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    uid: int | None = None,
    groups: Sequence[int] = (),
) -> Process:
    """Start a program that outlives us, in a session of its own, its output in `log_file`.

    With `uid` (root only) it runs as that user and group, in no other group but `groups`.
    """
    command = [find(str(argv[0])), *(str(arg) for arg in argv[1:])]
    log.debug("+ %s &", shlex.join(command))
    with log_file.open("ab") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=_environment(env),
            cwd=cwd,
            pass_fds=tuple(pass_fds),
            start_new_session=True,
            user=uid,
            group=uid,
            extra_groups=None if uid is None else [*groups],
        )
    # Popen would warn about a child that still runs when it is collected; ours is meant to.
    child.returncode = 0
    # Also when it has ended already: nobody has waited for it, so it can still be told by its time.
    return Process(pid=child.pid, started=_state_and_start(child.pid)[1])


def _last_words(child: subprocess.Popen[bytes]) -> str:
    """What a killed program had to say; one that left its group may hold the pipe for ever."""
    try:
        _, err = child.communicate(timeout=_LAST_WORDS_TIMEOUT)
    except subprocess.TimeoutExpired as late:
        err = late.stderr or b""
    return err.decode(errors="replace")


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
