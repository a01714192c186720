"""JSON to structs and back, by the rules that Go's encoding/json applies to them.

Names match in any letter case, unknown names are ignored, null leaves a field at its default, integers
must be written as integers. The usual message, with every name spelled exactly, is decoded in one pass;
another spelling or a null in an unusual place costs a second one.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final, TypeVar

import msgspec

from meshd._fast.jsonnames import MAX_DEPTH, MISSPELLED, TOO_DEEP
from meshd.base.errors import WireError
from meshd.wire.control.shape import Shape, shape_of
from meshd.wire.control.values import FORMS

_T = TypeVar("_T", bound=msgspec.Struct)

_encoder: Final = msgspec.json.Encoder()
_BAD_INPUT: Final = (msgspec.MsgspecError, UnicodeError, RecursionError)


@lru_cache(maxsize=64)
def _decoder(kind: type[_T]) -> msgspec.json.Decoder[_T]:
    return msgspec.json.Decoder(kind)


@lru_cache(maxsize=64)
def _shape(kind: type[msgspec.Struct]) -> Shape:
    return shape_of(kind)


def decode(kind: type[_T], data: bytes) -> _T:
    """The value of type `kind` written in `data`; `WireError` names the field that is wrong."""
    outlook = _shape(kind).names.inspect(data)
    if outlook & TOO_DEEP:
        raise WireError(f"{kind.__name__} is nested deeper than {MAX_DEPTH} levels")
    if outlook & MISSPELLED:
        return _decode_loosely(kind, data)
    decoder: msgspec.json.Decoder[_T] = _decoder(kind)
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        if "got `null`" in str(error):
            return _decode_loosely(kind, data)
        raise _misfit(kind, error) from error
    except _BAD_INPUT as error:
        raise WireError(f"{kind.__name__} is not valid JSON: {error}") from error


def _decode_loosely(kind: type[_T], data: bytes) -> _T:
    try:
        value: Any = msgspec.json.decode(data)
        return msgspec.convert(_shape(kind).normalise(value), kind, str_keys=True, builtin_types=())
    except msgspec.ValidationError as error:
        raise _misfit(kind, error) from error
    except _BAD_INPUT as error:
        raise WireError(f"{kind.__name__} is not valid JSON: {error}") from error


def _misfit(kind: type[msgspec.Struct], error: msgspec.ValidationError) -> WireError:
    """Says in words which field is wrong; the value itself is never told, it may be a secret."""
    complaint, *paths = str(error).split(" - at ")
    steps = (path.strip("`").removeprefix("$").removeprefix(".") for path in reversed(paths))
    field = ".".join(filter(None, steps)) or "the document"
    for pattern, words in FORMS.items():
        if repr(pattern) in complaint:
            return WireError(f"{kind.__name__}: {field} is malformed", expected=words)
    return WireError(f"{kind.__name__}: {field}: {complaint.replace('`', '')}")


def encode(value: msgspec.Struct) -> bytes:
    """Compact JSON; `WireError` when a text in it is not valid Unicode."""
    try:
        return _encoder.encode(value)
    except UnicodeError as error:
        raise WireError(f"{type(value).__name__} holds text that is not Unicode") from error
