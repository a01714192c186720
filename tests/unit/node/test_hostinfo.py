from __future__ import annotations

from pathlib import Path

import pytest

from meshd.base.version import long_version
from meshd.node.hostinfo import backend_log_id, build_hostinfo
from meshd.wire.control import Hostinfo, decode, encode


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


def test_hostinfo_log_id_is_random_hex_and_stays() -> None:
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
