# SPDX-License-Identifier: Apache-2.0
"""When is a machine ready? When a person could work in it, and it is broken as told.

    the init has started everything  -> boot.sh; on a new machine break.sh and session.sh
    ready.sh says 0                  -> a real login of the learner answers a typed command

Each step that fails says what it ran, what came out, and what the console said last.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import anyio

from bugbox.errors import BootFailed, GuestError, MachineLost
from bugbox.machine.lifeline.shell import Lifeline, Result, Terminal
from bugbox.puzzle.definition import Script
from bugbox.puzzle.text import one_line, printable

__all__ = [
    "Boot",
    "answer",
    "come_back",
    "goes_down",
    "hang_up",
    "log_in",
    "run_script",
    "sit_aside",
    "sit_down",
    "wait_for_init",
    "wait_for_network",
    "wait_for_ready_script",
]

#: Of a machine whose process 1 is not systemd: there from when everything is started until it goes
#: down; each line names something that failed (docs/reference/base-image-tini.md).
_STARTED = "/run/init-ready"
#: Statuses of a script that will not change by waiting: it cannot be run, or not found.
_HOPELESS = (126, 127)
#: Without its error stream on the terminal it edits no lines, and has no prompt to paint.
_OWN_SHELL = ("/bin/sh", "-c", 'exec "${SHELL:-/bin/sh}" 2>/dev/null')
_LOGIN_ROWS, _LOGIN_COLS = 24, 80
_LOGIN_OUTPUT_LIMIT = 1 << 16
_HANG_UP_TIMEOUT = 5.0
_PATIENCE = "a busy or slow host needs more time: BUGBOX_TIMEOUT_FACTOR=3 in front of the command"


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """One boot of one machine, and how long it may still take."""

    lifeline: Lifeline
    #: The last lines of the console, for the evidence.
    console: Callable[[], Sequence[str]]
    #: asyncio's clock.
    deadline: float
    #: Seconds it may take in all.
    limit: float
    #: Whose machine it is, for people: the puzzle's name.
    name: str
    #: Multiplies the time one question may take.
    factor: float = 1.0

    @property
    def left(self) -> float:
        """Seconds until the boot counts as failed."""
        return self.deadline - asyncio.get_running_loop().time()

    def failed(self, what: str, output: str = "", *, late: bool = False) -> BootFailed:
        """Make the error that says what went wrong, with all the evidence.

        `late`: nothing did, as far as we know, but the time was over.
        """
        console = "\n".join(printable(line) for line in self.console())
        parts = [output.strip(), f"Last lines of the console:\n{console}" if console else ""]
        what = f"{self.name}: {what}"
        if late:
            what += f" ({self.limit:g} s after its kernel was up)"
        return BootFailed(
            what,
            hint=_PATIENCE if late else None,
            detail="\n".join(part for part in parts if part) or None,
        )


async def wait_for_init(boot: Boot) -> tuple[str, ...]:
    """Wait until process 1 has nothing left to start; return what failed (of systemd: units)."""
    # Until systemd listens, systemctl fails at once; then --wait is answered when the boot is over.
    argv = ["systemctl", "is-system-running", "--wait"]
    result = None
    while boot.left > 0:
        try:
            result = await boot.lifeline.run(argv, timeout=max(boot.left, 0.1))
        except GuestError as error:
            raise boot.failed(f"the machine was lost while it booted: {error}") from error
        word = result.stdout.strip()
        if word == b"running":
            return ()
        if word == b"degraded":
            return await _failed_units(boot)
        # Not systemd's machine: systemctl says so, or is not there.
        if word == b"offline" or result.code in _HOPELESS:
            return await _wait_for_other_init(boot)
        if word in (b"maintenance", b"stopping"):
            raise boot.failed(f"systemd ended in the state {word.decode()}")
        await asyncio.sleep(0.05)
    said = one_line(result.stdout or result.stderr) if result else ""
    raise boot.failed(f"systemd was not done in time: {said or 'no answer'}", late=True)


#: How long a network card may take to get its address, before the boot goes on without.
_NETWORK_SECONDS = 10
_ONLINE = "/lib/systemd/systemd-networkd-wait-online"


async def wait_for_network(boot: Boot) -> None:
    """Wait until the network card has its address, where the guest's own networkd sees to that.

    Nobody fails by it: a puzzle may be about a network that does not come up.
    """
    seconds = max(1, int(min(_NETWORK_SECONDS * boot.factor, boot.left)))
    text = (
        "systemctl -q is-active systemd-networkd || exit 0\n"
        f"exec {_ONLINE} --any --ipv4 --timeout={seconds}\n"
    )
    with contextlib.suppress(GuestError):
        await boot.lifeline.script(
            text.encode(), "network-online", timeout=seconds + 10 * boot.factor, limit=4096
        )


async def _wait_for_other_init(boot: Boot) -> tuple[str, ...]:
    while boot.left > 0:
        try:
            text = await boot.lifeline.get(_STARTED, limit=1 << 12)
        except MachineLost as error:
            raise boot.failed(f"the machine was lost while it booted: {error}") from error
        except GuestError:
            await asyncio.sleep(0.02)  # it is not there yet
        else:
            return tuple(one_line(line, 100) for line in text.decode(errors="replace").splitlines())
    raise boot.failed(f"its init was not done in time: there is no {_STARTED}", late=True)


async def goes_down(lifeline: Lifeline, timeout: float) -> bool | None:
    """Whether process 1 says that it is powering off or rebooting; None: ask again.

    That is when it said nothing within `timeout` s, or somebody ended the question: an init that
    goes down sends all that runs SIGTERM.

    GuestError when the lifeline does not answer.
    """
    result = await lifeline.run(["systemctl", "is-system-running"], timeout=timeout, limit=4096)
    if result.timed_out or result.signal is not None:
        return None
    word = result.stdout.strip()
    if word != b"offline" and result.code not in _HOPELESS:
        return word == b"stopping"
    try:
        await lifeline.get(_STARTED, limit=1 << 12)
    except MachineLost:
        raise
    except GuestError:
        return True  # such an init takes it away first
    return False


async def _failed_units(boot: Boot) -> tuple[str, ...]:
    argv = ["systemctl", "list-units", "--failed", "--plain", "--no-legend", "--no-pager"]
    result = await boot.lifeline.run(argv, timeout=30 * boot.factor, limit=1 << 16)
    lines = result.stdout.decode(errors="replace").splitlines()
    return tuple(one_line(line.split()[0], 100) for line in lines if line.split())


async def run_script(boot: Boot, script: Script, *, env: Mapping[str, str] | None = None) -> None:
    """Run boot.sh, break.sh or session.sh; what it leaves running lives in a unit of its own."""
    result = await _script(boot, script, env=env, flags=("unit",))
    if result.timed_out:
        raise boot.failed(f"{script.name} did not end in time", _output(result), late=True)
    if result.code != 0:
        raise boot.failed(f"{script.name} ended with status {result.code}", _output(result))


async def wait_for_ready_script(
    boot: Boot, script: Script, *, env: Mapping[str, str] | None = None
) -> None:
    """Run ready.sh until it ends with 0; give up when the boot's time is over."""
    pause = 0.05
    how = ""
    while True:
        result = await _script(boot, script, env=env, flags=())
        if result.code == 0 and not result.timed_out:
            return
        if not result.timed_out:  # what the last whole try said counts, not that time was over
            how = f"ended with status {result.code}"
        late = boot.left <= pause
        if result.code in _HOPELESS or late:
            how = how or "did not end in time"
            raise boot.failed(
                f"not broken as told: {script.name} {how}", _output(result), late=late
            )
        await asyncio.sleep(pause)
        pause = min(2 * pause, 1.0)


async def _script(
    boot: Boot, script: Script, *, env: Mapping[str, str] | None, flags: Sequence[str]
) -> Result:
    try:
        return await boot.lifeline.script(
            script.text,
            script.label,
            env=env,
            flags=flags,
            timeout=max(boot.left, 0.1),
            limit=1 << 16,
        )
    except GuestError as error:
        raise boot.failed(f"{script.name}: {error}", error.detail or "") from error


def _output(result: Result) -> str:
    return printable(result.stdout + result.stderr)


async def log_in(boot: Boot, user: str) -> None:
    """Log in as the learner does, type a command, and wait for what it prints.

    The command replaces the shell: the session ends by itself and leaves no line of history, and
    no line in `last`. The
    answer is put together by printf, so the echo of what was typed cannot be mistaken for it.
    """
    left, right = secrets.token_hex(6), secrets.token_hex(6)
    typed = f" exec printf '%s%s\\n' {left} {right}\n".encode()
    answer = (left + right).encode()
    seen = bytearray()
    try:
        async with asyncio.timeout(max(boot.left, 0.1)):
            terminal = await boot.lifeline.terminal(
                user=user, rows=_LOGIN_ROWS, cols=_LOGIN_COLS, term="dumb", recorded=False
            )
            try:
                await _talk(terminal, typed, answer, seen, 5 * boot.factor)
            finally:
                await hang_up(boot.lifeline, terminal)
    except TimeoutError:
        raise boot.failed(
            f"{user}'s login shell did not answer in time", printable(bytes(seen)), late=True
        ) from None
    except GuestError as error:
        raise boot.failed(f"{user} cannot log in: {error}", printable(bytes(seen))) from error


async def sit_down(boot: Boot, user: str) -> Terminal:
    """Log in as the learner and wait until the shell has answered: it is at its prompt then."""
    return await _opened(boot, user, "log in", recorded=False)


async def sit_aside(boot: Boot, user: str) -> Terminal:
    """As `sit_down`, in the learner's shell without a login: nothing of it is left when it ends."""
    return await _opened(boot, user, "start a shell", argv=_OWN_SHELL)


async def _opened(boot: Boot, user: str, what: str, **shell: Any) -> Terminal:
    """Open a terminal; the shell in it has answered then. One of our own has no prompt to await."""
    try:
        async with asyncio.timeout(max(boot.left, 0.1)):
            terminal = await boot.lifeline.terminal(
                user=user, rows=_LOGIN_ROWS, cols=_LOGIN_COLS, term="dumb", **shell
            )
    except TimeoutError:
        raise boot.failed(f"{user} could not {what} in time") from None
    except GuestError as error:
        raise boot.failed(f"{user} cannot {what}: {error}") from error
    await _asked(boot, terminal, "", prompted="argv" in shell)
    return terminal


async def come_back(boot: Boot, id: str) -> Terminal:
    """Attach to a shell that `sit_aside` made, in the machine that was copied since."""
    try:
        async with asyncio.timeout(max(boot.left, 0.1)):
            return await boot.lifeline.attach(id, _LOGIN_ROWS, _LOGIN_COLS)
    except TimeoutError:
        raise boot.failed("the shell that waits was not found in time") from None
    except GuestError as error:
        raise boot.failed(f"the shell that waits is not there: {error}") from error


async def answer(boot: Boot, terminal: Terminal) -> None:
    """Type a command into a shell that waits for one, wait for what it prints, and end it.

    Nothing is started for it but what the shell has in itself, and no line of history is left.
    """
    await _asked(boot, terminal, "; exit", prompted=True)


async def _asked(boot: Boot, terminal: Terminal, then: str, *, prompted: bool) -> None:
    left, right = secrets.token_hex(6), secrets.token_hex(6)
    typed = f" unset HISTFILE; printf '%s%s\\n' {left} {right}{then}\n".encode()
    wanted, seen, patience = (left + right).encode(), bytearray(), 5 * boot.factor
    try:
        async with asyncio.timeout(max(boot.left, 0.1)):
            await _talk(terminal, typed, wanted, seen, patience, prompted=prompted)
    except TimeoutError:
        raise boot.failed(
            "the login shell did not answer in time", printable(bytes(seen))
        ) from None
    except GuestError as error:
        raise boot.failed(f"the login broke off: {error}", printable(bytes(seen))) from error


async def _talk(
    terminal: Terminal,
    typed: bytes,
    answer: bytes,
    seen: bytearray,
    patience: float,
    *,
    prompted: bool = False,
) -> None:
    """Type once there is something to type at, and again when nothing happens for a while."""
    waiting_for_prompt = not prompted
    if prompted:
        await terminal.send(typed)
    while answer not in seen:
        try:
            async with asyncio.timeout(patience):
                item = await terminal.receive()
        except TimeoutError:
            waiting_for_prompt = True
        else:
            if item is None:
                raise GuestError(f"the login ended: {one_line(bytes(seen[-200:]))}")
            seen += item[1]
            del seen[:-_LOGIN_OUTPUT_LIMIT]
        if waiting_for_prompt:
            waiting_for_prompt = False
            await terminal.send(typed)


async def hang_up(lifeline: Lifeline, terminal: Terminal) -> None:
    """End the login, also when it hangs or we are cancelled; mostly it has ended by itself."""
    with anyio.CancelScope(shield=True), anyio.move_on_after(_HANG_UP_TIMEOUT):
        await terminal.close()
        with contextlib.suppress(GuestError):
            await lifeline.hangup(terminal.id)
