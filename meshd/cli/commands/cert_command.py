"""`mesh cert`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from urllib.parse import quote

from meshd.cli.client import LocalClient
from meshd.cli.command import Command
from meshd.cli.errors import CliError
from meshd.cli.files import write_if_changed
from meshd.cli.flags import DURATION, STRING, Flag, Parsed
from meshd.cli.output import err, printable
from meshd.cli.progress import progress

_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"
_PRIVATE_KEY = b" PRIVATE KEY-----"
"""Marks in a pair: the private key comes first, the certificates follow."""


def _run(client: LocalClient, flags: Parsed) -> None:
    if len(flags.args) != 1:
        raise CliError("Usage: mesh cert [flags] <domain>" + _hint(client))
    domain = flags.args[0]
    cert_file, key_file = flags.text("cert-file"), flags.text("key-file")
    if not cert_file and not key_file:
        base = domain.replace("*.", "wildcard_.", 1)
        if "/" in base:
            raise CliError("invalid domain")
        cert_file, key_file = base + ".crt", base + ".key"
    certificate, key = _fetch(client, domain, flags.seconds("min-validity"))
    say = err if "-" in (cert_file, key_file) else _say
    if cert_file:
        _write(cert_file, certificate, 0o644, "Wrote public cert to", "Public cert unchanged at", say)
    if key_file:
        content = _pkcs12(certificate, key) if key_file.endswith((".p12", ".pfx")) else key
        _write(key_file, content, 0o600, "Wrote private key to", "Private key unchanged at", say)


def _hint(client: LocalClient) -> str:
    """What to do instead, as far as the daemon knows."""
    try:
        status = client.status(peers=False)
    except CliError:
        return ""
    if status.get("BackendState") != "Running":
        return "\nmeshd is not running."
    domains = status.get("CertDomains") or []
    if not domains:
        return "\nHTTPS cert support is not enabled/configured for your tailnet."
    if len(domains) == 1:
        return f'\nFor domain, use "{printable(domains[0])}".'
    words = " ".join(f'"{printable(name)}"' for name in domains)
    return f"\nValid domain options: [{words}]."


def _fetch(client: LocalClient, domain: str, validity_s: float) -> tuple[bytes, bytes]:
    """The certificates and the private key, both PEM."""
    route = f"cert/{quote(domain, safe='')}?type=pair&min_validity={validity_s:g}s"
    with progress(f"waiting for the certificate of {printable(domain)}"):
        pair = client.call("GET", route).body
    key, mark, certificates = pair.partition(_CERTIFICATE)
    certificate = mark + certificates
    if _PRIVATE_KEY not in key or not mark or _PRIVATE_KEY in certificate:
        raise CliError("local meshd answered something else than a private key and its certificates")
    return certificate, key


def _say(text: str) -> None:
    sys.stdout.write(text)


def _write(path: str, content: bytes, mode: int, wrote: str, unchanged: str, say: Callable[[str], None]) -> None:
    if path == "-":
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        sys.stdout.flush()
        return
    say(f"{wrote if write_if_changed(path, content, mode) else unchanged} {path}\n")


def _pkcs12(certificate: bytes, key: bytes) -> bytes:
    """Both in one file without a password (RFC 7292)."""
    from cryptography.hazmat.primitives.serialization import NoEncryption, load_pem_private_key
    from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates
    from cryptography.x509 import load_pem_x509_certificates

    try:
        first, *others = load_pem_x509_certificates(certificate)
        private = load_pem_private_key(key, None)
        return serialize_key_and_certificates(None, private, first, others, NoEncryption())  # type: ignore[arg-type]
    except ValueError as error:
        raise CliError(f"the certificate cannot be put into a PKCS #12 file: {error}") from None


COMMAND = Command(
    "cert",
    usage="mesh cert [flags] <domain>",
    short="Get TLS certificates",
    flags=[
        Flag("cert-file", STRING, "", 'file for the certificates, "-" for stdout; DOMAIN.crt when neither is named'),
        Flag("key-file", STRING, "", 'file for the private key, "-" for stdout; .p12 and .pfx hold both'),
        Flag("min-validity", DURATION, 0.0, "how long the certificate must be valid at least"),
    ],
    run=_run,
)
