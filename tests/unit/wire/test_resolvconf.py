"""resolv.conf: read, written, and the original within."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.base.errors import WireError
from meshd.wire.resolvconf import (
    FILE,
    LINK,
    NONE,
    Original,
    ResolvConf,
    decode_resolv_conf,
    encode_resolv_conf,
    is_ours,
    kept_original,
)

NUMBERS = st.integers(0, (1 << 32) - 1)
ORIGINALS = st.builds(
    Original,
    kind=st.sampled_from([FILE, NONE]),
    data=st.binary(max_size=600),
    mode=st.integers(0, 0o7777),
    uid=NUMBERS,
    gid=NUMBERS,
    mtime_ns=st.integers(0, (1 << 63) - 1),
)


def test_decode_options_kept_as_lines() -> None:
    found = decode_resolv_conf(b"options  ndots:5 edns0\nsortlist 10.0.0.0/8\noptions\nnameserver 10.0.0.1\n")
    assert found == ResolvConf(("10.0.0.1",), (), ("options ndots:5 edns0", "sortlist 10.0.0.0/8"))


@given(original=ORIGINALS, target=st.binary(min_size=1, max_size=80).filter(lambda t: b"\0" not in t))
def test_original_within_file_comes_back_bit_for_bit(original: Original, target: bytes) -> None:
    """DN-11: direct keeps a backup."""
    for kept in (original, Original(LINK, original.data, 0o777, target=target)):
        text = encode_resolv_conf(["100.100.100.100"], ["mesh.test"], ["options ndots:5"], kept)
        assert is_ours(text)
        assert kept_original(text) == kept


@given(original=ORIGINALS)
def test_original_within_file_means_nothing_to_resolvers(original: Original) -> None:
    text = encode_resolv_conf(["100.100.100.100"], ["a.test", "b.test"], ["options ndots:5"], original)
    # Programs split lines at line feeds only.
    lines = [line for line in text.split(b"\n") if line and not line.startswith(b"#")]
    assert lines == [b"nameserver 100.100.100.100", b"search a.test b.test", b"options ndots:5"]


@given(st.binary(max_size=400))
def test_hostile_file_of_ours_is_a_wire_error_or_an_original(tail: bytes) -> None:
    for text in (b"# meshd-original: " + tail, b"# meshd-original: file 0644 0 0 0\n" + tail):
        try:
            found = kept_original(text)
        except WireError:
            continue
        assert found is not None
        assert 0 <= found.mode <= 0o7777


@pytest.mark.parametrize(
    "text",
    [
        b"# meshd-original: \n#|x",
        b"# meshd-original: file 9999 0 0 0\n#|x",
        b"# meshd-original: link 0644 0 0 0\n#|x",
        b"# meshd-original: link 0644 0 0 0 a%00b\n#|x",
        b"# meshd-original: file 0644 -1 0 0\n#|x",
        b"# meshd-original: file 0644 0 0 0\nnameserver 10.0.0.1\n",
    ],
)
def test_damaged_original_is_an_error(text: bytes) -> None:
    with pytest.raises(WireError):
        kept_original(text)


def test_file_of_others_is_not_ours() -> None:
    assert not is_ours(b"nameserver 10.0.0.1 # meshd-original: file\n")
    assert not is_ours(encode_resolv_conf(["10.0.0.1"], []))
    assert kept_original(b"nameserver 10.0.0.1\n") is None
