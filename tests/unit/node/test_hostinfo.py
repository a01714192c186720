from __future__ import annotations

import socket
from pathlib import Path

import pytest

from meshd.base.version import long_version
from meshd.core.prefs import Prefs
from meshd.node.hostinfo import backend_log_id, build_hostinfo, by_prefs, host_name, with_extras
from meshd.node.store import FileStore, MemoryStore
from meshd.wire.control import Hostinfo, Service, decode, encode


def test_hostinfo_describes_the_machine(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text(
        '# comment\nID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\nbroken line\n'
    )
    info = build_hostinfo("named", root=tmp_path, environ={})
    assert (info.distro, info.distro_version, info.distro_code_name) == ("debian", "12", "bookworm")
    assert info.hostname == "named"
    assert info.ipn_version == long_version()
    assert info.os == "linux"
    assert info.go_arch
    assert info.container is False
    assert info.env == ""
    assert decode(Hostinfo, encode(info)) == info


def test_hostinfo_host_name_of_any_bytes_can_be_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: b"caf\xe9.example".decode("utf-8", "surrogateescape"))
    info = build_hostinfo("", root=tmp_path, environ={})
    assert info.hostname == "caf\N{REPLACEMENT CHARACTER}"
    assert decode(Hostinfo, encode(info)) == info


def test_hostinfo_log_id_is_random_hex_and_stays() -> None:
    """file:tailscaled.log.conf."""
    assert len(backend_log_id()) == 64
    assert int(backend_log_id(), 16) > 0
    assert backend_log_id() == backend_log_id()


@pytest.mark.parametrize(
    ("environ", "env"),
    [
        ({"KUBERNETES_SERVICE_HOST": "1"}, "k8s"),
        ({"FLY_APP_NAME": "a", "FLY_REGION": "b"}, "fly"),
        ({"K_REVISION": "a", "K_SERVICE": "b"}, "kn"),
        ({"AWS_EXECUTION_ENV": "AWS_ECS_FARGATE"}, "fg"),
        ({"AWS_LAMBDA_FUNCTION_NAME": "x"}, "lm"),
        ({"DYNO": "x", "PORT": "1"}, "hr"),
    ],
)
def test_hostinfo_names_hosting_environments(tmp_path: Path, environ: dict[str, str], env: str) -> None:
    assert build_hostinfo(root=tmp_path, environ=environ).env == env


@pytest.mark.parametrize("sign", [".dockerenv", "run/.containerenv"])
def test_hostinfo_sees_containers(tmp_path: Path, sign: str) -> None:
    (tmp_path / sign).parent.mkdir(exist_ok=True)
    (tmp_path / sign).write_text("")
    assert build_hostinfo(root=tmp_path, environ={}).container


def test_hostinfo_own_machine_works() -> None:
    info = build_hostinfo(userspace=True, userspace_router=True)
    assert "." not in info.hostname
    assert info.hostname
    assert info.userspace
    assert info.userspace_router


def test_hostinfo_says_what_preferences_mean_for_the_server() -> None:
    """PP-10: routes and tags in order and once, the exit node in use; and nothing of what is our own business."""
    own = Hostinfo(hostname="host")
    prefs = Prefs(
        advertise_routes=("fd00::/64", "10.0.0.0/8", "10.0.0.0/8", "0.0.0.0/0"),
        advertise_tags=("tag:b", "tag:a", "tag:b"),
        shields_up=True,
        exit_node_id="n1",
        operator_user="ann",
    )
    told = by_prefs(own, prefs)
    assert told.routable_ips == ("0.0.0.0/0", "10.0.0.0/8", "fd00::/64")
    assert (told.request_tags, told.shields_up, told.exit_node_id) == (("tag:a", "tag:b"), True, "n1")
    assert by_prefs(own, Prefs()) == own
    assert by_prefs(own, Prefs(auto_exit_node="any", exit_node_id="auto:any")).exit_node_id == ""


def test_hostinfo_name_is_the_users_or_the_machines(tmp_path: Path) -> None:
    """PP-10."""
    assert build_hostinfo("", root=tmp_path, environ={}).hostname == host_name()
    assert build_hostinfo("mine", root=tmp_path, environ={}).hostname == "mine"


def test_hostinfo_tells_whether_the_state_is_encrypted(tmp_path: Path) -> None:
    """PP-10."""
    kinds = {"plain": FileStore(tmp_path / "plain"), "sealed": FileStore(tmp_path / "sealed", sealed=True)}
    assert {name: store.encrypted for name, store in kinds.items()} == {"plain": False, "sealed": True}
    assert build_hostinfo(root=tmp_path, environ={}, state_encrypted=True).state_encrypted is True
    assert MemoryStore().encrypted is False


def test_hostinfo_extras_come_from_programs_of_this_host() -> None:
    """PP-12, PP-14."""
    own = Hostinfo(services=(Service(proto="tcp", port=22),))
    told = with_extras(own, push_token="t", egg=True)
    assert told.push_device_token == "t"
    assert [(s.proto, s.port) for s in told.services] == [("tcp", 22), ("egg", 1)]
    assert with_extras(own, push_token="", egg=False) == own
