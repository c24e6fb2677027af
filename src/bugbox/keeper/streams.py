# SPDX-License-Identifier: Apache-2.0
"""The verbs that end in a stream: exec, terminal, attach, console, dial, put, get."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

from bugbox.errors import GuestError, UserError
from bugbox.keeper import pump
from bugbox.keeper.wire import Client
from bugbox.machine.lifeline.shell import Lifeline, Refused
from bugbox.session.manager import Manager
from bugbox.session.ports import port_of
from bugbox.session.session import Session
from bugbox.session.terminal import Login, Seat

__all__ = ["STREAMS"]

Args = Mapping[str, Any]

_HOME = b'printf %s "$HOME"'
_HOME_LIMIT = 4096
#: A file that is not on the guest's disk may be larger than that by so much.
_MORE = 64 << 20

#: The step at which the lifeline finds no such user (guest/lifeline/command.c).
_LOOK_UP = "look up the user"

#: A terminal's name as terminfo has them; anything else is not passed on to the guest.
_TERM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")


async def _exec(manager: Manager, client: Client, args: Args) -> None:
    session = (await manager.find(args.get("id"))).session
    argv = _argv(args)
    if not argv:
        raise UserError("exec: an argv is needed")
    lifeline = await session.lifeline()
    rescue = bool(args.get("rescue"))
    # A solution may need the session's variants; a learner's own command gets none of them.
    told = session.plan.env if args.get("variants") else {}
    user = "root" if rescue else _user(args, session)
    own = {str(key): str(value) for key, value in (args.get("env") or {}).items()}
    flags = ("tools",) if rescue else ()
    with _known(user, session):
        running = await lifeline.command(argv, user=user, env={**told, **own}, flags=flags)
    try:
        await pump.command(client, running, {"id": session.id})
    finally:
        session.used = time.monotonic()


async def _terminal(manager: Manager, client: Client, args: Args) -> None:
    attempt = await manager.find(args.get("id"))
    session, plan = attempt.session, attempt.session.plan
    term = str(args.get("term") or "")
    login = Login(
        user=_user(args, session),
        term=term if _TERM.fullmatch(term) else "xterm-256color",
        rescue=bool(args.get("rescue")),
        argv=tuple(_argv(args)),
    )
    seat = Seat(session, login, *_size(args))
    with _known(login.user, session):
        await seat.sit_down()
    info: dict[str, Any] = {"id": session.id, "terminal": seat.terminal, "title": plan.title}
    if plan.puzzle:
        info["goal"] = plan.puzzle.manifest.summary
    await pump.terminal(client, seat, info)


async def _attach(manager: Manager, client: Client, args: Args) -> None:
    session = (await manager.find(args.get("id"))).session
    login = Login(user=session.plan.user, rescue=bool(args.get("rescue")))
    seat = Seat(session, login, *_size(args))
    await seat.come_back(str(args.get("terminal")))
    await pump.terminal(client, seat, {"id": session.id, "terminal": seat.terminal})


async def _console(manager: Manager, client: Client, args: Args) -> None:
    session = (await manager.find(args.get("id"))).session
    await client.begin_stream({"id": session.id})
    async with contextlib.aclosing(session.console()) as parts:
        await pump.follow(client, parts, session.type)


async def _dial(manager: Manager, client: Client, args: Args) -> None:
    session = (await manager.find(args.get("id"))).session
    port = port_of(session.plan, args.get("port"))["port"]
    running = await (await session.lifeline()).dial(port)
    await pump.command(client, running, {"id": session.id, "port": port})


async def _put(manager: Manager, client: Client, args: Args) -> None:
    session = (await manager.find(args.get("id"))).session
    lifeline = await session.lifeline()
    user = _user(args, session)
    path = await _path(args, user, lifeline)
    await client.begin_stream({"id": session.id, "path": path})
    await pump.file_in(
        client,
        lambda parts: lifeline.put(
            path,
            parts,
            size=int(args["size"]),
            mode=int(args.get("mode", 0o644)) & 0o7777,
            user=user,
            parents=bool(args.get("parents")),
        ),
    )


async def _get(manager: Manager, client: Client, args: Args) -> None:
    session = (await manager.find(args.get("id"))).session
    lifeline = await session.lifeline()
    path = await _path(args, _user(args, session), lifeline)
    await client.begin_stream({"id": session.id, "path": path})
    # What a guest announces and sends fills the disk of whoever asked: no more than its own holds.
    limit = session.plan.disk_bytes + _MORE
    async with contextlib.aclosing(lifeline.get_stream(path, limit=limit)) as parts:
        await pump.file_out(client, parts)


@contextlib.contextmanager
def _known(user: str, session: Session) -> Iterator[None]:
    """Say whose mistake it is when the guest has no such user."""
    try:
        yield
    except Refused as error:
        if error.step != _LOOK_UP:
            raise
        raise UserError(f"{session.id} has no user {user}", hint="leave --user out") from error


def _argv(args: Args) -> list[str | bytes]:
    argv = args.get("argv") or []
    if not isinstance(argv, list) or not all(isinstance(arg, str) for arg in argv):
        raise UserError("argv: expected a list of texts")
    return [arg.encode("utf-8", "surrogateescape") for arg in argv]


def _user(args: Args, session: Session) -> str:
    return "root" if args.get("root") else str(args.get("user") or session.plan.user)


async def _path(args: Args, user: str, lifeline: Lifeline) -> str:
    path = str(args["path"])
    if path.startswith("/"):
        return path
    # Its agent knows the guest's passwd, also when the guest's own programs are broken.
    found = await lifeline.script(_HOME, "home", user=user, limit=_HOME_LIMIT)
    home = found.stdout.decode("utf-8", "replace").rstrip("/")
    if found.status != 0 or not found.stdout.startswith(b"/"):
        raise GuestError(f"{user}'s home is not known", hint="give the whole path, from /")
    return f"{home}/{path.removeprefix('~/')}" if path else home or "/"


def _size(args: Args) -> tuple[int, int]:
    return min(max(int(args.get("rows") or 24), 1), 10_000), min(
        max(int(args.get("cols") or 80), 1), 10_000
    )


STREAMS: dict[str, Callable[[Manager, Client, Args], Awaitable[None]]] = {
    "exec": _exec,
    "terminal": _terminal,
    "attach": _attach,
    "console": _console,
    "dial": _dial,
    "put": _put,
    "get": _get,
}
