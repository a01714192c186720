"""TLS over any byte channel, by memory buffers: the relay connection runs on it.

``TlsEngine`` turns ciphertext into plaintext and back without I/O. ``ssl`` costs several megabytes, so it
is imported when the first connection needs it.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from meshd.base.addr import IPAddress, parse_ip
from meshd.base.crypto import same
from meshd.base.errors import MeshdError

if TYPE_CHECKING:
    import ssl

PIN_PREFIX = "sha256-raw:"
_READ_BYTES = 16 * 1024  # a read returns one record at most; larger buffers are mapped and unmapped each time
_META_NAME = re.compile(rb"[\x0c\x13]\x47derpkey([0-9a-f]{64})")  # a string of 71 bytes in DER
_contexts: dict[tuple[bool, bool, str], ssl.SSLContext] = {}


class CertificateCheck:
    """How a server proves itself: by its name, by the hash of its certificate, or not at all (tests).

    ``cert_name`` is a host name that the certificate must be for instead of ``host``, or ``sha256-raw:<hex>`` of the
    leaf's DER form. ``server_name`` is what the server is asked for (SNI).
    """

    __slots__ = ("insecure", "name", "pin", "server_name")

    def __init__(self, host: str, cert_name: str = "", *, insecure: bool = False) -> None:
        self.server_name = host
        self.pin = b""
        self.insecure = insecure
        self.name = host
        if cert_name.startswith(PIN_PREFIX):
            try:
                self.pin = bytes.fromhex(cert_name[len(PIN_PREFIX) :])
            except ValueError:
                raise MeshdError(f"{cert_name!r} is no certificate pin", code="tls") from None
            if len(self.pin) != 32:
                raise MeshdError(f"{cert_name!r} is no certificate pin", code="tls")
        elif cert_name:
            self.name = cert_name
            self.server_name = host or cert_name


def client_context(*, verify: bool, check_name: bool = True, alpn: tuple[str, ...] = ()) -> ssl.SSLContext:
    """A shared context with the system's roots (TLS 1.2 or newer), or one that checks nothing itself.

    Without ``check_name`` a certificate for any name is accepted.
    """
    import ssl

    key = (verify, check_name, ",".join(alpn))
    context = _contexts.get(key)
    if context is None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if verify:
            context.check_hostname = check_name
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        else:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if os.environ.get("SSLKEYLOGFILE"):  # for whoever takes apart what we send, as in other programs
            context.keylog_filename = os.environ["SSLKEYLOGFILE"]
        if alpn:
            context.set_alpn_protocols(list(alpn))
        _contexts[key] = context
    return context


class TlsEngine:
    """The client side of one TLS connection: ``feed`` ciphertext, ``write`` plaintext, send ``outgoing``.

    A refused certificate or a broken record raises MeshdError with code ``tls``; the connection is then
    of no use any more.
    """

    def __init__(self, check: CertificateCheck, *, alpn: tuple[str, ...] = ()) -> None:
        import ssl

        self._ssl = ssl
        self._check = check
        verify = not check.insecure and not check.pin
        self._fronted = verify and check.name != check.server_name
        name = check.server_name
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        context = client_context(verify=verify, check_name=not self._fronted, alpn=alpn)
        try:
            self._object = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name or None)
        except (ValueError, TypeError):  # a UnicodeError, or a zero byte in it
            raise MeshdError(f"{name[:80]!r} is no name that a certificate can have", code="tls") from None
        self.established = False
        self.closed = False
        self._advance()

    def feed(self, data: bytes | memoryview) -> bytes:
        """Ciphertext from the network; the plaintext it completes. Check ``established``, ``closed``."""
        self._incoming.write(data)
        if not self.established:
            self._advance()
            if not self.established:
                return b""
        parts: list[bytes] = []
        read = self._object.read
        try:
            while True:
                part = read(_READ_BYTES)
                if not part:
                    self.closed = True
                    break
                parts.append(part)
        except self._ssl.SSLWantReadError:
            pass
        except self._ssl.SSLZeroReturnError:
            self.closed = True
        except self._ssl.SSLError as error:
            raise MeshdError(f"TLS failed: {error.reason or error}", code="tls") from None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def write(self, plaintext: bytes | memoryview) -> None:
        """Seal plaintext; only after the handshake."""
        try:
            self._object.write(plaintext)
        except self._ssl.SSLError as error:
            raise MeshdError(f"TLS failed: {error.reason or error}", code="tls") from None

    def outgoing(self) -> bytes:
        """Ciphertext to send now, possibly empty."""
        return self._outgoing.read() if self._outgoing.pending else b""

    def feed_eof(self) -> None:
        """The other side closed the connection without a TLS close."""
        self._incoming.write_eof()
        self.closed = True

    @property
    def version(self) -> str:
        return self._object.version() or ""

    def peer_chain(self) -> list[bytes]:
        """The certificates the server sent, leaf first, in DER form."""
        public = getattr(self._object, "get_unverified_chain", None)  # Python 3.13
        if public is not None:
            return list(public())
        inner: Any = getattr(self._object, "_sslobj", None)
        chain = getattr(inner, "get_unverified_chain", None)
        if chain is not None:
            return [certificate.public_bytes(2) for certificate in chain() or ()]  # 2: DER
        leaf = self._object.getpeercert(binary_form=True)
        return [leaf] if leaf else []

    def _advance(self) -> None:
        try:
            self._object.do_handshake()
        except self._ssl.SSLWantReadError:
            return
        except self._ssl.SSLCertVerificationError as error:
            raise MeshdError(
                f"the certificate of {self._check.name} is not valid: {error.verify_message}",
                code="tls",
                hint="If this server uses a certificate of its own, its root must be trusted on this host.",
            ) from None
        except (self._ssl.SSLError, self._ssl.CertificateError) as error:
            reason = getattr(error, "reason", None) or str(error)
            raise MeshdError(f"TLS with {self._check.name} failed: {reason}", code="tls") from None
        if self._check.pin:
            leaf = self._object.getpeercert(binary_form=True) or b""
            if not same(hashlib.sha256(leaf).digest(), self._check.pin):
                raise MeshdError(
                    f"the certificate of {self._check.name} is not the pinned one",
                    code="tls",
                    hint="Either the relay has a new certificate, or someone is between you and it.",
                )
        if self._fronted and not certificate_is_for(self._object.getpeercert() or {}, self._check.name):
            raise MeshdError(
                f"the certificate of {self._check.server_name} is not valid for {self._check.name}", code="tls"
            )
        self.established = True


def certificate_is_for(certificate: Mapping[str, Any], name: str) -> bool:
    """Whether a certificate, as ``getpeercert`` gives it, is for this host name or address (RFC 6125 6.4)."""
    names: list[tuple[str, str]] = list(certificate.get("subjectAltName", ()))
    try:
        address = parse_ip(name)
    except ValueError:
        return any(kind == "DNS" and _name_matches(pattern, name) for kind, pattern in names)
    return any(kind == "IP Address" and _is_address(text, address) for kind, text in names)


def _name_matches(pattern: str, name: str) -> bool:
    """A star stands for the whole first label, and for one label only."""
    pattern, name = pattern.lower(), name.lower().rstrip(".")
    if not pattern.startswith("*."):
        return pattern == name
    first, _, rest = name.partition(".")
    return bool(first) and "." in rest and pattern[2:] == rest


def _is_address(text: str, address: IPAddress) -> bool:
    try:
        return parse_ip(text.strip()) == address
    except ValueError:
        return False  # OpenSSL could not write it


def relay_key(engine: TlsEngine) -> bytes | None:
    """The relay's public key from the extra certificate of its chain, when it announces DERP version 2.

    Only TLS 1.3 encrypts certificates, so nothing is concluded from older versions.
    """
    if engine.version != "TLSv1.3":
        return None
    for der in engine.peer_chain()[1:]:
        found = _META_NAME.search(der)
        if found and certificate_serial(der) == 2:
            return bytes.fromhex(found[1].decode())
    return None


def certificate_serial(der: bytes) -> int | None:
    """The serial number of an X.509 certificate (RFC 5280 4.1), None when the outer layout is odd."""
    offset = 0
    for tag in (0x30, 0x30):  # Certificate, TBSCertificate
        header = _der_header(der, offset, tag)
        if header is None:
            return None
        offset = header[0]
    version = _der_header(der, offset, 0xA0)
    if version is not None:
        offset = version[0] + version[1]
    serial = _der_header(der, offset, 0x02)
    if serial is None or not 0 < serial[1] <= 20:
        return None
    return int.from_bytes(der[serial[0] : serial[0] + serial[1]], "big", signed=True)


def _der_header(der: bytes, offset: int, tag: int) -> tuple[int, int] | None:
    """Start and length of the contents of the element at ``offset`` if it has this tag and fits."""
    if len(der) < offset + 2 or der[offset] != tag:
        return None
    length, start = der[offset + 1], offset + 2
    if length & 0x80:
        count = length & 0x7F
        if not 1 <= count <= 3 or len(der) < start + count:
            return None
        length = int.from_bytes(der[start : start + count], "big")
        start += count
    return (start, length) if start + length <= len(der) else None
