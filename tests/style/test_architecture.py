# SPDX-License-Identifier: Apache-2.0
"""The import rules of docs/architecture.md, read from the code itself."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
MODULES = sorted((SOURCE / "bugbox").rglob("*.py"))
ALL = {p.relative_to(SOURCE).with_suffix("").as_posix().replace("/", ".") for p in MODULES}

#: Lowest first. A module may import from its own folder and from lower layers; never a sibling.
LAYERS = (
    {"__init__"},
    {"errors"},
    {"descriptor", "events", "paths"},
    {"config"},
    {"host"},
    {"storage", "network"},
    {"puzzle", "machine", "image", "boottime"},
    {"session"},
    {"keeper"},
    {"cli", "server"},
    {"__main__"},
)
#: Third-party or standard modules that only one of our modules may import.
ONLY_IN = {
    "subprocess": {"host/proc.py"},
    "ctypes": {"host/libc.py"},
    "qemu": {"machine/qemu/monitor.py"},
    "httpx2": {"machine/firecracker/api.py"},
    "ruamel": {"puzzle/yaml_source.py"},
    "pyroute2": {"network/netlink.py"},
}
#: Values and functions of values: no files, no processes, no network, no clock.
PURE = {
    "machine/spec.py",
    "machine/state.py",
    "machine/cmdline.py",
    "machine/verdict.py",
    "machine/qemu/cmdline.py",
    *(f"machine/firecracker/{n}.py" for n in ("config", "model", "version")),
    "machine/lifeline/wire.py",
    "image/recipe.py",
    "image/digest.py",
    *(f"boottime/{n}.py" for n in ("kmsg", "initcall", "systemd", "timeline", "rule", "advice")),
    *("boottime/report.py", "boottime/svg.py"),
}
IMPURE = {"os", "socket", "subprocess", "shutil", "tempfile", "asyncio", "anyio", "time", "fcntl"}


def name(path: Path) -> str:
    return path.relative_to(SOURCE / "bugbox").as_posix()


def area(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def layer(place: str) -> int:
    return next(number for number, places in enumerate(LAYERS) if place in places)


def imported(path: Path) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)}:{node.lineno}: relative import"
            module = node.module or ""
            named = [f"{module}.{alias.name}" for alias in node.names]
            modules = [(node.lineno, one) for one in named if one in ALL]
            found += modules or [(node.lineno, module)]
    return found


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_imports_point_down(path: Path) -> None:
    own = path.relative_to(SOURCE / "bugbox").parts[0].removesuffix(".py")
    for line, module in imported(path):
        if module.split(".")[0] != "bugbox":
            continue
        other = area(module)
        if other in (own, "__init__") or module == "bugbox.__version__":
            continue
        assert layer(other) < layer(own), f"{name(path)}:{line}: {own} may not import {other}"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_one_border_a_library(path: Path) -> None:
    for line, module in imported(path):
        homes = ONLY_IN.get(module.split(".")[0])
        assert homes is None or name(path) in homes, (
            f"{name(path)}:{line}: only {', '.join(homes)} may import {module}"
        )


@pytest.mark.parametrize("path", [p for p in MODULES if name(p) in PURE], ids=name)
def test_pure_modules_touch_nothing(path: Path) -> None:
    for line, module in imported(path):
        assert module.split(".")[0] not in IMPURE, f"{name(path)}:{line}: {module} in a pure module"


def test_only_provision_joins_the_parts() -> None:
    """Disk, record and driver meet in session/provision.py: nobody else makes a session's disk.

    session/chain.py lays images over those of a running machine.
    """
    joiners = {
        name(path)
        for path in MODULES
        if "bugbox.machine.spec" in (modules := {m for _, m in imported(path)})
        and any(module.startswith("bugbox.storage.disk") for module in modules)
    }
    known = {"session/provision.py", "session/build_machine.py", "session/chain.py"}
    assert joiners <= known, joiners


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_module_has_a_head_and_a_size(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("# SPDX-License-Identifier: Apache-2.0\n")
    assert ast.get_docstring(ast.parse(text)), f"{name(path)}: no module docstring"
    assert len(text.splitlines()) < 800, f"{name(path)}: split it"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_no_exit_or_print_below_the_command_line(path: Path) -> None:
    if name(path).split("/")[0] in ("cli", "__main__.py"):
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            call = ast.unparse(node.func)
            assert call not in ("print", "sys.exit", "exit"), f"{name(path)}:{node.lineno}: {call}"


#: From the command to QEMU's options: file, the function one comes in by, what it goes on to.
PATH = (
    ("cli/start.py", "begin", "ask"),
    ("session/manager.py", "_start", "provision"),
    ("session/provision.py", "provision", "boot"),
    ("machine/qemu/driver.py", "boot", "launch"),
    ("machine/qemu/launch.py", "launch", "arguments"),
    ("machine/qemu/cmdline.py", "arguments", "_sandbox"),
)


def words(file: str) -> tuple[set[str], set[str]]:
    """Return the functions a file defines; and every name, attribute and text it uses."""
    defined, used = set(), set()
    for node in ast.walk(ast.parse((SOURCE / "bugbox" / file).read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            defined.add(node.name)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            used.add(node.value)
        else:
            used |= {getattr(node, key, "") for key in ("id", "attr")}
    return defined, used


def test_the_path_from_start_to_the_argv() -> None:
    """The newcomer's test: three hops from the main path, two more from the command.

    Between the first two lies the wire to the keeper, which carries any verb by its name.
    """
    for file, function, calls in PATH:
        defined, used = words(file)
        assert function in defined, f"{file} has no {function}"
        assert calls in used, f"{file} does not go on to {calls}"
    assert "start" in words("cli/start.py")[1]
    assert {"start", "_start"} <= words("session/manager.py")[1]
    files = [file for file, _, _ in PATH]
    assert files.index("machine/qemu/cmdline.py") - files.index("session/provision.py") <= 3
    page = (SOURCE.parent / "docs/architecture.md").read_text()
    (told,) = (line for line in page.splitlines() if line.startswith("`cli/start.py` →"))
    assert [part.strip("` ") for part in told.split("→")] == files
