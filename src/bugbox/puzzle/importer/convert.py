# SPDX-License-Identifier: Apache-2.0
"""A scenario as the files of a puzzle, and what differs. Pure: values in, texts out.

The scenario's own scripts run in the guest with the guest's bash, as they were written; each is
wrapped into a script that speaks this format's language.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bugbox.puzzle.importer.killercoda import Asset, Scenario
from bugbox.puzzle.importer.prose import Prose, converted
from bugbox.puzzle.importer.report import Notes
from bugbox.puzzle.text import one_line

__all__ = ["Files", "convert"]

_END = "END_OF_IMPORTED_SCRIPT"
_DIFFICULTY = {
    "beginner": "easy", "easy": "easy", "medium": "medium", "intermediate": "medium",
    "hard": "hard", "advanced": "hard", "expert": "expert",
}  # fmt: skip
_MINUTES = re.compile(r"\s*([0-9]{1,3})(?:\s*-\s*([0-9]{1,3}))?\s*(?:m|min|mins|minutes?)\s*", re.I)
_SHELLS = ("sh", "bash", "dash", "ash")
#: Programs that want a network, and what a machine without one says of them.
_NETWORK = re.compile(
    r"^[^#\n]*\b(apt-get|apt|curl|wget|git clone|pip3?|npm|docker|helm|snap)\b", re.MULTILINE
)
_CLUSTER = re.compile(r"kube|k3s|k8s", re.IGNORECASE)
_TARGET = re.compile(r"(/[A-Za-z0-9_.+@-]+)+")


@dataclass(slots=True)
class Files:
    """What is to be written into the puzzle's folder."""

    manifest: dict[str, Any] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    scripts: dict[str, str] = field(default_factory=dict)
    #: Files that are copied, by where to.
    copies: dict[str, Path] = field(default_factory=dict)


def convert(scenario: Scenario, name: str, notes: Notes) -> Files:
    """Make a puzzle called `name` of a scenario."""
    made = Files()
    parts = [scenario.intro, *scenario.steps]
    prose = [converted(part.text) for part in parts]
    _about(scenario, name, made, notes)
    _checks(scenario, made, notes)
    _texts(scenario, prose, made, notes)
    _ports(prose, made, notes)
    _beginning(scenario, made, notes)
    _assets(scenario.assets, made, notes)
    notes.todo("wrong.d", "no wrong fixes there: `bugbox test` wants at least one")
    notes.todo("hints", "no hints there: three steps are a good number")
    return made


def _about(scenario: Scenario, name: str, made: Files, notes: Notes) -> None:
    title = one_line(scenario.title, 190) or name
    made.manifest |= {
        "schema": 1,
        "name": name,
        "title": title,
        "summary": one_line(scenario.description, 190) or title,
    }
    level = _DIFFICULTY.get(scenario.difficulty.strip().lower())
    if level:
        made.manifest["difficulty"] = level
    elif scenario.difficulty:
        notes.lost("index.json", f'difficulty: "{scenario.difficulty}" is none of ours')
    minutes = _MINUTES.fullmatch(scenario.time)
    if minutes:
        made.manifest["estimated_time"] = f"{int(minutes[2] or minutes[1])}m"
    elif scenario.time:
        notes.lost("index.json", f'time: "{scenario.time}" is no number of minutes')
    made.manifest["user"] = {"name": "root"}
    notes.changed("user", "the learner is root, as there")
    image = scenario.image or "unknown"
    if _CLUSTER.search(image):
        notes.lost("index.json", f"backend.imageid: {image}: the base image has no Kubernetes")
    else:
        notes.changed("index.json", f"backend.imageid: {image} becomes debian-12")


def _checks(scenario: Scenario, made: Files, notes: Notes) -> None:
    entries: list[dict[str, Any]] = []
    for n, step in enumerate(scenario.steps, 1):
        if not step.verify.strip():
            continue
        title = one_line(step.title, 150) or f"Step {n}"
        path = f"checks/step-{n}.sh"
        entry: dict[str, Any] = {"id": f"step-{n}", "title": title, "run": path, "timeout": "30s"}
        if entries:
            entry["needs"] = [entries[-1]["id"]]
        entries.append(entry)
        sentence = shlex.quote(f"Not yet: {title}")
        made.scripts[path] = _check(step.verify, f"Step {n}: {title}", sentence)
        _read(step.verify, path, notes)
        notes.todo(path, "its sentence says that it fails, and not why: the original says neither")
    if not entries:
        entries.append({"id": "todo", "title": "It is solved", "run": "checks/todo.sh"})
        made.scripts["checks/todo.sh"] = '#!/bin/sh\nfail "Nobody has written this check yet."\n'
        notes.todo("checks/todo.sh", "the scenario verifies nothing: write a check")
    made.manifest["checks"] = entries


def _texts(scenario: Scenario, prose: list[Prose], made: Files, notes: Notes) -> None:
    titles = [part.title for part in (scenario.intro, *scenario.steps)]
    story = "\n\n".join(
        _section(title, part.text) for title, part in zip(titles, prose, strict=True)
    )
    made.texts["description.md"] = story.strip() or made.manifest["summary"]
    walk = [_section(t, part.folded) for t, part in zip(titles, prose, strict=True) if part.folded]
    if walk:
        made.texts["solution.md"] = "\n\n".join(walk)
        notes.changed("solution.md", "what was folded away in <details> lies here")
    commands = [block for part in prose for block in part.commands]
    if commands:
        head = "#!/bin/bash\n# From the code that was folded away in the steps.\nset -e\n"
        made.scripts["solve.sh"] = head + "\n".join(commands) + "\n"
        notes.todo("solve.sh", "made of the code in <details>: does it solve the puzzle?")
    else:
        notes.todo("solve.sh", "no solution found in the steps: write one")
    end = converted(scenario.finish.text).text
    if end:
        made.texts["debrief.md"] = end
    if any(part.pictures for part in prose):
        notes.lost("description.md", "pictures: a terminal shows none")
    if any(part.actions for part in prose):
        notes.changed("description.md", "{{exec}} and {{copy}}: commands are text, to be typed")


def _section(title: str, text: str) -> str:
    heading = one_line(title, 190)
    return f"## {heading}\n\n{text}".strip() if heading and text else text


def _ports(prose: list[Prose], made: Files, notes: Notes) -> None:
    ports = sorted({port for part in prose for port in part.ports})[:32]
    if ports:
        made.manifest["ports"] = [
            {"name": f"port-{port}", "port": port, "protocol": "http", "show": True}
            for port in ports
        ]
        notes.changed("ports", "links to the machine's ports: `bugbox forward` opens them")


def _beginning(scenario: Scenario, made: Files, notes: Notes) -> None:
    """What ran at the scenario's start runs once in each machine; what ran at a step, never."""
    intro = scenario.intro
    setup = [(what, getattr(intro, what)) for what in ("background", "foreground")]
    texts = [text for _, text in setup if text.strip()]
    for what, text in setup:
        if text.strip():
            _read(text, f"the intro's {what} script", notes)
    if texts:
        again = ["#!/bin/sh"]
        for text in texts:
            again.append(_body(text))
        again += ["# Nobody looked there how it ended.", "true"]
        made.scripts["break.sh"] = "\n".join(again) + "\n"
        notes.changed("break.sh", "the intro's scripts run once, before the machine is handed over")
        notes.todo("break.sh", "what only lays files down is quicker in build.sh")
    for n, step in enumerate(scenario.steps, 1):
        for what in ("background", "foreground"):
            if getattr(step, what).strip():
                notes.lost(f"step {n}", f"its {what} script: all is set up before the start here")


def _assets(assets: tuple[Asset, ...], made: Files, notes: Notes) -> None:
    lines = []
    for n, asset in enumerate(assets, 1):
        name = asset.source.name
        goal = f"{asset.target.rstrip('/')}/{name}"
        if not _TARGET.fullmatch(goal) or {".", ".."} & {*goal.split("/")}:
            notes.lost(f"assets/{name}", f"its name or its folder {asset.target} is too odd")
            continue
        held = f"files/assets/{n}-{name}"
        made.copies[held] = asset.source
        mode = "755" if asset.run else "644"
        lines.append(f"install -D -m {mode} {shlex.quote(held)} {shlex.quote(goal)}")
    if lines:
        head = ["#!/bin/sh", "# What lay in the machine when the scenario began.", "set -eu"]
        made.scripts["build.sh"] = "\n".join([*head, *lines]) + "\n"


def _read(script: str, where: str, notes: Notes) -> None:
    """Note what in a script will not do here."""
    found = sorted(set(_NETWORK.findall(script)))
    if found:
        notes.lost(where, f"uses {', '.join(found)}: neither build nor machine reaches a network")
    if _CLUSTER.search(script):
        notes.lost(where, "speaks to Kubernetes, which is not there")
    if _interpreter(script) not in ("/bin/bash",):
        notes.changed(where, f"is run by {_interpreter(script)}, which the base image may not have")


def _interpreter(script: str) -> str:
    first = script.split("\n", 1)[0]
    words = first[2:].split() if first.startswith("#!") else []
    name = words[1] if len(words) > 1 and words[0].endswith("/env") else (words or ["/bin/bash"])[0]
    plain = name.rpartition("/")[2]
    if plain in _SHELLS or not re.fullmatch(r"[A-Za-z0-9_.+-]{1,40}", plain):
        return "/bin/bash"
    return f"/usr/bin/{plain}"


def _check(script: str, about: str, sentence: str) -> str:
    body = _body(script, f">/dev/null 2>&1 || fail {sentence}")
    return f"#!/bin/sh\n# {about}. Imported: its own verify script decides.\n{body}\n"


def _body(script: str, ending: str = "") -> str:
    """Let the guest's own interpreter read a script from a here-document.

    Not from its standard input, which stays empty as it was; and no file of it lies in the guest.
    """
    shell = _interpreter(script)
    end = _END
    while end in script:
        end += "_"
    head = f"[ -x {shell} ] || exit 127\n{shell} /proc/self/fd/9 9<<'{end}' </dev/null {ending}"
    return "\n".join([head.rstrip(), *script.rstrip("\n").split("\n"), end])
