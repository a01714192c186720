"""Reading the resolver configuration of the host."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshd.host.resolvconf import ResolvConf, read_resolv_conf


def test_resolv_conf_servers_and_search(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text(
        "# made by hand\nnameserver 10.0.0.1 # near\nnameserver nonsense\nnameserver fe80::1%eth0\n"
        "domain old.test\nsearch a.test. b.test\noptions ndots:2\nnameserver\n"
    )
    assert read_resolv_conf(str(file)) == ResolvConf(("10.0.0.1", "fe80::1%eth0"), ("a.test", "b.test"))


def test_resolv_conf_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        read_resolv_conf(str(tmp_path / "none"))
