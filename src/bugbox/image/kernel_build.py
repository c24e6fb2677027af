# SPDX-License-Identifier: Apache-2.0
"""Build a kernel of our own: Debian's source, one of our profiles, nothing as a module.

The result lies in the store like Debian's kernel and is booted the same way. It is named by what
it was made from: the profile's text, the source's version and the compiler. The build is the same
every time: no time, no name of a host or person goes in.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path

from bugbox.config import Settings
from bugbox.errors import BuildFailed, CommandFailed, HostError, MissingTool, NotFound
from bugbox.events import progress, step
from bugbox.host import proc
from bugbox.image import debian, digest, kconfig, vmlinux
from bugbox.image.kconfig import Option
from bugbox.image.kernel import FORMAT, SUITE, BuiltKernel, built, identity
from bugbox.paths import DATA, Home
from bugbox.storage import file

__all__ = ["PROFILES", "build", "find", "options"]

PROFILES = ("fast", "debug")
#: Raise it when the same profile and source make another kernel.
_BUILDER = 2
_SOURCE = "linux-source+"
_NEEDS = 5 << 30
_TIMEOUT = 3 * 3600.0
#: What we add to the source: a file of our own, and where it goes.
_OURS = "lapic.c"
_PLACE = Path("arch/x86/kernel/apic")
#: `proc.PACKAGES` knows the package of each.
_TOOLS = ("make", "gcc", "ld", "flex", "bison", "bc", "xz")
_LIBELF = (Path("/usr/include/libelf.h"), Path("/usr/include/gelf.h"))
#: Compiled files of a build so far, about: for the progress, no more.
_FILES_ABOUT = 2100


def options(profile: str) -> tuple[Option, ...]:
    """Return a profile's options; NotFound for one that there is not."""
    if profile not in PROFILES:
        raise NotFound(f"no profile {profile}", hint=f"one of {', '.join(PROFILES)}")
    return kconfig.parse_profile(profile, _ours)


def _ours(name: str) -> str:
    return (DATA / "image" / "kernels" / name).read_text()


def find(home: Home, profile: str) -> BuiltKernel | None:
    """Return the newest kernel that this profile, as it is now, has made."""
    wanted = _profile_digest(profile)
    found = [kernel for kernel in built(home) if kernel.profile_digest == wanted]
    return found[-1] if found else None


def build(home: Home, settings: Settings, profile: str, *, jobs: int | None = None) -> BuiltKernel:
    """Build a profile's kernel from Debian's newest source. The caller holds the store's lock."""
    wished = options(profile)
    _check_tools()
    file.require_free(home.tmp, _NEEDS, "a kernel's source and objects")
    with file.workspace(home.tmp, "kernel-build") as work:
        with step("Fetch Debian's kernel source"):
            names = [_SOURCE, "busybox-static"]
            packages = debian.fetch(names, suite=SUITE, mirror=settings.debian_mirror, work=work)
            identities = tuple(identity(path) for path in packages)
        name = _digest(profile, identities)
        present = [kernel for kernel in built(home) if kernel.digest == name]
        if present:
            return present[-1]
        with step("Unpack it"):
            source, unpacked = _unpack(packages, work)
            _add_ours(source)
        with step(f"Build the {profile} kernel ({len(wished)} options named)"):
            objects = work / "objects"
            config = _configure(source, objects, wished, work)
            _make(source, objects, jobs or os.cpu_count() or 1)
        made = work / "kernel"
        release = _arrange(objects, unpacked, made, source)
        facts = {
            "format": FORMAT,
            "digest": name,
            "release": release,
            "packages": identities,
            "profile": profile,
            "profile_digest": _profile_digest(profile),
            "options": len([v for v in config.values() if v == "y"]),
            "compiler": _compiler(),
        }
        file.write(made / "manifest.json", json.dumps(facts, indent=2).encode())
        final = home.kernels / f"{release}-{name[: digest.SHORT]}"
        file.publish(made, final)
    return BuiltKernel(
        digest=name, folder=final, release=release, packages=identities, profile=profile,
        profile_digest=_profile_digest(profile),
    )  # fmt: skip


def _check_tools() -> None:
    """Raise HostError with one line that brings all that is missing."""
    missing: dict[str, str] = {}
    for tool in _TOOLS:
        try:
            proc.find(tool)
        except MissingTool:
            missing[tool] = proc.PACKAGES[tool]
    if not any(path.exists() for path in _LIBELF):
        missing["libelf's headers"] = "libelf-dev"
    if missing:
        raise HostError(
            f"this host lacks what a kernel is built with: {', '.join(missing)}",
            hint=f"apt-get install {' '.join(dict.fromkeys(missing.values()))}",
        )


def _profile_digest(profile: str) -> str:
    parts = {
        "builder": str(_BUILDER),
        "options": kconfig.fragment(options(profile)),
        "added": _ours(_OURS),
    }
    return digest.of(parts)


def _digest(profile: str, packages: tuple[str, ...]) -> str:
    parts = {
        "profile": _profile_digest(profile),
        "packages": "\n".join(packages),
        "compiler": _compiler(),
    }
    return digest.of(parts)


def _compiler() -> str:
    first = proc.run(["gcc", "--version"], timeout=60).stdout.decode(errors="replace")
    return first.splitlines()[0] if first else ""


def _unpack(packages: list[Path], work: Path) -> tuple[Path, Path]:
    """Return the source's folder and where the other package lies unpacked."""
    unpacked = work / "unpacked"
    for package in packages:
        proc.run(["dpkg-deb", "-x", package, unpacked], timeout=600)
        package.unlink()
    archives = sorted(unpacked.glob("usr/src/linux-source-*.tar.xz"))
    if len(archives) != 1:
        raise BuildFailed(f"the source's package holds {len(archives)} archives")
    into = work / "source"
    into.mkdir()
    # The package's signature was checked; still nothing is taken from it but plain content.
    proc.run(
        ["tar", "-xf", archives[0], "--no-same-owner", "--strip-components=1", "-C", into],
        timeout=1800,
    )
    archives[0].unlink()
    return into, unpacked


def _add_ours(source: Path) -> None:
    """Put our file beside the kernel's own; nothing of those is changed."""
    (source / _PLACE / f"bugbox-{_OURS}").write_text(_ours(_OURS))
    with (source / _PLACE / "Makefile").open("a") as makefile:
        makefile.write(f"\nobj-y += bugbox-{Path(_OURS).stem}.o\n")


def _env() -> dict[str, str]:
    # The kernel's version line names a builder, a host and a time: the same ones for everybody.
    return {
        "KBUILD_BUILD_TIMESTAMP": "1970-01-01",
        "KBUILD_BUILD_USER": "bugbox",
        "KBUILD_BUILD_HOST": "bugbox",
        "KBUILD_BUILD_VERSION": "1",
        "LC_ALL": "C",
    }


def _configure(
    source: Path, objects: Path, wished: tuple[Option, ...], work: Path
) -> dict[str, str]:
    wanted = work / "wanted.config"
    wanted.write_text(kconfig.fragment(wished))
    objects.mkdir()
    env = {**_env(), "KCONFIG_ALLCONFIG": str(wanted)}
    command: list[str | Path] = ["make", "-s", "-C", source, f"O={objects}", "allnoconfig"]
    try:
        proc.run(command, timeout=600, env=env)
    except CommandFailed as error:
        raise BuildFailed("the kernel cannot be configured", detail=error.stderr[-4000:]) from error
    config = kconfig.parse_config((objects / ".config").read_text())
    wrong = kconfig.differences(wished, config)
    if wrong:
        raise BuildFailed(
            "this source does not take the profile as it is", detail="\n".join(wrong),
            hint="an option was renamed, or needs another one that is off",
        )  # fmt: skip
    return config


def _make(source: Path, objects: Path, jobs: int) -> None:
    log = objects / "build.log"
    command: list[str | Path] = ["make", "-C", source, f"O={objects}", f"-j{jobs}", "vmlinux"]
    # Nobody waits at a screen for this: machines that run meanwhile go first.
    polite = ["nice", "-n", "10", *command]
    with _watched(log), log.open("wb") as output:
        try:
            proc.run(polite, timeout=_TIMEOUT, env=_env(), stdout=output)
        except CommandFailed as error:
            raise BuildFailed(
                "the kernel did not compile", detail=error.stderr[-4000:],
                hint=_why(error.stderr),
            ) from error  # fmt: skip


def _why(stderr: str) -> str | None:
    return "the disk that holds BUGBOX_HOME is full" if "No space left" in stderr else None


@contextmanager
def _watched(log: Path) -> Iterator[None]:
    """Tell how far the build is while the block runs."""
    done = threading.Event()
    watcher = threading.Thread(target=copy_context().run, args=(_watch, log, done), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _watch(log: Path, done: threading.Event) -> None:
    told = -1
    while not done.wait(2.0):
        try:
            count = log.read_bytes().count(b"\n  CC ")
        except OSError:
            continue
        if count != told:
            progress("compiling", count, max(_FILES_ABOUT, count + 1), "files")
            told = count


def _strip(kernel: Path) -> None:
    # Symbols stay in System.map and in /proc/kallsyms.
    proc.run(["strip", "--strip-all", kernel], timeout=300)


def _arrange(objects: Path, unpacked: Path, made: Path, source: Path) -> str:
    """Pick what we keep; return the kernel's release."""
    made.mkdir()
    release = (objects / "include/config/kernel.release").read_text().strip()
    kernel = objects / "vmlinux"
    shutil.copyfile(kernel, made / "vmlinux")
    _strip(made / "vmlinux")
    if vmlinux.pvh_entry((made / "vmlinux").read_bytes()) is None:
        raise BuildFailed(f"kernel {release} cannot be booted directly: it has no PVH note")
    shutil.copyfile(objects / "System.map", made / "System.map")
    shutil.copyfile(objects / ".config", made / "config")
    # Nothing is a module; the folder is there for whoever looks into it.
    (made / "modules").mkdir()
    busybox = next(
        p for p in (unpacked / "usr/bin/busybox", unpacked / "bin/busybox") if p.exists()
    )
    busybox.rename(made / "busybox")
    return release
