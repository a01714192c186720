"""Reading the resolver configuration of the host."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshd.base.errors import MeshdError
from meshd.host.resolvconf import ResolvConf, base_of, host_resolvers, network_resolvers, read_resolv_conf
from meshd.wire.resolvconf import Original, encode_resolv_conf


def test_resolv_conf_servers_and_search(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text(
        "# made by hand\nnameserver 10.0.0.1 # near\nnameserver nonsense\nnameserver fe80::1%eth0\n"
        "domain old.test\nsearch a.test. b.test\noptions ndots:2\nnameserver\n"
    )
    assert read_resolv_conf(str(file)) == ResolvConf(
        ("10.0.0.1", "fe80::1%eth0"), ("a.test", "b.test"), ("options ndots:2",)
    )


def test_resolv_conf_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        read_resolv_conf(str(tmp_path / "none"))


def test_host_resolvers_of_a_file_of_ours_are_those_before(tmp_path: Path) -> None:
    """DN-14: what the operating system has without us; our own address would be a loop."""
    file = tmp_path / "resolv.conf"
    before = b"nameserver 10.0.0.1\nnameserver 100.100.100.100\nnameserver fe80::1%eth0\nsearch LAN.test\n"
    file.write_bytes(encode_resolv_conf(["100.100.100.100"], ["mesh.test"], (), Original("file", before)))
    found = host_resolvers(str(file))
    assert found == base_of(before)
    assert [str(server) for server in found.nameservers] == ["10.0.0.1", "fe80::1%eth0"]
    assert found.search_domains == ("lan.test",)


def test_host_resolvers_have_a_zone_where_they_need_one() -> None:
    """DN-14: a link-local resolver without it cannot be asked."""
    text = b"nameserver FE80:0::1%2\nnameserver fd00::1%eth0\nnameserver 10.0.0.1%eth0\nnameserver fe80::2%e\0h\n"
    assert [str(server) for server in base_of(text).nameservers] == ["fe80::1%2", "fd00::1"]


def test_host_resolvers_unknown_is_a_message(tmp_path: Path) -> None:
    with pytest.raises(MeshdError, match="cannot read"):
        host_resolvers(str(tmp_path / "none"))
    (tmp_path / "damaged").write_bytes(b"# meshd-original: file\n")
    with pytest.raises(MeshdError, match="damaged"):
        host_resolvers(str(tmp_path / "damaged"))


def test_network_resolvers_are_those_behind_a_resolver_of_the_host(tmp_path: Path) -> None:
    """EX-07: a local one would ask us again for what we look for beside the tunnel."""
    uplinks = tmp_path / "resolv.conf"
    uplinks.write_text("nameserver 192.168.1.1\nnameserver 100.100.100.100\n")

    def found(text: bytes, path: Path = uplinks) -> list[str]:
        return [str(server) for server in network_resolvers(base_of(text), str(path))]

    assert found(b"nameserver 127.0.0.53\n") == ["192.168.1.1"]
    assert found(b"nameserver 127.0.0.1\nnameserver 10.0.0.1\n") == ["10.0.0.1"]
    assert found(b"nameserver 127.0.0.1\n", tmp_path / "none") == ["127.0.0.1"], "better than nobody"
    assert found(b"") == ["192.168.1.1"]
