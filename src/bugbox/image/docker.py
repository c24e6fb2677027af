# SPDX-License-Identifier: Apache-2.0
"""A container engine, by its command line: our base image in it, and containers to build in.

`docker` is asked for what any engine can do, whatever its storage driver: import, create, start,
exec, rm. Podman's own command answers to the same words. Which engine that is, DOCKER_HOST says.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from bugbox.errors import CommandFailed, HostError, MissingPrivilege
from bugbox.events import step
from bugbox.host import proc
from bugbox.image.rootfs import BuiltImage
from bugbox.paths import DATA, Home
from bugbox.storage import file

__all__ = ["FROM_BUNDLE", "Engine", "local"]

#: In the folder of an image that came in a bundle: nobody here saw it being made.
FROM_BUNDLE = "from-bundle"
_TIMEOUT = 120.0
_IMPORT_TIMEOUT = 900.0
_KEPT = ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY")


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One engine, as the environment named it."""

    env: dict[str, str]

    def require(self) -> None:
        """Raise HostError when there is no engine to talk to."""
        try:
            self._run("version", "--format", "{{.Server.Version}}", timeout=30)
        except CommandFailed as error:
            raise HostError(
                "no container engine answers",
                hint="start Docker, or build without --builder docker",
                detail=error.stderr,
            ) from error

    def ensure_base(self, home: Home, image: BuiltImage) -> str:
        """Return the name of our base image in the engine; import it when it is not there."""
        name = f"bugbox/{image.name}:{image.digest[:16]}"
        with file.locked(home.tmp / ".docker-base.lock", waiting="another bugbox imports the base"):
            if self._run("image", "inspect", name, ok=(0, 1)).status == 0:
                return name
            if os.geteuid() != 0:
                raise MissingPrivilege(
                    "the first build with Docker reads the base image as root",
                    hint="run it once as root, or build without --builder docker",
                )
            if (image.folder / FROM_BUNDLE).exists():
                raise HostError(
                    f"{image.name} came in a bundle, and this host mounts no disk made elsewhere",
                    hint="bugbox image rm it and build it here, or leave --builder docker out",
                )
            with step("Import the base image"):
                self._import(home, image, name)
        return name

    def _import(self, home: Home, image: BuiltImage, name: str) -> None:
        # Ours, made by mke2fs on this host: no guest has ever written it, so it may be mounted.
        with file.workspace(home.tmp, "docker") as work:
            tar = work / "base.tar"
            script = DATA / "image" / "docker-base.sh"
            argv: list[str | Path] = ["unshare", "--mount", "--", "/bin/bash"]
            argv += [script, image.rootfs, work, tar]
            proc.run(argv, timeout=_IMPORT_TIMEOUT)
            self._run("import", str(tar), name, timeout=_IMPORT_TIMEOUT)

    def create(self, name: str, image: str, label: str) -> None:
        """Make and start a container that does nothing, for a build."""
        # fmt: off
        self._run(
            "create", "--name", name, "--label", f"bugbox={label}", "--network", "none",
            "--cap-add", "SYS_ADMIN", "--cap-add", "LINUX_IMMUTABLE",
            "--security-opt", "apparmor=unconfined",
            "--tmpfs", "/run:exec,mode=755", "--tmpfs", "/tmp:exec,mode=1777",
            "--tmpfs", "/puzzle:exec,mode=755",
            "--entrypoint", "/bin/sleep", image, "infinity",
        )
        # fmt: on
        self._run("start", name)

    def remove(self, name: str) -> None:
        """Remove a container with all in it; nothing happens when there is none."""
        self._run("rm", "--force", "--volumes", name, ok=(0, 1))
        left = self._run("ps", "--all", "--quiet", "--filter", f"name=^/?{name}$").stdout
        if left.strip():
            raise HostError(f"the container {name} cannot be removed", hint=f"docker rm -f {name}")

    @contextmanager
    def reading(
        self, name: str, argv: Sequence[str], *, timeout: float, source: IO[bytes] | None = None
    ) -> Iterator[IO[bytes]]:
        """Run a command in a container; yield its output as it comes. See proc.reading."""
        command = ["docker", "exec", "--interactive", name, *argv]
        with Path(os.devnull).open("rb") as nothing:
            given = source or nothing
            with proc.reading(command, source=given, timeout=timeout, env=self.env) as out:
                yield out

    def _run(
        self, *words: str, ok: tuple[int, ...] = (0,), timeout: float = _TIMEOUT
    ) -> proc.Completed:
        return proc.run(["docker", *words], timeout=timeout, ok=ok, env=self.env)


def local() -> Engine:
    """Return the engine that the environment means."""
    return Engine(env={name: os.environ[name] for name in _KEPT if os.environ.get(name)})
