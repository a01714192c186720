"""Environment variables from a file (``TS_DEBUG_ENV_FILE``): lines ``NAME=value``, ``#`` comments, optional quotes."""

from __future__ import annotations

import ast
import re
from collections.abc import MutableMapping

MAX_BYTES = 1 << 20
_QUOTED = re.compile(
    r'"(?:[^"\\]|\\[abfnrtv\\"]|\\x[0-9A-Fa-f]{2}|\\[0-3][0-7]{2}|\\u[0-9A-Fa-f]{4}|\\U[0-9A-Fa-f]{8})*"'
)


def apply_env_file(environment: MutableMapping[str, str]) -> str:
    """Set what the file says, where one is named. Returns what is wrong with it, ``""`` for nothing.

    Lines before a bad one are in force. A value is never repeated in the answer: it may be a secret.
    """
    path = environment.get("TS_DEBUG_ENV_FILE", "")
    if not path:
        return ""
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_BYTES).decode()
    except OSError as error:
        return f"the file {path} of TS_DEBUG_ENV_FILE cannot be read: {error.strerror}"
    except UnicodeDecodeError:
        return f"the file {path} of TS_DEBUG_ENV_FILE is no UTF-8 text"
    for number, line in enumerate(text.splitlines(), 1):
        name, equals, value = (part.strip() for part in line.partition("="))
        if not equals or not name or name.startswith("#"):
            continue
        if value.startswith('"'):
            unquoted = _unquote(value)
            if unquoted is None:
                return f"{path}, line {number}: the quoted value of {name} is malformed"
            value = unquoted
        if "\0" in name + value:
            return f"{path}, line {number}: a variable cannot hold a zero byte"
        environment[name] = value
    return ""


def _unquote(text: str) -> str | None:
    if not _QUOTED.fullmatch(text):
        return None
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError):  # an escape for a character that does not exist
        return None
    return value if isinstance(value, str) else None
