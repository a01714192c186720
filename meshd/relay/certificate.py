"""The certificates a relay shows: a self-signed one of its own, and the one that carries its key.

Clients find the relay's key in an extra self-signed certificate behind the leaf (subject `derpkey<hex>`, serial
number = protocol version) and then skip the HTTP answer ("fast start"). The leaf needs no authority: the map tells
clients its SHA-256, which they pin.
"""

from __future__ import annotations

import hashlib
import os
import ssl
import warnings
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from meshd.base.errors import MeshdError
from meshd.base.keys import NodePublic
from meshd.io.files import write_atomic

if TYPE_CHECKING:
    from cryptography import x509

META_PREFIX = "derpkey"
PROTOCOL_VERSION = 2
LEAF_DAYS = 3650
LEAF_RENEW_DAYS = 30
META_DAYS = 30
"""The key certificate is made at every start and valid this long on both sides; nobody checks it but by name."""


class RelayTls(msgspec.Struct, frozen=True):
    """What the listener needs, and what the map tells about it."""

    context: ssl.SSLContext
    pin: str | None
    """SHA-256 of the leaf in hex when clients have to pin it; None for a certificate of a public authority."""


def self_signed(folder: Path, hosts: list[str], relay: NodePublic) -> RelayTls:
    """Use the certificate in `folder`, making a new one at first, when the host changed, or when it is about to end.

    Keeping it matters: clients pin it until their next map.
    """
    certificate_path, key_path = folder / "tls-cert.pem", folder / "tls-key.pem"
    if not _usable(certificate_path, key_path, hosts):
        certificate, key = _make_leaf(hosts)
        write_atomic(key_path, key, 0o600)
        write_atomic(certificate_path, certificate, 0o644)
    leaf = certificate_path.read_bytes()
    context = _context(folder, leaf, key_path, relay)
    pin = hashlib.sha256(ssl.PEM_cert_to_DER_cert(leaf.decode("ascii"))).hexdigest()
    return RelayTls(context, pin)


def from_files(folder: Path, certificate_path: Path, key_path: Path, relay: NodePublic) -> RelayTls:
    """Use a certificate chain of the operator's; clients check it the ordinary way."""
    try:
        chain = certificate_path.read_bytes()
        context = _context(folder, chain, key_path, relay)
    except (OSError, ValueError, ssl.SSLError) as error:
        raise MeshdError(
            f"cannot use the TLS certificate {certificate_path} with key {key_path}: {error}", code="config"
        ) from None
    return RelayTls(context, None)


def _context(folder: Path, chain: bytes, key_path: Path, relay: NodePublic) -> ssl.SSLContext:
    """A server context whose chain ends with the certificate that names the relay's key."""
    chain_path = folder / "tls-chain.pem"
    write_atomic(chain_path, chain.rstrip() + b"\n" + _make_meta(relay), 0o600)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(chain_path, key_path)
    return context


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


def _make_leaf(hosts: list[str]) -> tuple[bytes, bytes]:
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
