"""Checked scalar types of the control protocol, and the rules by which fields are written.

Keys, addresses and times stay text on the structs; their form is checked while decoding, so that a bad
one is refused with the name of its field. Zero keys and the zero time mean "unset" in both directions.

A field whose value is its default is left out. Fields that are always written say so with `always()`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeVar

import msgspec

from meshd.base.gotime import ZERO_TIME

_T = TypeVar("_T")

_HEX64: Final = "[0-9a-fA-F]{64}"
_DATE: Final = (
    r"(?:\d{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])"
    r"|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)"
    r"|02-(?:0[1-9]|1\d|2[0-8]))"
    r"|(?:\d\d(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29)"
)
_CLOCK: Final = r"T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,9})?(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)"
_BYTE: Final = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_V4: Final = rf"{_BYTE}(?:\.{_BYTE}){{3}}"
_V6: Final = r"(?=[^:]*:[^:]*:)[0-9a-fA-F:]{2,39}(?:(?<=:)" + _V4 + ")?"
_ZONE: Final = r"(?:%[\s\S]+)?"  # whatever a node makes of it; servers pass it on
_PORT: Final = r"(?:6553[0-5]|655[0-2]\d|65[0-4]\d\d|6[0-4]\d{3}|[1-5]\d{4}|[1-9]\d{0,3}|0)"


FORMS: Final[dict[str, str]] = {}
"""What each checked pattern stands for, in words, for error messages."""


def _form(words: str, body: str) -> msgspec.Meta:
    # Digits are ASCII only; `\Z` because `$` would let a newline follow.
    pattern = rf"(?a)\A(?:{body})\Z"
    FORMS[pattern] = words
    return msgspec.Meta(pattern=pattern)


NodeKeyText = Annotated[str, _form("nodekey: and 64 hex digits", f"nodekey:{_HEX64}")]
MachineKeyText = Annotated[str, _form("mkey: and 64 hex digits", f"mkey:{_HEX64}")]
DiscoKeyText = Annotated[str, _form("discokey: and 64 hex digits", f"discokey:{_HEX64}")]
LockKeyText = Annotated[str, _form("nlpub: and 64 hex digits", f"(?:nlpub|tlpub):{_HEX64}")]
TimeText = Annotated[str, _form("an RFC 3339 time with its zone", _DATE + _CLOCK)]
IPText = Annotated[str, _form("an IP address", rf"{_V4}|{_V6}{_ZONE}|")]
"""An address; empty text means none."""
PrefixText = Annotated[str, _form("address/bits", rf"{_V4}/(?:3[0-2]|[12]?\d)|{_V6}/(?:12[0-8]|1[01]\d|[1-9]?\d)|")]
"""Empty text means none, here and below: servers write it where a node has sent it."""
AddrPortText = Annotated[str, _form("ip:port", rf"{_V4}:{_PORT}|\[{_V6}{_ZONE}\]:{_PORT}|")]

Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]

CapMap = dict[str, tuple[Any, ...] | None]
"""Capability name to its JSON values; null and an empty list both mean "granted, without value"."""

ZERO_NODE_KEY: Final = "nodekey:" + "0" * 64
ZERO_MACHINE_KEY: Final = "mkey:" + "0" * 64
ZERO_DISCO_KEY: Final = "discokey:" + "0" * 64
ZERO_LOCK_KEY: Final = "nlpub:" + "0" * 64

__all__ = [
    "FORMS",
    "ZERO_DISCO_KEY",
    "ZERO_LOCK_KEY",
    "ZERO_MACHINE_KEY",
    "ZERO_NODE_KEY",
    "ZERO_TIME",
    "AddrPortText",
    "CapMap",
    "DiscoKeyText",
    "IPText",
    "Int64",
    "LockKeyText",
    "MachineKeyText",
    "NodeKeyText",
    "Port",
    "PrefixText",
    "TimeText",
    "always",
    "check_forms",
]


def always(value: _T) -> _T:
    """A default that is written out all the same (msgspec leaves out plain defaults only)."""

    def produce() -> _T:
        return value

    field: Any = msgspec.field(default_factory=produce)
    return field  # type: ignore[no-any-return]


def check_forms(value: msgspec.Struct, forms: Mapping[str, Any]) -> None:
    """Check attributes against the types that they stand for; ValueError as msgspec words it for a field."""
    for name, kind in forms.items():
        try:
            msgspec.convert(getattr(value, name), kind)
        except msgspec.ValidationError as error:
            complaint, _, path = str(error).partition(" - at ")
            field = next(f.encode_name for f in msgspec.structs.fields(value) if f.name == name)
            raise ValueError(f"{complaint} - at `$.{field}{path.strip('`').removeprefix('$')}`") from None
