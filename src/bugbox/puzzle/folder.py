# SPDX-License-Identifier: Apache-2.0
"""Read a puzzle's files, and only its own: nothing outside the folder, nothing special, bounded.

Each method returns what it read, or notes a problem and returns None (or an empty text).
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from bugbox.puzzle.keys import path_trouble
from bugbox.puzzle.problem import Loc, Position, Problem
from bugbox.puzzle.script import Script
from bugbox.puzzle.yaml_source import Source

__all__ = ["MAX_SCRIPT", "MAX_TEXT", "Folder"]

#: An injected script travels in one frame of the lifeline's protocol, with its fields.
MAX_SCRIPT = 48 << 10
MAX_TEXT = 64 << 10
#: build.sh goes to the build machine as a file.
MAX_BUILD = 1 << 20
_MAX_LISTED = 64


class _Refused(Exception):
    """Why a file is not read."""


class Folder:
    """One puzzle's folder while it is being read."""

    def __init__(self, root: Path, source: Source) -> None:
        self.root = root
        self.source = source
        self.problems: list[Problem] = []

    def script(self, name: str, loc: Loc = (), *, limit: int = MAX_SCRIPT) -> Script | None:
        """Read a script that must be there. `loc` is the key that names it, if one does."""
        data = self.data(name, loc, limit)
        if data is None:
            return None
        file = self.root / name
        if b"\0" in data:
            self._note(name, loc, "not a script: it holds a NUL byte")
        elif not file.stat().st_mode & 0o111:
            self._note(name, loc, f"it has no run bit: chmod +x {file}")
        return Script(name=name, file=file, text=data)

    def script_if_there(self, name: str, *, limit: int = MAX_SCRIPT) -> Script | None:
        """Read a script that goes by its usual name."""
        return self.script(name, limit=limit) if self._exists(name) else None

    def scripts(self, folder: str) -> tuple[Script, ...]:
        """Read all scripts of a folder that need not be there, in order."""
        found = [self.script(name) for name in self.listed(folder, ".sh")]
        return tuple(script for script in found if script is not None)

    def text(self, name: str, loc: Loc = ()) -> str:
        """Read a text that must be there."""
        data = self.data(name, loc, MAX_TEXT)
        if data is None:
            return ""
        if not data.strip():
            self._note(name, loc, "it is empty")
        try:
            return data.decode("utf-8-sig").replace("\r\n", "\n")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            column = error.start - data.rfind(b"\n", 0, error.start)
            message = f"not UTF-8: byte 0x{data[error.start]:02x}"
            self.problems.append(Problem.at(self.root / name, Position(line, column), (), message))
            return ""

    def text_if_there(self, name: str) -> str:
        """Read a text that goes by its usual name."""
        return self.text(name) if self._exists(name) else ""

    def listed(self, folder: str, ending: str) -> list[str]:
        """Return the names in a folder that have the ending: 2.md before 10.md."""
        if not self._exists(folder):
            return []
        try:
            names = sorted(os.listdir(self._inside(folder)), key=_natural)  # noqa: PTH208
        except NotADirectoryError:
            self._note(folder, (), "expected a folder")
            return []
        except (_Refused, OSError) as error:
            self._note(folder, (), str(error))
            return []
        wanted = [f"{folder}/{name}" for name in names if name.endswith(ending) and name[0] != "."]
        if len(wanted) > _MAX_LISTED:
            self._note(folder, (), f"more than {_MAX_LISTED} files")
        return wanted[:_MAX_LISTED]

    def files(self, folder: str = "files", loc: Loc = ()) -> Path | None:
        """Look through what a build gets: links that lead out and special files are refused.

        `loc` is the key that names the folder; without one it need not be there.
        """
        if not loc and not self._exists(folder):
            return None
        top = self.root / folder
        if top.is_symlink() or not top.is_dir():
            self._note(folder, loc, "expected a folder")
            return None
        for where, folders, names in os.walk(top):
            for name in (*folders, *names):
                self._file(Path(where) / name)
        return top

    def _file(self, path: Path) -> None:
        mode = path.lstat().st_mode
        name = str(path.relative_to(self.root))
        if stat.S_ISLNK(mode):
            target = os.readlink(path)  # noqa: PTH115
            goal = os.path.normpath(path.parent / target)
            top = name.partition("/")[0]
            if top != "files":
                self._note(name, (), "a symbolic link; only files/ may hold one")
            elif target.startswith("/") or not Path(goal).is_relative_to(self.root / top):
                self._note(name, (), "a symbolic link that leaves files/; make it in build.sh")
        elif not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            self._note(name, (), "neither a file nor a folder")

    def _exists(self, name: str) -> bool:
        return os.path.lexists(self.root / name)

    def data(self, name: str, loc: Loc, limit: int) -> bytes | None:
        """Read a file that must be there, whatever it holds."""
        if path_trouble(name):
            return None  # the manifest's types have said so
        try:
            return self._read(name, limit)
        except _Refused as refused:
            self._note(name, loc, str(refused))
        except OSError as error:
            self._note(name, loc, f"cannot be read: {error.strerror}")
        return None

    def _read(self, name: str, limit: int) -> bytes:
        # Without O_NONBLOCK, opening a FIFO would wait for its writer.
        descriptor = os.open(self._inside(name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                kind = "a folder" if stat.S_ISDIR(mode) else "a special file"
                raise _Refused(f"{kind}, not a regular file")
            data = b""
            while len(data) <= limit and (more := os.read(descriptor, limit + 1 - len(data))):
                data += more
        finally:
            os.close(descriptor)
        if len(data) > limit:
            raise _Refused(f"larger than {limit >> 10} KiB")
        return data

    def _inside(self, name: str) -> Path:
        """Return the real path, when it is in the folder."""
        try:
            real = (self.root / name).resolve(strict=True)
        except FileNotFoundError:
            link = (self.root / name).is_symlink()
            where = "a symbolic link to nowhere" if link else f"no such file in {self.root}"
            raise _Refused(where) from None
        except RuntimeError:
            raise _Refused("a loop of symbolic links") from None
        if not real.is_relative_to(self.root):
            raise _Refused("a symbolic link that leaves the puzzle's folder")
        return real

    def _note(self, name: str, loc: Loc, message: str) -> None:
        if loc:
            self.problems.append(self.source.problem(loc, f"{name}: {message}"))
        else:
            place = Position(1, 1)
            self.problems.append(Problem.at(self.root / name, place, (), message))


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key: numbers in a name count as numbers."""
    parts = re.split(r"([0-9]+)", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
