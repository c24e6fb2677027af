# SPDX-License-Identifier: Apache-2.0
"""The keeper: one process per BUGBOX_HOME that holds every machine's sockets for all commands.

It is the one that has `Home.keeper_lock`; a second one ends at once. It listens before it has
adopted what the last one left, so that a client may wait; it ends when it is asked to retire, by
SIGTERM, or when for a while there was neither a machine nor a client. Ending, however it happens,
ends no machine.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
from anyio.abc import UNIXSocketStream

from bugbox.config import Settings
from bugbox.errors import BugboxError, UserError
from bugbox.events import listening
from bugbox.keeper import log as keeper_log
from bugbox.keeper import protocol
from bugbox.keeper.identity import code_version, settings_digest
from bugbox.keeper.protocol import ProtocolError
from bugbox.keeper.streams import STREAMS
from bugbox.keeper.wire import Client, HungUp, error_json
from bugbox.paths import Home
from bugbox.session.manager import Manager

__all__ = ["Keeper", "serve"]

log = logging.getLogger(__name__)

#: Seconds that answers under way have to be finished when the keeper retires.
_FINISH_TIMEOUT = 120.0
_LAST_WORDS_TIMEOUT = 5.0
#: Verbs that boot a machine, or say whether one fits: with the settings of the command that asks.
_BOOTS = frozenset({"start", "reset", "resume", "fork", "undo", "fit"})


def serve(home: Home, settings: Settings) -> bool:
    """Be the keeper until it is over; return False at once when there is one."""
    home.prepare()
    lock = os.open(home.keeper_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    os.chdir("/")
    keeper_log.set_up(home)
    log.info("keeper %s, pid %d, of %s", code_version(), os.getpid(), home.root)
    anyio.run(Keeper(home, settings).run)
    log.info("keeper ends")
    with contextlib.suppress(OSError):  # sockets of machines that run on lie in it
        home.runtime.rmdir()
    return True


class Keeper:
    """Clients on one side, the manager on the other."""

    def __init__(self, home: Home, settings: Settings) -> None:
        self.home = home
        self.settings = settings
        self._version, self._settings = code_version(), settings_digest(home)
        self.manager = Manager(home, settings, lasting=True)
        self._retiring = anyio.Event()
        self._adopted = anyio.Event()
        self._answers = 0
        self._answered = anyio.Event()
        self._clients = 0

    async def run(self) -> None:
        """Serve until retired. The lock must be held."""
        listener = await _listen(self.home)
        async with self.manager, anyio.create_task_group() as group:
            try:
                async with listener, anyio.create_task_group() as accepting:
                    for task in (self._adopt, self._watch_signals, self._watch_idleness):
                        accepting.start_soon(task)
                    accepting.start_soon(lambda: listener.serve(self._serve, group))
                    await self._retiring.wait()
                    accepting.cancel_scope.cancel()
            finally:
                self.home.keeper_socket.unlink(missing_ok=True)
            with anyio.move_on_after(_FINISH_TIMEOUT * self.settings.timeout_factor):
                while self._answers:
                    await self._answered.wait()
            group.cancel_scope.cancel()

    async def _adopt(self) -> None:
        try:
            await self.manager.adopt_all()
        except Exception:
            log.exception("adoption failed")
        self._adopted.set()

    async def _watch_signals(self) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for number in signals:
                log.info("signal %d: retiring", number)
                self._retiring.set()

    async def _watch_idleness(self) -> None:
        idle_since = anyio.current_time()
        while True:
            await anyio.sleep(min(1.0, self.settings.keeper_idle / 4))
            if self._clients or self.manager.count or not self._adopted.is_set():
                idle_since = anyio.current_time()
            elif anyio.current_time() - idle_since >= self.settings.keeper_idle:
                log.info("nothing to keep for %g s", self.settings.keeper_idle)
                self._retiring.set()

    async def _serve(self, sock: UNIXSocketStream) -> None:
        self._clients += 1
        client = Client(sock)
        try:
            async with sock:
                await self._converse(client)
        except HungUp:
            pass
        except Exception:
            log.exception("a connection failed")
        finally:
            self._clients -= 1

    async def _converse(self, client: Client) -> None:
        """Read one request, give one answer or serve one stream."""
        try:
            request = await client.request()
            verb = str(request.get("verb"))
            args = request.get("args", {})
            self._check_version(request, verb)
            await self._adopted.wait()
            if self._retiring.is_set() and verb not in ("ping", "retire"):
                raise HungUp  # without a word: the client asks the next keeper
            if verb in STREAMS:
                await STREAMS[verb](self.manager, client, args)
            else:
                with self._under_way():
                    await self._answer(client, verb, args)
        except HungUp:
            raise
        except Exception as error:
            await _tell(client, error)

    @contextmanager
    def _under_way(self) -> Iterator[None]:
        """Count an answer until its last byte is sent: retiring waits for it."""
        self._answers += 1
        try:
            yield
        finally:
            self._answers -= 1
            self._answered.set()
            self._answered = anyio.Event()

    def _check_version(self, request: dict[str, Any], verb: str) -> None:
        if request.get("protocol") != protocol.PROTOCOL:
            raise VersionSkew(f"the keeper speaks protocol {protocol.PROTOCOL}")
        if verb not in protocol.ANY_VERSION and request.get("version") != self._version:
            raise VersionSkew(f"the keeper is version {self._version}")
        if verb in _BOOTS and request.get("settings", self._settings) != self._settings:
            raise VersionSkew("the keeper has other settings")

    async def _answer(self, client: Client, verb: str, args: dict[str, Any]) -> None:
        """Do what the verb says while the client stays; take it back when it hangs up."""
        result: Any = None
        failure: Exception | None = None
        async with anyio.create_task_group() as group:
            with anyio.CancelScope() as scope, listening(client.on_event):
                group.start_soon(_cancel_after, client.hung_up, scope)
                group.start_soon(client.send_events)
                try:
                    result = await self._do(verb, args)
                except Exception as error:
                    failure = error
            group.cancel_scope.cancel()
        if scope.cancelled_caught:
            log.info("%s was cancelled by its client", verb)
            failure = Interrupted("interrupted; all that was begun is taken back")
        if failure is not None:
            await _tell(client, failure)
            return
        await client.flush_events()
        await client.send_line({"result": result})

    async def _do(self, verb: str, args: dict[str, Any]) -> Any:
        if verb == "ping":
            return {"version": self._version, "pid": os.getpid(), "machines": self.manager.count}
        if verb == "retire":
            log.info("asked to retire")
            self._retiring.set()
            return {}
        if verb not in self.manager.verbs:
            known = sorted({"ping", "retire", *STREAMS, *self.manager.verbs})
            raise UserError(f"the keeper knows no verb {verb}", hint=f"it knows {', '.join(known)}")
        return await self.manager.answer(verb, args)


class VersionSkew(BugboxError):
    """The client is of another version, or has other settings: it starts its own keeper."""


class Interrupted(BugboxError):
    """The client hung up before the answer."""

    exit_status = 130


async def _listen(home: Home) -> Any:
    # Whatever lies there belonged to a keeper that is dead: we have the lock.
    home.keeper_socket.unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        return await anyio.create_unix_listener(home.keeper_socket)
    finally:
        os.umask(before)


async def _cancel_after(wait: Callable[[], Any], scope: anyio.CancelScope) -> None:
    await wait()
    scope.cancel()


async def _tell(client: Client, error: Exception) -> None:
    """Send an error in the form that the connection has by now."""
    if not isinstance(error, (BugboxError, ProtocolError)):
        log.error("a verb failed", exc_info=error)
    elif isinstance(error, ProtocolError):
        error = UserError(f"protocol: {error}")
    with anyio.move_on_after(_LAST_WORDS_TIMEOUT):
        if client.streaming:
            await client.send_frame(protocol.ERROR, error_json(error))
        else:
            await client.flush_events()
            await client.send_line({"error": error_json(error)})
