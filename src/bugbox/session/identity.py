# SPDX-License-Identifier: Apache-2.0
"""Who a machine is: made anew in every machine, before anybody may use it.

A clone wakes up as the machine it was copied from, with the same random numbers to come. So it
gets entropy, a wall clock, a machine-id, a host name, SSH host keys, and an empty neighbour cache.
All of it or none: whoever rejuvenates a clone and sees an error ends that clone.
"""

from __future__ import annotations

import asyncio
import secrets
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bugbox.errors import GuestError, MachineLost
from bugbox.host import proc
from bugbox.host.bridge import in_thread
from bugbox.machine.lifeline.shell import Lifeline

__all__ = ["Identity", "introduce", "refresh", "rejuvenate", "set_clock", "stir"]

#: What a base image calls itself; a machine with another name got it from its puzzle.
_UNNAMED = "bugbox"
_SEED_BYTES = 64
#: A guest that answers within so much has a clock that is right to half of that, or a little
#: more; one that was slower is told the time again.
_CLOCK_NS = 40_000_000
_CLOCK_TRIES = 4
#: A clock that is wrong by more was set so.
_MEANT_NS = 500_000_000
_HOST_KEYS = "ls /etc/ssh/ssh_host_*_key 2>/dev/null || true"
#: It read the old keys when it started; where it does not run, nothing happens.
_SSHD_AGAIN = """\
if [ -d /run/systemd/system ]; then exec systemctl try-restart ssh.service; fi
read -r pid </run/sshd.pid && kill -HUP "$pid"
exit 0
"""
_KEY_TYPES = ("ed25519", "ecdsa", "rsa")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What must differ between two clones of one template, as far as it is asked for."""

    #: Empty: the puzzle named the machine, and the name stays.
    hostname: str
    #: Guest's wall clock minus the host's.
    clock_offset_ns: int
    #: Kinds of SSH host keys the machine has, such as "ed25519".
    host_keys: tuple[str, ...] = ()
    #: It has a network card, so it may remember neighbours that are not there.
    network: bool = False


async def introduce(lifeline: Lifeline, id: str) -> None:
    """Tell a machine that has just booted its name and the time; a puzzle may change both then."""
    if await hostname(lifeline) == _UNNAMED:
        await lifeline.identity(id)
    await set_clock(lifeline, 0)


async def rejuvenate(lifeline: Lifeline, identity: Identity, *, stirred: bool = False) -> None:
    """Make a clone somebody of its own; GuestError when any part of it cannot be done.

    One that is `stirred` has random numbers of its own already.
    """
    begun = lifeline.hello
    keys = asyncio.ensure_future(in_thread(_make_keys, identity.host_keys))
    try:
        if not stirred:
            await stir(lifeline)
        await lifeline.identity(identity.hostname, secrets.token_hex(16))
        # After it: the agent does one thing at a time, and its answer must not wait for that.
        await set_clock(lifeline, identity.clock_offset_ns)
        if identity.host_keys:
            await _put_keys(lifeline, await keys)
        if identity.network:
            await _must(lifeline, ["ip", "neigh", "flush", "all"])
        # One that was killed on the way may come back, and would not know what it had done.
        if begun is None or lifeline.hello is not begun:
            raise MachineLost("the lifeline broke off while a clone got its identity")
    finally:
        keys.cancel()
        await asyncio.gather(keys, return_exceptions=True)


async def stir(lifeline: Lifeline) -> None:
    """Give it random numbers that no other machine has."""
    await lifeline.entropy(secrets.token_bytes(_SEED_BYTES))


async def refresh(lifeline: Lifeline, clock_offset_ns: int) -> None:
    """Wake a machine that has its identity and stood still: fresh entropy, the right time."""
    await stir(lifeline)
    await set_clock(lifeline, clock_offset_ns)


async def set_clock(lifeline: Lifeline, offset_ns: int) -> None:
    """Set the guest's clock to the host's plus `offset_ns`, as closely as it answers."""
    best = 0
    for _ in range(_CLOCK_TRIES):
        asked = time.time_ns()
        # No more of an answer that was late, or one that comes in time now leaves it ahead.
        await lifeline.clock(asked + offset_ns + min(best, _CLOCK_NS) // 2)
        took = time.time_ns() - asked
        if took <= _CLOCK_NS:
            return
        best = min(best or took, took)


async def clock_offset(lifeline: Lifeline, lost_ns: int = 0) -> int:
    """Return the guest's clock minus the host's, ns, as it was before it stood still for `lost_ns`.

    The best of a few looks; 0 when they differ by so little that no puzzle can have meant it.
    """
    looks = []
    for _ in range(_CLOCK_TRIES):
        asked = time.time_ns()
        guest = await lifeline.clock()
        took = time.time_ns() - asked
        looks.append((took, guest - asked - took // 2))
    offset = min(looks)[1] + lost_ns
    return offset if abs(offset) > _MEANT_NS else 0


async def hostname(lifeline: Lifeline) -> str:
    """Return what the machine calls itself."""
    name = await lifeline.get("/proc/sys/kernel/hostname", limit=4096)
    return name.decode(errors="replace").strip()


async def host_keys(lifeline: Lifeline) -> tuple[str, ...]:
    """Return the kinds of SSH host keys the machine has made."""
    found = await lifeline.script(_HOST_KEYS.encode(), "host-keys", limit=4096)
    names = [Path(line).name for line in found.stdout.decode(errors="replace").split()]
    kinds = [name.removeprefix("ssh_host_").removesuffix("_key") for name in names]
    return tuple(sorted(kinds))


def _make_keys(kinds: tuple[str, ...]) -> dict[str, bytes]:
    """Make SSH host keys on the host; contents by file name."""
    made: dict[str, bytes] = {}
    if not kinds:
        return made
    with tempfile.TemporaryDirectory(prefix="bugbox-keys-") as folder:
        for kind in kinds:
            if kind not in _KEY_TYPES:
                raise GuestError(f"the machine has an SSH host key of the kind {kind!r}")
            path = Path(folder) / f"ssh_host_{kind}_key"
            argv: list[str | Path] = [
                "ssh-keygen",
                "-q",
                "-t",
                kind,
                "-N",
                "",
                "-C",
                "",
                "-f",
                path,
            ]
            proc.run(argv, timeout=60)
            for each in (path, path.with_name(f"{path.name}.pub")):
                made[each.name] = each.read_bytes()
    return made


async def _put_keys(lifeline: Lifeline, keys: dict[str, bytes]) -> None:
    for name, data in keys.items():
        mode = 0o644 if name.endswith(".pub") else 0o600
        await lifeline.put(f"/etc/ssh/{name}", data, mode=mode)
    await _must(lifeline, ["sh", "-c", _SSHD_AGAIN], "start sshd again")


async def _must(lifeline: Lifeline, argv: list[str], what: str = "") -> None:
    result = await lifeline.run(argv, flags=("tools",))
    if result.code != 0 or result.timed_out:
        raise GuestError(f"{what or ' '.join(argv)}: status {result.code} in a clone")
