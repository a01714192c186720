"""Control over TLS: the certificate matters for /key and for nothing else."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
import uvloop

from meshd.base.errors import MeshdError
from meshd.base.keys import MachinePrivate
from meshd.core.prefs import Prefs
from meshd.io import tls
from meshd.io.systemclock import SystemClock
from meshd.node.controllink import ControlLink
from meshd.testing.fakecontrol import FakeControl


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1 and its key in one PEM file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, private.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path.write_bytes(made.public_bytes(pem) + private.private_bytes(pem, pkcs8, serialization.NoEncryption()))
    return path


def _server_context(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def _link(control: FakeControl) -> ControlLink:
    return ControlLink(control.url, MachinePrivate.generate, 113, SystemClock())


def test_control_link_untrusted_certificate_stops_the_key_fetch(certificate: Path) -> None:
    async def main() -> None:
        async with FakeControl(tls=_server_context(certificate)) as control:
            with pytest.raises(MeshdError, match="certificate of 127.0.0.1") as caught:
                await _link(control).connection()
            assert caught.value.code == "tls"
            assert caught.value.hint is not None
            assert control.key_requests == 0

    uvloop.run(main())


def test_control_link_trusted_certificate_brings_a_connection(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with FakeControl(tls=_server_context(certificate)) as control:
            link = _link(control)
            client = await link.connection()
            assert client.usable
            assert await link.connection() is client
            link.close()
            assert not client.usable
            assert control.key_requests == 1

    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setattr(tls, "_contexts", {})
    uvloop.run(main())


def test_control_link_key_known_ignores_the_certificate(certificate: Path) -> None:
    """Noise proves the server; a TLS box in between may show what it likes."""

    async def main() -> None:
        async with FakeControl(tls=_server_context(certificate)) as control:
            link = _link(control)
            link._key = control.key.public()
            assert (await link.connection()).usable
            link.close()

    uvloop.run(main())


def test_control_link_https_url_of_a_plain_server_is_a_clear_error() -> None:
    async def main() -> None:
        async with FakeControl() as control:
            link = ControlLink(control.url.replace("http:", "https:"), MachinePrivate.generate, 113, SystemClock())
            with pytest.raises(MeshdError, match="no TLS connection"):
                await link.connection()

    uvloop.run(main())


@pytest.mark.parametrize(("value", "skipped"), [("1", True), ("0", False)])
def test_control_link_goes_by_tls_only_when_the_environment_says_so(
    monkeypatch: pytest.MonkeyPatch, value: str, skipped: bool
) -> None:
    monkeypatch.setenv("TS_FORCE_NOISE_443", value)
    asked: list[bool] = []

    async def refuse(*_: object, skip_plain: bool, planned: object) -> None:
        asked.append(skip_plain)
        raise MeshdError("refused", code="control-unreachable")

    monkeypatch.setattr("meshd.node.controllink.connect_noise", refuse)

    async def main() -> None:
        async with FakeControl() as control:
            with pytest.raises(MeshdError, match="refused"):
                await _link(control).connection()

    uvloop.run(main())
    assert asked == [skipped]


@pytest.mark.parametrize("url", ["", "https://login.tailscale.com", "https://controlplane.tailscale.com:443/"])
def test_control_link_test_guard_keeps_tests_from_the_public_server(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """SM-17: with TS_PANIC_IF_HIT_MAIN_CONTROL nothing is sent there, not even to ask for its name."""
    monkeypatch.setenv("TS_PANIC_IF_HIT_MAIN_CONTROL", "1")

    async def reach(*_: object, **__: object) -> None:
        raise AssertionError("talked to the public server")

    monkeypatch.setattr("meshd.node.controllink.open_stream", reach)
    url = url or Prefs().effective_control_url()

    async def main() -> None:
        link = ControlLink(url, MachinePrivate.generate, 113, SystemClock())
        with pytest.raises(MeshdError, match="TS_PANIC_IF_HIT_MAIN_CONTROL is set"):
            await link.connection()
        async with FakeControl() as control:
            with pytest.raises(AssertionError):  # any other server is talked to as always
                await _link(control).connection()

    uvloop.run(main())
