"""The certificates a relay shows: a self-signed one of its own, and the one that carries its key.

Clients find the relay's key in an extra self-signed certificate behind the leaf (subject `derpkey<hex>`, serial
number = protocol version) and then skip the HTTP answer ("fast start"). The leaf needs no authority: the map tells
clients its SHA-256, which they pin.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import ssl
import warnings
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from meshd.base.errors import MeshdError
from meshd.base.keys import NodePublic
from meshd.base.log import get_logger, kv
from meshd.io.files import write_atomic

if TYPE_CHECKING:
    from cryptography import x509

META_PREFIX = "derpkey"
PROTOCOL_VERSION = 2
CHAIN_NAME = "tls-chain.pem"
LEAF_DAYS = 3650
LEAF_RENEW_DAYS = 30
META_DAYS = 30
"""The key certificate is made at every start and valid this long on both sides; nobody checks it but by name."""


CHECK_S = 60.0
"""How often the operator's files are looked at for others: certificates of public authorities live some weeks only."""

log = get_logger(__name__)


class RelayTls:
    """What the listener needs, and what the map tells about it."""

    def __init__(self, context: ssl.SSLContext, pin: str | None) -> None:
        self.context = context
        self.pin = pin
        """SHA-256 of the leaf in hex when clients have to pin it; None for a certificate of a public authority."""

    def watch(self) -> None:
        """Show another certificate as soon as there is one. Inside a running loop, until `close`."""

    def check(self) -> None:
        """Look for another certificate now."""

    def close(self) -> None:
        """Look no more."""


class _OperatorsTls(RelayTls):
    """The certificate of files that something renews from time to time."""

    def __init__(self, folder: Path, certificate: Path, key: Path, relay: NodePublic) -> None:
        self._folder, self._certificate, self._key, self._relay = folder, certificate, key, relay
        self._seen = self._state()
        super().__init__(_context(folder, certificate.read_bytes(), key, relay), None)
        self._timer: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(CHECK_S, self._look_again)

    def _look_again(self) -> None:
        self.check()
        self.watch()

    def check(self) -> None:
        state = self._state()
        if state == self._seen:
            return
        self._seen = state
        try:
            chain = self._certificate.read_bytes()
            # First elsewhere: a context is left without a key by files that do not belong together.
            _context(self._folder, chain, self._key, self._relay)
            _load(self.context, self._folder, self._key)
        except (OSError, ValueError) as error:
            log.error(
                "certificate_refused", extra=kv(file=self._certificate, reason=error, action="keeping the old one")
            )
        else:
            log.info("certificate_renewed", extra=kv(file=self._certificate))

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _state(self) -> list[tuple[int, ...]]:
        found: list[tuple[int, ...]] = []
        for path in (self._certificate, self._key):
            try:
                status = path.stat()
            except OSError:
                found.append(())
            else:
                found.append((status.st_mtime_ns, status.st_size, status.st_ino))
        return found


def self_signed(folder: Path, hosts: list[str], relay: NodePublic) -> RelayTls:
    """Use the certificate in `folder`, making a new one at first, when the host changed, or when it is about to end.

    Keeping it matters: clients pin it until their next map. MeshdError when the folder cannot be used.
    """
    certificate_path, key_path = folder / "tls-cert.pem", folder / "tls-key.pem"
    try:
        if _usable(certificate_path, key_path, hosts):
            try:
                return _pinned(folder, certificate_path, key_path, relay)
            except ValueError as error:
                log.warning("certificate_unusable", extra=kv(file=key_path, reason=error, action="making a new one"))
        certificate, key = make_leaf(hosts)
        write_atomic(key_path, key, 0o600)
        write_atomic(certificate_path, certificate, 0o644)
        return _pinned(folder, certificate_path, key_path, relay)
    except OSError as error:
        raise MeshdError(f"cannot use the TLS certificate {certificate_path}: {error}", code="storage") from None


def _pinned(folder: Path, certificate_path: Path, key_path: Path, relay: NodePublic) -> RelayTls:
    leaf = certificate_path.read_bytes()
    context = _context(folder, leaf, key_path, relay)
    return RelayTls(context, hashlib.sha256(ssl.PEM_cert_to_DER_cert(leaf.decode("ascii"))).hexdigest())


def from_files(folder: Path, certificate_path: Path, key_path: Path, relay: NodePublic) -> RelayTls:
    """Use a certificate chain of the operator's; clients check it the ordinary way."""
    try:
        return _OperatorsTls(folder, certificate_path, key_path, relay)
    except (OSError, ValueError) as error:
        raise MeshdError(
            f"cannot use the TLS certificate {certificate_path} with key {key_path}: {error}", code="config"
        ) from None


def _context(folder: Path, chain: bytes, key_path: Path, relay: NodePublic) -> ssl.SSLContext:
    """A server context whose chain ends with the certificate that names the relay's key."""
    write_atomic(folder / CHAIN_NAME, chain.rstrip() + b"\n" + _make_meta(relay), 0o600)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    _load(context, folder, key_path)
    return context


def _load(context: ssl.SSLContext, folder: Path, key_path: Path) -> None:
    """Use the chain in `folder`. ValueError when it and the key are none, or do not belong together."""
    try:
        context.load_cert_chain(folder / CHAIN_NAME, key_path, _no_pass_phrase)
    except ssl.SSLError as error:
        raise ValueError(f"no certificate with its key ({error.reason or error})") from None


def _no_pass_phrase() -> str:
    # There is nobody to be asked for it.
    raise ValueError("the key is protected by a pass phrase")


def _usable(certificate_path: Path, key_path: Path, hosts: list[str]) -> bool:
    from cryptography import x509

    if not key_path.exists():
        return False
    try:
        certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
    except (OSError, ValueError):
        return False
    if certificate.not_valid_after_utc < datetime.now(UTC) + timedelta(days=LEAF_RENEW_DAYS):
        return False
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    return list(names) == _alternative_names(hosts)


def _alternative_names(hosts: list[str]) -> list[x509.GeneralName]:
    from cryptography import x509

    names: list[x509.GeneralName] = []
    for host in hosts:
        try:
            names.append(x509.IPAddress(ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    return names


def make_leaf(hosts: list[str]) -> tuple[bytes, bytes]:
    """A self-signed P-256 certificate for `hosts`: PEM of the certificate and of its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=LEAF_DAYS))
        .add_extension(x509.SubjectAlternativeName(_alternative_names(hosts)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), private


def _make_meta(relay: NodePublic) -> bytes:
    """PEM of the certificate whose subject spells the relay's public key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519
    from cryptography.x509.oid import NameOID

    key = ed25519.Ed25519PrivateKey.from_private_bytes(os.urandom(32))
    # 71 characters, over the 64 of X.520: the format clients look for demands it.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        common_name = x509.NameAttribute(NameOID.COMMON_NAME, META_PREFIX + relay.raw.hex(), _validate=False)
    name = x509.Name([common_name])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(PROTOCOL_VERSION)
        .not_valid_before(now - timedelta(days=META_DAYS))
        .not_valid_after(now + timedelta(days=META_DAYS))
        .sign(key, None)
    )
    return certificate.public_bytes(serialization.Encoding.PEM)
