# SPDX-License-Identifier: Apache-2.0
"""The client against Firecracker's own description, and against what the real one answered."""

import asyncio
import contextlib
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from firecracker_double import DATA, EXCHANGES, Answers, recorded, serving
from ruamel.yaml import YAML

from bugbox.errors import GuestError, HostError, MachineLost
from bugbox.machine.firecracker import model
from bugbox.machine.firecracker.api import Api, ApiError
from bugbox.machine.firecracker.model import Limit, Limiter, Request
from bugbox.machine.firecracker.version import OLDEST, Version, accept, parse

pytestmark = pytest.mark.anyio

NEWEST = Version(1, 17)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@cache
def description() -> dict[str, Any]:
    loaded = YAML(typ="safe").load((DATA / "openapi.yaml").read_text())
    assert isinstance(loaded, dict)
    return loaded


def check(request: Request, version: Version) -> None:
    """The path and the method exist, and the body is what the description wants, no more."""
    body = request.body(version)
    operation = description()["paths"][request.where][request.method.lower()]
    schema = next(each["schema"] for each in operation["parameters"] if each["in"] == "body")
    whole = {**strict(schema), "definitions": strict(description()["definitions"])}
    jsonschema.validate(body, whole, cls=jsonschema.Draft4Validator)


def strict(schema: Any) -> Any:
    """Firecracker refuses unknown fields; its description does not say so."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: strict(value) for name, value in schema.items()}
    if schema.get("type") == "object" and "properties" in schema:
        found["additionalProperties"] = False
    return found


LIMITS = Limiter(
    bandwidth=Limit(size=1 << 20, refill_time=100, one_time_burst=1 << 22),
    ops=Limit(size=1000, refill_time=1000),
)
REQUESTS: list[Request] = [
    model.BootSource(kernel_image_path="vmlinux", initrd_path="i.cpio", boot_args="quiet"),
    model.MachineConfig(vcpu_count=2, mem_size_mib=256, smt=False, track_dirty_pages=False),
    model.Drive(
        drive_id="root",
        path_on_host="disk.raw",
        is_root_device=False,
        is_read_only=True,
        cache_type="Unsafe",
        io_engine="Sync",
        rate_limiter=LIMITS,
    ),
    model.DriveChange(drive_id="root", path_on_host="other.raw"),
    model.Interface(
        iface_id="eth0",
        host_dev_name="tap0",
        guest_mac="06:00:AC:10:00:02",
        rx_rate_limiter=LIMITS,
        tx_rate_limiter=LIMITS,
    ),
    model.Vsock(guest_cid=3, uds_path="vsock"),
    model.Entropy(),
    model.Logger(log_path="log", level="Info"),
    model.Metrics(metrics_path="metrics"),
    model.Action(action_type="InstanceStart"),
    model.Action(action_type="SendCtrlAltDel"),
    model.Action(action_type="FlushMetrics"),
    model.VmState(state="Paused"),
    model.VmState(state="Resumed"),
    model.SnapshotCreate(snapshot_type="Full", snapshot_path="s", mem_file_path="m"),
    model.SnapshotLoad(
        snapshot_path="s",
        mem_backend=model.MemoryBackend(backend_path="m"),
        network_overrides=(model.NetworkOverride(iface_id="eth0", host_dev_name="tap1"),),
    ),
]
LATER: list[tuple[Request, Version]] = [
    (model.Interface(iface_id="eth0", host_dev_name="tap0", mtu=1400), Version(1, 16)),
    (model.Serial(serial_out_path="serial"), Version(1, 14)),
    (model.Serial(rate_limiter=Limit(size=65536, refill_time=1000)), Version(1, 16)),
    (
        model.SnapshotLoad(
            snapshot_path="s",
            mem_backend=model.MemoryBackend(backend_path="m"),
            vsock_override=model.VsockOverride(uds_path="v"),
        ),
        Version(1, 16),
    ),
    (
        model.SnapshotLoad(
            snapshot_path="s",
            mem_backend=model.MemoryBackend(backend_path="m"),
            clock_realtime=True,
        ),
        Version(1, 16),
    ),
]


def kinds() -> set[type[Request]]:
    return set(Request.__subclasses__())


def test_no_request_is_left_out_here():
    assert {type(each) for each in REQUESTS} | {type(each) for each, _ in LATER} == kinds()


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda r: f"{r.method} {r.path}")
def test_every_request_is_what_the_description_wants(request_):
    check(request_, OLDEST)


@pytest.mark.parametrize(("request_", "since"), LATER, ids=lambda r: str(getattr(r, "path", r)))
def test_a_field_goes_only_to_a_version_that_knows_it(request_, since):
    check(request_, since)
    with pytest.raises(GuestError, match=f"{since} has"):
        request_.body(Version(since.major, since.minor - 1))


def test_the_check_itself_refuses_what_is_wrong():
    """Of a description that takes anything the tests above would say nothing."""
    schema = strict(description()["definitions"])
    for bad in ({"guest_cid": 3}, {"guest_cid": 3, "uds_path": "v", "bogus": 1}, {"guest_cid": 2}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(
                bad, {"$ref": "#/definitions/Vsock", "definitions": schema},
                cls=jsonschema.Draft4Validator,
            )  # fmt: skip


def made(exchange: dict[str, Any]) -> Request | None:
    """Our own request for a recorded one; None for a GET, and for what we cannot even say."""
    asked = exchange["request"]
    if asked["method"] == "GET" or "bogus" in asked["body"]:
        return None
    for kind in kinds():
        static = kind.where.split("{")[0]
        if kind.method == asked["method"] and asked["path"].startswith(static):
            return kind.model_validate(asked["body"])
    raise AssertionError(f"nothing of ours is {asked}")


@pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda e: e["note"] or e["request"]["path"])
async def test_what_the_real_one_answered(exchange: dict[str, Any], tmp_path: Path):
    """Sent again word for word by us, and the recorded answer comes out as what it means."""
    asked, said = exchange["request"], exchange["response"]

    def answer(method: str, path: str, body: Any) -> tuple[int | None, dict[str, str], Any]:
        if path == "/version":
            return 200, {}, {"firecracker_version": "1.17.0-dev"}
        if ready:
            return said["status"], said["headers"], said["body"]
        return 200, {}, {"id": "x", "state": "Not started", "vmm_version": "1.17.0-dev"}

    ready = False
    async with serving(tmp_path / "api", answer) as seen, Api(tmp_path / "api") as api:
        await api.ready(5)
        ready = True
        request = made(exchange)
        if request is not None and asked["path"] != request.path:
            assert exchange["note"] == "id in path and body differ"  # which ours cannot
            request = None
        if request is not None:
            assert request.body(api.version) == asked["body"]
            sending = api.send(request)
        else:
            sending = api._ask(asked["method"], asked["path"], asked["body"], 5)
        if said["status"] is None:
            with pytest.raises(MachineLost):
                await sending
        elif said["status"] >= 400:
            with pytest.raises(ApiError) as caught:
                await sending
            assert caught.value.fault_message == said["body"]["fault_message"]
            assert caught.value.status == said["status"]
            assert asked["path"] in str(caught.value)
        else:
            assert await sending == (
                said["body"] if said["status"] == 200 and not request else None
            )
        assert seen[-1] == (asked["method"], asked["path"], asked["body"])


def fixed(version: object, instance: object) -> Answers:
    return lambda method, path, body: (200, {}, version if path == "/version" else instance)


FRESH = {"id": "x", "state": "Not started", "vmm_version": "1", "app_name": "Firecracker"}


@pytest.mark.parametrize("text", ["1.11.9", "0.25.2"])
async def test_an_old_one_is_refused_with_what_to_install(tmp_path: Path, text: str):
    async with serving(tmp_path / "api", fixed({"firecracker_version": text}, FRESH)):
        async with Api(tmp_path / "api") as api:
            with pytest.raises(HostError, match=r"needs 1\.12 or later") as caught:
                await api.ready(5)
            assert "releases" in (caught.value.hint or "")


@pytest.mark.parametrize("answer", [["odd"], {"state": "Dancing"}, {}, "x", 7])
async def test_an_answer_that_is_no_answer(tmp_path: Path, answer: object):
    async with serving(tmp_path / "api", fixed({"firecracker_version": "1.16.0"}, answer)):
        async with Api(tmp_path / "api") as api:
            with pytest.raises(GuestError):
                await api.ready(5)


async def test_it_waits_for_the_socket_and_not_for_ever(tmp_path: Path):
    async with Api(tmp_path / "api") as api:
        with pytest.raises(MachineLost):
            await api.ready(0.05)
        waiting = asyncio.ensure_future(api.ready(30))
        await asyncio.sleep(0.02)
        async with serving(tmp_path / "api", recorded("1.16.1")):
            assert (await waiting).state == "Not started"
            assert api.version == Version(1, 16)


async def test_a_silent_one_is_given_up(tmp_path: Path):
    hanging = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hanging.wait()
        writer.close()

    server = await asyncio.start_unix_server(serve, str(tmp_path / "api"))
    async with Api(tmp_path / "api", factor=0.01) as api:
        with pytest.raises(MachineLost, match="did not answer GET / within"):
            await api.instance()
    hanging.set()
    server.close()


@pytest.mark.parametrize("head", [b"Content-Length: 1099511627776", b"Transfer-Encoding: chunked"])
async def test_an_answer_without_end_is_left_at_the_limit(tmp_path: Path, head: bytes):
    sent = 0
    block = bytes(65536)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 \r\n" + head + b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while sent < 1 << 30:
                writer.write(block if b"Length" in head else b"10000\r\n" + block + b"\r\n")
                await writer.drain()
                sent += len(block)
        writer.close()

    server = await asyncio.start_unix_server(serve, str(tmp_path / "api"))
    async with Api(tmp_path / "api") as api:
        with pytest.raises(GuestError, match="GET / is too long"):
            await api.instance()
    server.close()
    assert sent < 16 << 20


async def test_no_link_in_a_jail_leads_us_to_another_socket(tmp_path: Path):
    """Its user may put one where its own socket was: to one that only root may talk to."""
    (tmp_path / "jail").mkdir()
    (tmp_path / "api").symlink_to(tmp_path / "jail/api")
    async with serving(tmp_path / "roots", recorded("1.16.1")) as asked:
        (tmp_path / "jail/api").symlink_to(tmp_path / "roots")
        async with Api(tmp_path / "api") as api:
            with pytest.raises(MachineLost, match="not a socket"):
                await api.instance()
        assert asked == []
    async with serving(tmp_path / "jail/real", recorded("1.16.1")) as asked:
        (tmp_path / "jail/real").rename(tmp_path / "jail/api")
        async with Api(tmp_path / "api") as api:
            await api.ready(30)
            assert len(asked) == 2
            (tmp_path / "jail/api").unlink()
            (tmp_path / "jail/api").touch()
            with pytest.raises(MachineLost, match="not a socket"):
                await api.instance()
            await api.aclose()


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("1.16.1", Version(1, 16)),
        ("Firecracker v1.17.0-dev", Version(1, 17)),
        ("v1.12.0", OLDEST),
        ("2.0.0", Version(2, 0)),
    ],
)
def test_versions(text: str, version: Version):
    assert parse(text) == accept(text) == version


@pytest.mark.parametrize("text", ["", "None", "v1", "x" * 1000])
def test_what_is_no_version(text: str):
    with pytest.raises(GuestError):
        parse(text)


def test_a_configuration_file_has_the_same_parts():
    whole = model.document([each for each in REQUESTS if each.method == "PUT"][:6], NEWEST)
    definitions = strict(description()["definitions"])
    names = {"boot-source": "BootSource", "machine-config": "MachineConfiguration"}
    for section, name in names.items():
        schema = {"$ref": f"#/definitions/{name}", "definitions": definitions}
        jsonschema.validate(whole[section], schema, cls=jsonschema.Draft4Validator)
    assert [each["drive_id"] for each in whole["drives"]] == ["root"]
    assert [each["iface_id"] for each in whole["network-interfaces"]] == ["eth0"]
    known = set(description()["definitions"]["FullVmConfiguration"]["properties"])
    assert set(whole) <= known
