"""What may follow on a command line, for the completion of shells."""

from __future__ import annotations

from meshd.cli.client import LocalClient
from meshd.cli.command import Command
from meshd.cli.errors import CliError
from meshd.cli.flags import Flag

DEFAULT = 0
"""Directive: complete file names where nothing is suggested."""
NO_FILES = 4
"""Directive: what is suggested is all there can be."""

_PATIENCE_S = 2.0
"""The shell waits, and its user: a daemon that hangs gives no names."""


class _Line:
    """A command line up to the word under the cursor: where in the tree it is."""

    def __init__(self, root: Command, words: list[str], socket: str) -> None:
        self.command = root
        self.arguments: list[str] = []
        self.socket = socket
        self.value_of: Flag | None = None
        self.flags_over = False
        for word in words:
            self._take(word)

    def _take(self, word: str) -> None:
        if self.value_of is not None:
            self._set(self.value_of, word)
            self.value_of = None
        elif word.startswith("-") and len(word) > 1 and not self.arguments and not self.flags_over:
            name, equals, value = word.lstrip("-").partition("=")
            flag = next((flag for flag in self.command.flags if flag.name == name), None)
            self.flags_over = word == "--"
            if flag is not None and equals:
                self._set(flag, value)
            elif flag is not None and not flag.is_bool:
                self.value_of = flag
        else:
            part = None if self.arguments else self.command.part(word)
            if part is None:
                self.arguments.append(word)
            else:
                self.command, self.flags_over = part.load(), False

    def _set(self, flag: Flag, value: str) -> None:
        if flag.name == "socket":
            self.socket = value


def complete(root: Command, words: list[str], socket: str, *, flags: bool = True) -> tuple[list[tuple[str, str]], int]:
    """Suggestions with their descriptions for the last of `words`, and a directive.

    `flags` off: flags are only suggested for a word that begins with a dash.
    """
    *before, last = words or [""]
    line = _Line(root, before, socket)
    if line.value_of is not None:
        return _values(line, line.value_of.name, last, "")
    name, equals, value = last.lstrip("-").partition("=")
    if last.startswith("-") and equals:
        return _values(line, name, value, last[: len(last) - len(value)])
    found: list[tuple[str, str]] = []
    if not last.startswith("-"):
        if not line.arguments:
            found += [(part.name, part.short) for part in line.command.parts if not part.hidden]
        if line.command.complete is not None:
            found += [(word, "") for word in line.command.complete(LocalClient(line.socket), line.arguments)]
    if not line.arguments and not line.flags_over and (last.startswith("-") or (flags and not last)):
        dashes = "-" if last.startswith("-") and not last.startswith("--") and len(last) > 1 else "--"
        visible = sorted((flag for flag in line.command.flags if not flag.hidden), key=lambda flag: flag.name)
        found += [(dashes + flag.name, flag.help) for flag in visible]
    found = [(word, text) for word, text in found if word.startswith(last)]
    closed = bool(line.command.parts) or line.command.complete is not None
    return found, NO_FILES if closed else DEFAULT


def _values(line: _Line, flag: str, typed: str, before: str) -> tuple[list[tuple[str, str]], int]:
    """What a flag may be set to, with `before` in front of it."""
    words = _VALUES.get(flag)
    if flag == "exit-node":
        words = _names(LocalClient(line.socket), exit_nodes=True)
    if words is None:
        return [], DEFAULT
    return [(before + word, "") for word in words if word.startswith(typed)], NO_FILES


_VALUES = {
    "accept-risk": ["lose-ssh", "all"],
    "conflict": ["skip", "overwrite", "rename"],
    "format": ["json", "json-line"],
    "netfilter-mode": ["on", "nodivert", "off"],
    "qr-format": ["auto", "ascii", "large", "small"],
}
"""Flags with a fixed set of values; a flag of one name means the same wherever it is."""


def complete_node(client: LocalClient, arguments: list[str]) -> list[str]:
    """The names of the peers, for a first argument that is one."""
    return [] if arguments else _names(client)


def complete_profile(client: LocalClient, arguments: list[str]) -> list[str]:
    """The login profiles as `mesh switch` takes them: by ID and by name; and to remove one."""
    if arguments and arguments != ["remove"]:
        return []
    client.give(_PATIENCE_S)
    try:
        profiles = client.json("GET", "profiles/") or []
    except (CliError, TimeoutError):
        profiles = []
    words = [str(profile.get(name) or "") for profile in profiles for name in ("ID", "Name")]
    return [word for word in words if word.isprintable() and word] + ([] if arguments else ["remove"])


def _names(client: LocalClient, *, exit_nodes: bool = False) -> list[str]:
    client.give(_PATIENCE_S)
    try:
        peers = (client.status().get("Peer") or {}).values()
    except (CliError, TimeoutError):
        return []
    wanted = (peer for peer in peers if peer.get("ExitNodeOption") or not exit_nodes)
    names = (str(peer.get("DNSName") or "").rstrip(".") for peer in wanted)
    return sorted(name for name in names if name.isprintable() and name)
