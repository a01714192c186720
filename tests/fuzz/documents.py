"""JSON to start from: pieces of recorded messages, each short enough to be changed many times a second."""

from __future__ import annotations

import json
from typing import Any

from tests.fuzz.target import vector

PIECE_BYTES = 700


def cut(value: Any) -> Any:
    """The same shape with short lists."""
    if isinstance(value, dict):
        return {name: cut(item) for name, item in list(value.items())[:40]}
    if isinstance(value, list):
        return [cut(item) for item in value[:2]]
    return value


def pieces(value: Any) -> list[bytes]:
    """A document for every member, and the whole where it is short."""
    out = []
    for part in (value, *({name: item} for name, item in value.items())):
        text = json.dumps(cut(part), separators=(",", ":")).encode()
        if len(text) <= PIECE_BYTES:
            out.append(text)
    return out


def control_messages(*kinds: str) -> list[bytes]:
    """Pieces of what a coordination server sent."""
    messages = vector("control_recorded")["messages"]
    return [piece for message in messages for kind in kinds if kind in message for piece in pieces(message[kind])]


def map_messages() -> list[bytes]:
    return control_messages("map")


def peers() -> list[bytes]:
    """Single nodes of the network."""
    messages = [message["map"] for message in vector("control_recorded")["messages"] if "map" in message]
    nodes = [node for message in messages for node in (message.get("Node"), *message.get("PeersChanged", ())) if node]
    return [piece for node in nodes for piece in pieces(node)]
