# SPDX-License-Identifier: Apache-2.0
"""All sessions that this process keeps: the seam between whoever asks and the machines.

The keeper calls it for its clients; a command with `--no-keeper` calls it for itself. It knows
neither. `answer(verb, args)` takes the verbs of docs/reference/keeper-protocol.md that end in one
answer; those that end in a stream have a method each. Cancelling a call takes back what it began.
Use it as `async with Manager(home, settings) as manager`, under anyio's cancel scopes.
"""

from __future__ import annotations

import dataclasses
import logging
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import TaskGroup

from bugbox.config import Settings
from bugbox.errors import BugboxError, NotBuilt, NotFound, UserError
from bugbox.events import tracing
from bugbox.host.bridge import in_thread, shielded
from bugbox.image import store
from bugbox.machine.driver import Driver
from bugbox.paths import Home
from bugbox.puzzle import catalogue
from bugbox.session import adoption, hostsleep, lab, prepare, record
from bugbox.session.admission import Admission, need_of
from bugbox.session.attempt import Attempt
from bugbox.session.auto_check import check_by_itself
from bugbox.session.boot import boot_facts
from bugbox.session.checkpoint import checkpoint, listed, remove, undo
from bugbox.session.cloning import Cloning
from bugbox.session.drivers import choose
from bugbox.session.evidence import debug, logs
from bugbox.session.fork import fork
from bugbox.session.guard import guard
from bugbox.session.idle import Caretaker
from bugbox.session.layer import load as load_layer
from bugbox.session.limits import bind
from bugbox.session.network import card
from bugbox.session.plan import Plan, of_image, of_puzzle
from bugbox.session.pool import Pool
from bugbox.session.ports import port_of
from bugbox.session.provision import Bring, Host, bring_up, provision
from bugbox.session.reaper import collect, give_back
from bugbox.session.session import Session
from bugbox.session.stopwatch import Stopwatch
from bugbox.session.timekeeper import keep_time

__all__ = ["Manager"]

log = logging.getLogger(__name__)

#: Seconds that a client may wait for one adopted machine's lifeline; a healthy one needs a few ms.
_ADOPTION_TIMEOUT = 2.0

Answer = Callable[[Mapping[str, Any]], Awaitable[Any]]


class Manager:
    """Starts, finds and ends sessions."""

    def __init__(self, home: Home, settings: Settings, *, lasting: bool = False) -> None:
        self.home = home
        #: This process stays: what is begun in the background has time to end.
        self._lasting = lasting
        self.settings = settings
        self._attempts: dict[str, Attempt] = {}
        #: Sessions that could not be adopted, and when their records were last written then.
        self._in_vain: dict[str, int] = {}
        self._adopting = anyio.Lock()
        self._shelf = catalogue.Shelf()
        self._cloning = Cloning(home)
        self._pool = Pool(settings, self._cloning, self._spawn)
        self._caretaker = Caretaker(self._sessions, settings.idle_pause, limits=bind(settings))
        self._admission = Admission(settings, self._sessions, self._pool, self._caretaker.idle)
        self._pool.fits = self._admission.fits
        self._drivers: dict[str, Driver] = {}
        self._tasks: TaskGroup | None = None
        self._verbs: dict[str, Answer] = {
            "start": self._start,
            "check": self._check,
            "hint": self._hint,
            "solution": self._solution,
            "story": self._story,
            "reset": self._reset,
            "pause": self._pause,
            "fork": self._fork,
            "checkpoint": self._checkpoint,
            "undo": self._undo,
            "resume": self._resume,
            "stop": self._stop,
            "ps": self._ps,
            "logs": self._logs,
            "debug": self._debug,
            "forward": self._forward,
            "drain": self._drain,
            "fit": self._fit,
            "boot": self._boot,
        }

    async def __aenter__(self) -> Manager:
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        if self._lasting:
            self._spawn(self._admission.watch)
            self._spawn(lambda: hostsleep.watch(self._sessions))
            self._spawn(lambda: check_by_itself(self._attempts.values))
        if self._lasting and (self.settings.idle_pause or bind(self.settings)):
            self._spawn(self._caretaker.run)
        if self._lasting and bind(self.settings):
            self._spawn(lambda: keep_time(self._sessions))
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let go of every machine; none is ended."""
        assert self._tasks is not None
        with anyio.CancelScope(shield=True):
            for attempt in self._attempts.values():
                try:
                    await attempt.session.release()
                except Exception:
                    log.exception("%s: not let go of in good order", attempt.session.id)
            try:
                await self._pool.aclose()
            except Exception:
                log.exception("standby machines: not ended in good order")
        self._attempts.clear()
        self._cloning.close()
        self._tasks.cancel_scope.cancel()
        await self._tasks.__aexit__(None, None, None)

    def _sessions(self) -> list[Session]:
        return [attempt.session for attempt in self._attempts.values()]

    @property
    def count(self) -> int:
        """How many sessions this process keeps."""
        return len(self._attempts)

    @property
    def verbs(self) -> frozenset[str]:
        """What `answer` takes."""
        return frozenset(self._verbs)

    async def answer(self, verb: str, args: Mapping[str, Any]) -> Any:
        """Do what a verb says; plain values, ready for JSON."""
        return await self._verbs[verb](args)

    async def adopt_all(self) -> None:
        """Finish what dead processes left half-made; take over what nobody keeps."""
        async with self._adopting:
            await in_thread(collect, self.home)
            async with anyio.create_task_group() as group:
                for id in await in_thread(record.ids, self.home):
                    if id not in self._attempts:
                        group.start_soon(self._adopt, id)

    async def _adopt(self, id: str) -> None:
        written = await in_thread(record.written, self.home, id)
        if self._in_vain.get(id) == written:
            return
        try:
            session = await adoption.adopt(self.home, self.settings, id, self._spawn)
        except Exception as error:
            known = isinstance(error, BugboxError)
            log.warning("%s cannot be adopted: %s", id, error, exc_info=not known)
            self._in_vain[id] = written
            return
        if session is not None:
            self._keep(session)
            self._spawn(session.follow_up)
            await session.settled(_ADOPTION_TIMEOUT)

    def _keep(self, session: Session) -> Attempt:
        attempt = Attempt(session)
        session.asked = attempt.asked
        session.admitted = lambda: self._admission.boots(session.plan)
        self._attempts[session.id] = attempt
        if session.record.disk == "snapshot":
            self._spawn(lambda: guard(session))
        return attempt

    def _spawn(self, task: Callable[[], Awaitable[None]]) -> None:
        async def guarded() -> None:
            try:
                await task()
            except Exception:
                log.exception("a background task failed")

        assert self._tasks is not None
        self._tasks.start_soon(guarded)

    # Finding the one that is meant.

    async def find(self, ref: object) -> Attempt:
        """Return the session that an id, a prefix, a puzzle's name or nothing at all means."""
        if ref is not None and not isinstance(ref, str):
            raise UserError(f"id: expected text, got {ref!r}")
        await self._adopt_new()
        attempts = list(self._attempts.values())
        # A puzzle's name before a prefix: `disk` is not what `disk-full-3f9k` begins with.
        found = (
            [attempt for attempt in attempts if not ref or ref == attempt.session.id]
            or [attempt for attempt in attempts if ref == attempt.session.record.puzzle]
            or [attempt for attempt in attempts if attempt.session.id.startswith(ref or "")]
        )
        if len(found) == 1:
            return found[0]
        choices = sorted(attempt.session.id for attempt in found) or sorted(self._attempts)
        hint = f"one of {', '.join(choices)}" if choices else "bugbox start NAME"
        if not self._attempts:
            raise NotFound("no session runs", hint=hint)
        if not found:
            raise NotFound(f"no session {ref}", hint=hint)
        raise UserError("which session? " + (ref or "more than one runs"), hint=hint)

    async def _adopt_new(self) -> None:
        ids = await in_thread(record.ids, self.home)
        unknown = [id for id in ids if id not in self._attempts and id not in self._pool.ids]
        if await in_thread(self._any_unkept, unknown):
            await self.adopt_all()

    def _any_unkept(self, ids: Sequence[str]) -> bool:
        """Whether nobody keeps one of them, and adopting it as it is now was not in vain before."""
        return any(
            self._in_vain.get(id) != record.written(self.home, id) and record.unkept(self.home, id)
            for id in ids
        )

    # Verbs.

    async def _start(self, args: Mapping[str, Any]) -> dict[str, Any]:
        if not args.get("trace"):
            return await self._start_one(args)
        with tracing() as spans:
            answer = await self._start_one(args)
        return answer | {"trace": [{"name": n, "begin": b, "end": e} for n, b, e in spans]}

    async def _start_one(self, args: Mapping[str, Any]) -> dict[str, Any]:
        watch = Stopwatch()
        with watch.stage("find"):
            plan = await in_thread(self._plan, args)
            card(plan, self.settings)  # before anything is built for what will be refused
            parts = await self._parts(plan)
            host = self._host(str(args.get("driver", "auto")), str(args.get("disk", "auto")))
        cold = bool(args.get("cold")) or self.settings.templates == "off"
        # One that stands by has drawn its own random variants.
        any_values = args.get("seed") is None and not args.get("variants")
        standby = any_values and not cold
        async with self._admission.admitted(plan, standby=standby):
            found = await self._pool.claim(plan, parts, host, watch) if standby else None
            if found is None:
                async with self._admission.turn():
                    made = await provision(plan, parts, host, watch, self._bring(cold=cold))
                    ledger, machine = made
            else:
                ledger, machine, plan = found
            session = self._keep(Session(ledger, plan, host, machine, self._spawn)).session
        wanted = args.get("warm", True) and self._lasting and self.settings.templates == "on"
        if wanted and ledger.record.disk == "qcow2" and plan.clonable:
            self._spawn(lambda: self._warm(plan, parts, host))
        return {
            "id": session.id,
            "state": session.state,
            "clone": bool(ledger.record.template),
            "timings_ms": ledger.record.timings_ms,
            "degraded": list(ledger.record.degraded),
        }

    def _bring(self, *, cold: bool) -> Bring:
        return bring_up if cold or self.settings.templates == "off" else self._cloning.bring

    async def _warm(self, plan: Plan, parts: prepare.Prepared, host: Host) -> None:
        """Make a template for the next start, and a standby, in the background."""
        if not await self._admission.spare(2 * need_of(plan)):
            log.info("no template of %s: the host's memory is needed for machines", plan.name)
            return
        try:
            made = await self._cloning.make(plan, parts, host)
        except BugboxError as error:
            log.warning("no template of %s: %s (%s)", plan.name, error.message, error.detail)
            return
        if made is not None:
            self._pool.used(plan, parts, host, made.manifest.key)

    async def _fit(self, args: Mapping[str, Any]) -> Any:
        plan = await in_thread(self._plan, args)
        usage = await in_thread(shutil.disk_usage, self.home.sessions)
        disk = {"free_mib": usage.free >> 20, "each_mib_at_most": plan.disk_bytes >> 20}
        return await self._admission.fit(plan) | {"disk": disk}

    async def _drain(self, args: Mapping[str, Any]) -> Any:
        return {"drained": await self._pool.drain()}

    def _host(self, driver: str, disk: str) -> Host:
        return Host(
            home=self.home,
            settings=self.settings,
            driver=self._driver(driver),
            disk=disk,
        )

    def _driver(self, wanted: str) -> Driver:
        """Return a driver, one for each name: what it found out about the host, it keeps."""
        if wanted not in self._drivers:
            self._drivers[wanted] = choose(self.home, self.settings, wanted)
        return self._drivers[wanted]

    def _plan(self, args: Mapping[str, Any]) -> Plan:
        kernel = str(args.get("kernel") or "")
        if kernel:  # written down by its release, so that a reset takes the same one
            kernel = store.kernel_named(self.home, kernel).release
        extra = tuple(str(arg) for arg in args.get("kernel_args", ()))
        return replace(self._wished(args), kernel=kernel, kernel_args=extra)

    def _wished(self, args: Mapping[str, Any]) -> Plan:
        if args.get("lab"):
            return lab.plan(
                [(str(name), Path(image)) for name, image in args["lab"]["carried"]],
                int(args["lab"]["mem_mib"]),
            )
        if args.get("image"):
            return of_image(str(args["image"]), str(args.get("layer") or ""))
        where = catalogue.roots(self.settings.puzzles, self.home)
        puzzle = self._shelf.find(str(args["puzzle"]), where, Path("/"))
        seed, known = args.get("seed"), args.get("variants")
        return of_puzzle(puzzle, seed=None if seed is None else int(seed), known=known)

    async def _parts(self, plan: Plan) -> prepare.Prepared:
        wanted = plan.puzzle or plan.base
        parts = await in_thread(prepare.find, self.home, self.settings, wanted, plan.kernel)
        if parts is None:
            raise NotBuilt(f"{plan.name} is not built yet", hint=f"bugbox build {plan.name}")
        if plan.layer:
            layer = await in_thread(load_layer, self.home, plan.layer)
            if layer is None:
                raise NotBuilt(f"the layer {plan.layer[:12]} is not in the store any more")
            parts = dataclasses.replace(parts, layer=layer)
        return parts

    async def _check(self, args: Mapping[str, Any]) -> Any:
        return await (await self.find(args.get("id"))).check()

    async def _hint(self, args: Mapping[str, Any]) -> Any:
        attempt = await self.find(args.get("id"))
        n = args.get("n")
        return await attempt.hint(
            None if n is None else int(n), all=bool(args.get("all")), now=bool(args.get("now"))
        )

    async def _solution(self, args: Mapping[str, Any]) -> Any:
        attempt = await self.find(args.get("id"))
        return await attempt.solution(give_up=bool(args.get("give_up")))

    async def _story(self, args: Mapping[str, Any]) -> Any:
        return (await self.find(args.get("id"))).story()

    async def _reset(self, args: Mapping[str, Any]) -> Any:
        session = (await self.find(args.get("id"))).session
        plan = session.plan
        if plan.puzzle:
            # The puzzle may have been edited; its variants stay what they were.
            again = {"puzzle": str(plan.folder), "variants": session.record.variants}
            plan = await in_thread(self._plan, again | {"kernel": plan.kernel})
        parts = await self._parts(plan)
        return await session.reset(plan, parts, self._bring(cold=False))

    async def _pause(self, args: Mapping[str, Any]) -> Any:
        session = (await self.find(args.get("id"))).session
        return await session.pause(save=bool(args.get("save")))

    async def _resume(self, args: Mapping[str, Any]) -> Any:
        session = (await self.find(args.get("id"))).session
        return await session.resume(cold=bool(args.get("cold")))

    async def _fork(self, args: Mapping[str, Any]) -> dict[str, Any]:
        of, watch = (await self.find(args.get("id"))).session, Stopwatch()
        made = await fork(of, watch, asked=True)
        ledger, timings = made.ledger, watch.as_ms()
        async with AsyncExitStack() as undo:
            undo.push_async_callback(shielded, lambda: in_thread(give_back, ledger))
            undo.push_async_callback(shielded, lambda: made.machine.stop(0.0))
            await in_thread(ledger.write, phase=record.Phase.HANDED_OVER, timings_ms=timings)
            undo.pop_all()
        session = Session(ledger, of.plan, of.host, made.machine, self._spawn)
        self._keep(session)
        return {
            "id": session.id,
            "state": session.state,
            "of": of.id,
            "pause_ms": round(made.pause_ms, 1),
            "timings_ms": timings,
        }

    async def _checkpoint(self, args: Mapping[str, Any]) -> dict[str, Any]:
        session = (await self.find(args.get("id"))).session
        if args.get("list"):
            return await in_thread(listed, session)
        if args.get("remove") is not None:
            return await remove(session, str(args["remove"]))
        label = args.get("label")
        return await checkpoint(session, None if label is None else str(label))

    async def _undo(self, args: Mapping[str, Any]) -> dict[str, Any]:
        session = (await self.find(args.get("id"))).session
        label = args.get("label")
        return await undo(session, None if label is None else str(label))

    async def _stop(self, args: Mapping[str, Any]) -> Any:
        await self._adopt_new()
        if args.get("all"):
            chosen = list(self._attempts.values())
        else:
            chosen = [await self.find(id) for id in args.get("ids") or [None]]
        failures: list[BugboxError] = []
        stopped: list[str] = []

        async def stop(attempt: Attempt) -> None:
            try:
                await attempt.session.stop()
            except BugboxError as error:
                failures.append(error)
                return
            self._attempts.pop(attempt.session.id, None)
            stopped.append(attempt.session.id)

        async with anyio.create_task_group() as group:
            for attempt in {attempt.session.id: attempt for attempt in chosen}.values():
                group.start_soon(stop, attempt)
        if failures:
            raise failures[0]
        return {"stopped": sorted(stopped)}

    async def _ps(self, args: Mapping[str, Any]) -> Any:
        await self._adopt_new()
        rows = [attempt.session for attempt in self._attempts.values()]
        rows.sort(key=lambda session: session.record.started)
        making = await in_thread(lambda: [*map(_being_made, record.load_all(self.home))])
        return [session.summary() for session in rows] + [row for row in making if row]

    async def _logs(self, args: Mapping[str, Any]) -> Any:
        which = str(args.get("which") or "console")
        id = "" if which == "keeper" else (await self.find(args.get("id"))).session.id
        return await in_thread(logs, self.home, id, which)

    async def _forward(self, args: Mapping[str, Any]) -> Any:
        session = (await self.find(args.get("id"))).session
        return {"id": session.id, **port_of(session.plan, args.get("port"))}

    async def _debug(self, args: Mapping[str, Any]) -> Any:
        session = (await self.find(args.get("id"))).session
        return await in_thread(debug, self.home, session.record) | {
            "summary": session.summary(),
            "boot": dict(session.machine.lifeline.milestones) if session.machine else {},
        }

    async def _boot(self, args: Mapping[str, Any]) -> Any:
        session = (await self.find(args.get("id"))).session
        return await boot_facts(session, self.settings.timeout_factor)


def _being_made(found: record.Record) -> dict[str, Any] | None:
    """Return the line that `ps` shows for a session that nobody has been given yet."""
    if found.phase is not record.Phase.MAKING or not found.asked:
        return None
    return {
        "id": found.id,
        "puzzle": found.puzzle if found.folder else None,
        "state": "booting",
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(found.started)),
        "driver": found.driver,
        "disk": found.disk,
        "memory_mib": found.spec.get("mem_mib"),
        "making": True,
    }
