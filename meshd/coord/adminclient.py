"""The other end of the administration socket, for the command line."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from meshd.base.errors import MeshdError

TIMEOUT_S = 35.0
"""A little more than the server allows itself."""


def call(path: Path, op: str, args: dict[str, Any]) -> Any:
    """Ask the running server; MeshdError with its refusal, or when it cannot be reached."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with connection:
        connection.settimeout(TIMEOUT_S)
        try:
            connection.connect(str(path))
            connection.sendall(json.dumps({"op": op, "args": args}).encode() + b"\n")
            answer = bytearray()
            while not answer.endswith(b"\n"):
                part = connection.recv(65536)
                if not part:
                    break
                answer += part
        except PermissionError:
            raise MeshdError(
                f"no permission to use {path}",
                code="denied",
                hint="Run the command as the user that runs mesh-coord, or with sudo.",
            ) from None
        except (FileNotFoundError, ConnectionRefusedError):
            raise MeshdError(
                f"no mesh-coord server is running on {path.parent}",
                code="unreachable",
                hint="Start it with `mesh-coord serve`, or name its state directory with --state-dir.",
            ) from None
        except OSError as error:
            raise MeshdError(f"cannot talk to the server at {path}: {error}", code="unreachable") from None
    try:
        decoded = json.loads(answer)
    except ValueError:
        raise MeshdError("the server ended the connection without an answer", code="unreachable") from None
    failure = decoded.get("error")
    if failure is not None:
        raise MeshdError(failure["message"], code=failure["code"], hint=failure["hint"])
    return decoded["result"]
