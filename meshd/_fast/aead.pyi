"""ChaCha20-Poly1305 (RFC 8439) with WireGuard's counter nonces, behind a small table of back ends.

"sodium" is libsodium, always present. "openssl" is the system's libcrypto, opened at run time when there is one;
"split" joins libcrypto's ChaCha20 and Poly1305 in a way that suits packets better (OpenSSL 3). "auto" sends large
packets to the fastest of them and small ones to libsodium, by a measurement of about 1 ms. "boringssl" is a libcrypto
of BoringSSL or AWS-LC, opened when the environment variable MESHD_AEAD_LIBRARY names it, now or when this was built.
MESHD_AEAD names the back end at import (default "auto"). A name or library that cannot be used makes the import fail
with ValueError.

The nonce is four zero bytes and the counter as little-endian u64. There is no associated data.
"""

from typing import final

from _typeshed import ReadableBuffer, WriteableBuffer

def available() -> tuple[str, ...]:
    """Names that select() takes on this machine."""

def selected() -> tuple[str, str, int]:
    """The back end in use; for "auto" with the back end of large packets and the plaintext size they begin at."""

def select(name: str) -> None:
    """Chooses the back end for ciphers and workers made from now on; "auto" measures again.

    Raises ValueError for a back end that this machine does not have.
    """

def load_library(path: str) -> None:
    """Adds "boringssl" from this libcrypto to the back ends; once in a process. ValueError when it is not usable."""

@final
class Cipher:
    """One back end with its own context. Not locked: one thread at a time."""

    def __new__(cls, name: str | None = None) -> Cipher:
        """`name` is one of available(), None for the selected one. ValueError when it is not available."""

    @property
    def name(self) -> str:
        """Name of the back end."""

    def seal_into(self, out: WriteableBuffer, plain: ReadableBuffer, counter: int, key: ReadableBuffer) -> int:
        """Seals `plain` into out[:len(plain) + 16] and returns that length.

        `out` may start where `plain` starts. ValueError for a short output, a key that is not 32 bytes, or buffers
        that overlap at different starts; OverflowError for a counter outside 0..2**64-1.
        """

    def open_into(self, out: WriteableBuffer, sealed: ReadableBuffer, counter: int, key: ReadableBuffer) -> int:
        """Opens `sealed` (ciphertext and tag) into out[:len(sealed) - 16].

        Returns the plaintext length, or -1 when `sealed` is not authentic; the output is then zero. Errors as for
        seal_into.
        """

    def forget(self) -> None:
        """Wipes the key of the last packet from the context, which stays usable."""

    def seal(self, plain: ReadableBuffer, nonce: ReadableBuffer, key: ReadableBuffer, ad: ReadableBuffer) -> bytes:
        """Ciphertext and tag, for any nonce of 12 bytes and with additional data."""

    def open(
        self, sealed: ReadableBuffer, nonce: ReadableBuffer, key: ReadableBuffer, ad: ReadableBuffer
    ) -> bytes | None:
        """The plaintext, None when `sealed` is not authentic. ValueError for a nonce or key of a wrong length."""

    def seal_transport(
        self, packet: ReadableBuffer, receiver: int, counter: int, key: ReadableBuffer, mtu: int = 0
    ) -> bytes:
        """A WireGuard transport message (type 4) around one IP packet, or a keepalive for an empty one.

        `receiver` is the peer's session index (u32). The packet is zero padded to a multiple of 16 bytes, but not
        beyond `mtu` (0: no limit).
        """

    def open_transport(self, message: ReadableBuffer, key: ReadableBuffer) -> tuple[int, int, bytes] | None:
        """(receiver index, counter, plaintext with padding) of a transport message, None when it is not authentic."""

def seal_into(out: WriteableBuffer, plain: ReadableBuffer, counter: int, key: ReadableBuffer) -> int:
    """Cipher.seal_into of the selected back end."""

def open_into(out: WriteableBuffer, sealed: ReadableBuffer, counter: int, key: ReadableBuffer) -> int:
    """Cipher.open_into of the selected back end."""
