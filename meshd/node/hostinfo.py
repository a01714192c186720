"""What this machine is, as the coordination server and the peers are told."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import msgspec

from meshd.base.addr import IPPrefix
from meshd.base.version import long_version
from meshd.core.prefs import UNRESOLVED_EXIT_NODE, Prefs
from meshd.wire.control import Hostinfo, Service

_GO_ARCH = {
    "x86_64": "amd64",
    "amd64": "amd64",
    "i386": "386",
    "i686": "386",
    "aarch64": "arm64",
    "arm64": "arm64",
    "armv6l": "arm",
    "armv7l": "arm",
    "ppc64le": "ppc64le",
    "riscv64": "riscv64",
    "s390x": "s390x",
    "loongarch64": "loong64",
    "mips64": "mips64",
    "mips64el": "mips64le",
}
_MAX_FILE = 64 * 1024


@lru_cache(maxsize=1)
def backend_log_id() -> str:
    """64 random hex digits, one value per process. Nothing is ever uploaded under it."""
    return secrets.token_hex(32)


def host_name() -> str:
    """First label of the machine's name, which may be of any bytes."""
    name = os.fsencode(socket.gethostname()).decode("utf-8", "replace")
    return name.partition(".")[0] or "localhost"


def build_hostinfo(
    hostname: str = "",
    *,
    userspace: bool = False,
    userspace_router: bool = False,
    state_encrypted: bool = False,
    root: Path = Path("/"),
    environ: Mapping[str, str] | None = None,
) -> Hostinfo:
    """The part of Hostinfo that does not depend on preferences, apart from the ``hostname`` to go by."""
    environ = os.environ if environ is None else environ
    system = os.uname()
    release = _os_release(root)
    return Hostinfo(
        ipn_version=long_version(),
        backend_log_id=backend_log_id(),
        os=system.sysname.lower(),
        os_version=system.release,
        container=_in_container(root, environ),
        env=_environment(environ),
        distro=release.get("ID", ""),
        distro_version=release.get("VERSION_ID", ""),
        distro_code_name=release.get("VERSION_CODENAME", ""),
        desktop=False if system.sysname == "Linux" else None,
        device_model=_read(root / "proc/device-tree/model").strip("\x00\n ")[:128],
        hostname=hostname or host_name(),
        no_logs_no_support=True,
        machine=system.machine,
        go_arch=_GO_ARCH.get(system.machine, system.machine),
        userspace=userspace,
        userspace_router=userspace_router,
        state_encrypted=state_encrypted,
    )


def by_prefs(described: Hostinfo, prefs: Prefs) -> Hostinfo:
    """``described`` with what the server is told of the preferences (PP-10), each list in order and without doubles.

    An exit node that has not been found yet is nobody else's business.
    """
    found = prefs.exit_node_id != UNRESOLVED_EXIT_NODE
    return msgspec.structs.replace(
        described,
        routable_ips=tuple(str(route) for route in sorted(set(prefs.routes()), key=_route_order)),
        request_tags=tuple(sorted(set(prefs.advertise_tags or ()))),
        shields_up=prefs.shields_up,
        exit_node_id=prefs.exit_node_id if found else "",
    )


def _route_order(route: IPPrefix) -> tuple[int, bytes, int]:
    return route.version, route.network_address.packed, route.prefixlen


def with_extras(described: Hostinfo, *, push_token: str, egg: bool) -> Hostinfo:
    """What only programs of this host can know: PP-12, PP-14."""
    services = (*described.services, Service(proto="egg", port=1)) if egg else described.services
    return msgspec.structs.replace(described, push_device_token=push_token, services=services)


def _os_release(root: Path) -> dict[str, str]:
    """Fields of os-release(5)."""
    fields: dict[str, str] = {}
    for line in (_read(root / "etc/os-release") or _read(root / "usr/lib/os-release")).splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and not name.startswith("#"):
            fields[name] = value.strip("\"'")[:128]
    return fields


def _in_container(root: Path, environ: Mapping[str, str]) -> bool:
    if environ.get("container") or (root / ".dockerenv").exists() or (root / "run/.containerenv").exists():
        return True
    control_groups = _read(root / "proc/1/cgroup")
    return any(word in control_groups for word in ("/docker/", "/lxc/", "/kubepods"))


def _environment(environ: Mapping[str, str]) -> str:
    """Two-letter-like names of hosting environments that the network's statistics know."""
    if "KUBERNETES_SERVICE_HOST" in environ:
        return "k8s"
    if "FLY_APP_NAME" in environ and "FLY_REGION" in environ:
        return "fly"
    if "K_REVISION" in environ and "K_SERVICE" in environ:
        return "kn"
    if environ.get("AWS_EXECUTION_ENV") == "AWS_ECS_FARGATE":
        return "fg"
    if "AWS_LAMBDA_FUNCTION_NAME" in environ:
        return "lm"
    if "DYNO" in environ and "PORT" in environ:
        return "hr"
    return ""


def _read(path: Path) -> str:
    """Text of a small system file, empty when there is none."""
    try:
        with path.open("rb") as file:
            return file.read(_MAX_FILE).decode("utf-8", "replace")
    except OSError:
        return ""
