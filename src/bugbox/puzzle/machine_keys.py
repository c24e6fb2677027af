# SPDX-License-Identifier: Apache-2.0
"""The keys of puzzle.yaml of the machine: what it is, how its layer is made, how it comes up."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from bugbox.puzzle.keys import (
    DURATION,
    SIZE,
    Count,
    DiskName,
    Flag,
    FolderName,
    GuestPath,
    MkfsWord,
    Model,
    RelativePath,
    SudoCommand,
    UserName,
    between,
    key,
    lasting,
    limited,
    one_of,
    problem,
    sized,
)
from bugbox.puzzle.quantity import format_duration, format_size
from bugbox.puzzle.units import SERVICES

__all__ = ["BOOT_TIMEOUT", "KEPT", "Boot", "Build", "ExtraDisk", "Machine", "User"]

_MEMORY = (128 << 20, 16 << 30)
_DISK = (1 << 30, 64 << 30)
_EXTRA = (1 << 20, 16 << 30)
#: Seconds that a boot may be given.
BOOT_TIMEOUT = (1, 1800)
_BUILD_TIMEOUT = (1, 7200)
_VCPUS = (1, 8)
#: What a build leaves behind and no layer holds, unless it is asked for.
KEPT = (
    "/etc/machine-id",
    "/etc/ssh/ssh_host_*",
    "/var/lib/apt/lists",
    "/var/lib/dbus/machine-id",
    "/var/lib/systemd/random-seed",
    "/var/log/journal",
)
Kept = Annotated[str, one_of(KEPT)]
Service = Annotated[str, one_of(tuple(SERVICES))]


class ExtraDisk(Model):
    """A further block device."""

    name: DiskName = key("slug", "Its name, and its filesystem's label.", reader="session")
    size: Annotated[int, sized(*_EXTRA), SIZE] = key(
        f"size, {between(*_EXTRA, format_size)}", "Its size.", reader="session"
    )
    fs: Literal["ext2", "ext3", "ext4"] | None = key(
        "`ext2`, `ext3` or `ext4`",
        "Its filesystem; without, it is empty.",
        reader="session",
        default=None,
    )
    mkfs: Annotated[tuple[MkfsWord, ...], Field(max_length=14)] = key(
        "list of text", 'Options of mke2fs, such as `[-N, "64"]`.', reader="session", default=()
    )
    mount: GuestPath | None = key(
        "path",
        "Where the guest mounts it at boot; a line of its /etc/fstab.",
        reader="build",
        default=None,
    )

    @model_validator(mode="after")
    def _options_of_something(self) -> ExtraDisk:
        if self.mkfs and self.fs is None:
            raise problem("expected", "fs beside mkfs")
        if self.mount and self.fs is None:
            raise problem("expected", "fs beside mount")
        return self


class Machine(Model):
    """The virtual machine."""

    vcpus: Annotated[Count, limited(*_VCPUS)] = key(
        between(*_VCPUS), "Virtual CPUs.", reader="session", default=1
    )
    memory: Annotated[int, sized(*_MEMORY), SIZE] = key(
        f"size, {between(*_MEMORY, format_size)}",
        "Memory.",
        reader="session",
        default=256 << 20,
        shown="256MiB",
    )
    disk: Annotated[int, sized(*_DISK), SIZE] = key(
        f"size, {between(*_DISK, format_size)}",
        "Size of the root filesystem's disk.",
        reader="session",
        default=2 << 30,
        shown="2GiB",
    )
    disks: Annotated[tuple[ExtraDisk, ...], Field(max_length=8)] = key(
        "list, up to 8", "Further disks: /dev/vdb is the first.", reader="session", default=()
    )


class Build(Model):
    """How the layer is made."""

    script: RelativePath | None = key(
        "path", "Makes the layer.", reader="build", default=None, shown="build.sh, if there"
    )
    timeout: Annotated[float, lasting(*_BUILD_TIMEOUT), DURATION] = key(
        f"duration, {between(*_BUILD_TIMEOUT, format_duration)}",
        "How long the script may take.",
        reader="build",
        default=300.0,
        shown="5m",
    )
    network: Flag = key(
        "flag",
        "Whether it reaches what the host does; for the host's owner to allow.",
        reader="build",
        default=False,
    )
    inputs: Annotated[tuple[FolderName, ...], Field(max_length=16)] = key(
        "list of folders",
        "Folders that lie beside it while it runs; `files` does so always.",
        reader="build",
        default=(),
        shown="[files]",
    )
    keep: Annotated[tuple[Kept, ...], Field(max_length=16)] = key(
        f"list of {', '.join(f'`{path}`' for path in KEPT)}",
        "What would be left out of the layer. A machine still gets an id and host keys of its own.",
        reader="build",
        default=(),
    )


class Boot(Model):
    """How the machine comes up."""

    script: RelativePath | None = key(
        "path", "Runs at every boot.", reader="session", default=None, shown="boot.sh, if there"
    )
    ready: RelativePath | None = key(
        "path",
        "Ends with 0 when the machine is broken as told.",
        reader="session",
        default=None,
        shown="ready.sh, if there",
    )
    units: Annotated[tuple[Service, ...], Field(max_length=16)] = key(
        f"list of {', '.join(f'`{name}`' for name in SERVICES)}",
        "Units that are off in the base image, by what they are for ([list](base-image.md)).",
        reader="build",
        default=(),
    )
    timeout: Annotated[float, lasting(*BOOT_TIMEOUT), DURATION] = key(
        f"duration, {between(*BOOT_TIMEOUT, format_duration)}",
        "From power-on until the machine is ready.",
        reader="session",
        default=60.0,
        shown="1m",
    )


class User(Model):
    """The learner's account."""

    name: UserName = key("user name", "Whom terminals log in.", reader="session", default="learner")
    sudo: Literal["full", "limited", "none"] = key(
        "`full`, `limited` or `none`",
        "What sudo lets the learner do; with `limited`, the `commands`.",
        reader="build",
        default="full",
    )
    commands: Annotated[tuple[SudoCommand, ...], Field(max_length=32)] = key(
        "list of commands",
        "With `sudo: limited`: what it runs as root, such as `/usr/bin/systemctl restart app`. "
        "A path alone takes any arguments.",
        reader="build",
        default=(),
    )
    shell: GuestPath | None = key(
        "path",
        "The login shell, which must be there after `build.sh`.",
        reader="build",
        default=None,
        shown="/bin/bash",
    )

    @model_validator(mode="after")
    def _commands_of_something(self) -> User:
        if self.commands and self.sudo != "limited":
            raise problem("expected", "sudo: limited beside commands")
        if self.sudo == "limited" and not self.commands:
            raise problem("expected", "commands beside sudo: limited")
        return self
