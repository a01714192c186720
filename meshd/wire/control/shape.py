"""Brings a decoded JSON document into the exact spelling of a struct type."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import inspect

from meshd._fast.jsonnames import NameTable


class Shape:
    """The field names of one struct type and of everything below it."""

    __slots__ = ("_root", "names")

    def __init__(self, root: _Struct, names: set[bytes]) -> None:
        self._root = root
        self.names = NameTable(names)
        """Every name that is right somewhere in the document. One that is right in one place and spelled
        otherwise in another (`node` of an SSH principal, `Node` of a map response) passes for right in both."""

    def normalise(self, value: Any) -> Any:
        """A copy with names respelled, unknown names and nulls in unfit places dropped."""
        return self._root.apply(value)


class _Plain:
    """A value that is left alone."""

    def __init__(self, nullable: bool) -> None:
        self.nullable = nullable

    def apply(self, value: Any) -> Any:
        return value


class _Struct(_Plain):
    def __init__(self, nullable: bool) -> None:
        super().__init__(nullable)
        self.fields: dict[str, _Plain] = {}
        self.spelling: dict[str, str] = {}

    def apply(self, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        result: dict[str, Any] = {}
        for name, item in value.items():
            if name not in self.fields:
                name = self.spelling.get(name.lower(), "")
                if not name:
                    continue
            field = self.fields[name]
            if item is not None:
                result[name] = field.apply(item)
            elif field.nullable:
                result[name] = None
            else:
                result.pop(name, None)
        return result


class _Sequence(_Plain):
    def __init__(self, nullable: bool, item: _Plain) -> None:
        super().__init__(nullable)
        self.item = item

    def apply(self, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        apply, nullable = self.item.apply, self.item.nullable
        return [apply(item) for item in value if nullable or item is not None]


class _Mapping(_Plain):
    def __init__(self, nullable: bool, item: _Plain) -> None:
        super().__init__(nullable)
        self.item = item

    def apply(self, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        apply, nullable = self.item.apply, self.item.nullable
        return {
            name: None if item is None else apply(item) for name, item in value.items() if nullable or item is not None
        }


_ANY: Final = _Plain(nullable=True)


def shape_of(kind: type[msgspec.Struct]) -> Shape:
    """Read the shape of a struct type off its annotations."""
    names: set[bytes] = set()
    root = _build(inspect.type_info(kind), names, nullable=False)
    if not isinstance(root, _Struct):
        raise TypeError(f"{kind} is not a struct type")
    return Shape(root, names)


def _build(info: inspect.Type, names: set[bytes], nullable: bool) -> _Plain:
    match info:
        case inspect.UnionType(types=types):
            parts = [part for part in types if not isinstance(part, inspect.NoneType)]
            optional = len(parts) < len(types)
            return _build(parts[0], names, optional) if len(parts) == 1 else _Plain(optional)
        case inspect.StructType(fields=fields):
            struct = _Struct(nullable)
            for field in fields:
                names.add(field.encode_name.encode())
                struct.fields[field.encode_name] = _build(field.type, names, nullable=False)
                struct.spelling[field.encode_name.lower()] = field.encode_name
            return struct
        case inspect.VarTupleType(item_type=item):
            return _Sequence(nullable, _build(item, names, nullable=False))
        case inspect.DictType(value_type=item):
            return _Mapping(nullable, _build(item, names, nullable=False))
        case inspect.AnyType():
            return _ANY
        case _:
            return _Plain(nullable)
