"""The two JSON objects that a relay and its client exchange in boxes. Their names are of mixed case."""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec

from meshd.wire.control import decode, encode

_T = TypeVar("_T", bound=msgspec.Struct)
_Count = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class ClientInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What a client says of itself. The mesh key is a secret of the relay operator and not in `repr`."""

    mesh_key: str = msgspec.field(name="meshKey", default="")
    version: _Count = 0
    can_ack_pings: bool = msgspec.field(name="CanAckPings", default_factory=bool)
    is_prober: bool = msgspec.field(name="IsProber", default=False)
    app_name: str = msgspec.field(name="AppName", default="")

    def __repr__(self) -> str:
        return f"ClientInfo(version={self.version}, can_ack_pings={self.can_ack_pings}, is_prober={self.is_prober})"


class ServerInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What the server answers. With a token bucket the client must drop what goes beyond it; 0 = none."""

    version: _Count = 0
    token_bucket_bytes_per_second: _Count = msgspec.field(name="TokenBucketBytesPerSecond", default=0)
    token_bucket_bytes_burst: _Count = msgspec.field(name="TokenBucketBytesBurst", default=0)


def encode_info(info: ClientInfo | ServerInfo) -> bytes:
    """JSON with the exact names."""
    return encode(info)


def decode_info(kind: type[_T], data: bytes) -> _T:
    """Names in any letter case; unknown ones ignored; `WireError` on anything malformed."""
    return decode(kind, data)
