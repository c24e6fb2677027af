# SPDX-License-Identifier: Apache-2.0
"""Linters and types: the tools say what they think of the whole tree."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def tool(*argv: str) -> None:
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def tracked(*patterns: str) -> list[str]:
    done = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "--", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return [line for line in done.stdout.splitlines() if (ROOT / line).is_file()]


def test_ruff_check() -> None:
    tool(sys.executable, "-m", "ruff", "check", ".")


def test_ruff_format() -> None:
    tool(sys.executable, "-m", "ruff", "format", "--check", ".")


def test_mypy() -> None:
    tool(sys.executable, "-m", "mypy")


def test_spelling() -> None:
    files = [f for f in tracked() if not f.startswith(("requirements/", "LICENSE"))]
    # Recorded logs are spelt as the machines spelt them.
    files = [file for file in files if not file.startswith("tests/data/")]
    tool(sys.executable, "-m", "codespell_lib", "--ignore-words", "tests/style/words.txt", *files)


def shell_scripts() -> list[str]:
    found = []
    for file in tracked():
        with (ROOT / file).open("rb") as script:
            first = script.readline()
        if re.match(rb"#!\s*/(usr/)?bin/(env )?(ba|da)?sh\b", first):
            found.append(file)
    return found


def test_shellcheck() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed (make test installs it)")
    scripts = shell_scripts()
    assert ".ci/run" in scripts and "tools/setup" in scripts
    # SC2034: a loop's counter that is only counted.
    tool("shellcheck", "--severity=warning", "--exclude=SC2034", *scripts)


def test_lock_files_name_no_index() -> None:
    for lock in ("requirements/runtime.txt", "requirements/dev.txt"):
        text = (ROOT / lock).read_text()
        assert "://" not in text and "index-url" not in text, lock
        pins = re.findall(r"^([a-z0-9._-]+)(?:\[[a-z,]+\])?==", text, re.M)
        assert pins and text.count("--hash=sha256:") >= len(pins), lock


def test_lock_covers_pyproject() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    wanted = re.search(r"^dependencies = \[(.*?)^\]", project, re.M | re.S)
    assert wanted
    lock = (ROOT / "requirements/runtime.txt").read_text()
    for package in re.findall(r'"([A-Za-z0-9._-]+)[><=]', wanted.group(1)):
        assert re.search(rf"^{re.escape(package.replace('.', '-'))}==|^{package}==", lock, re.M), (
            f"{package} is not in requirements/runtime.txt: run `make lock`"
        )


def test_every_source_says_its_licence() -> None:
    for file in tracked("*.py", "*.c", "*.h", "Makefile", "**/Makefile", "tools/*"):
        head = (ROOT / file).read_text()[:400]
        assert "SPDX-License-Identifier: Apache-2.0" in head, file
