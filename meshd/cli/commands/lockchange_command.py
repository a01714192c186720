"""The subcommands of `mesh lock` that change something, and its log."""

from __future__ import annotations

import binascii
from typing import Any

from meshd.base.keys import LockPublic, NodePublic
from meshd.cli.client import LocalClient
from meshd.cli.command import Command
from meshd.cli.commands.lock_command import cli_key, lock_status
from meshd.cli.errors import CliError
from meshd.cli.filevalue import text_or_file
from meshd.cli.flags import BOOL, INT, Flag, Parsed
from meshd.cli.output import out, out_json, printable

_ED25519 = 1
"""Kind of a lock key."""

_DISABLEMENTS = ("disablement:", "disablement-secret:")


def _parse_key(text: str, position: int) -> tuple[LockPublic, int]:
    """`tlpub:hex` or `nlpub:hex`, with the votes of the key after a question mark where it has more than one."""
    word, question, votes = text.partition("?")
    try:
        key = LockPublic.parse(word)
    except ValueError as error:
        raise CliError(f"parsing key {position}: {error}") from None
    if question and not (votes.isascii() and votes.isdigit() and len(votes) <= 9):
        raise CliError(f'parsing key {position} votes: "{printable(votes)}" is not a number')
    return key, int(votes) if question else 1


def _parse_secret(text: str, position: int) -> bytes:
    if not text.startswith(_DISABLEMENTS):
        raise CliError(
            f'parsing argument {position}: expected value with "disablement:" or "disablement-secret:" prefix'
        )
    try:
        return bytes.fromhex(text.partition(":")[2])
    except ValueError:
        raise CliError(f"parsing disablement {position}: not hexadecimal") from None


def _init(client: LocalClient, flags: Parsed) -> None:
    status = lock_status(client)
    if status.get("Enabled"):
        raise CliError("tailnet lock is already enabled")
    words = [(position, word) for position, word in enumerate(flags.args, 1)]
    for position, word in words:
        if word.startswith(_DISABLEMENTS):
            _parse_secret(word, position)
    keys = [_parse_key(word, position) for position, word in words if not word.startswith(_DISABLEMENTS)]
    own = cli_key(status.get("PublicKey"))
    if own not in [cli_key(key.text()) for key, _ in keys]:
        raise CliError("the tailnet lock key of the current node must be one of the trusted keys during initialization")
    raise CliError("this version of meshd cannot begin tailnet lock; run this on a node that can sign")


def _add(client: LocalClient, flags: Parsed) -> None:
    keys = _keys(flags)
    if not lock_status(client).get("Enabled"):
        raise CliError("tailnet lock is not enabled")
    client.call("POST", "tka/modify", {"AddKeys": keys, "RemoveKeys": None})


def _remove(client: LocalClient, flags: Parsed) -> None:
    keys = _keys(flags)
    status = lock_status(client)
    if not status.get("Enabled"):
        raise CliError("tailnet lock is not enabled")
    if len(status.get("TrustedKeys") or []) == 1:
        raise CliError(
            "cannot remove the last trusted signing key; use 'mesh lock disable' to disable tailnet lock instead, "
            "or add another signing key before removing one"
        )
    if flags.on("re-sign"):
        raise CliError(
            "this version of meshd cannot sign again what the removed keys have signed; with --re-sign=false the "
            "nodes signed by them are locked out"
        )
    client.call("POST", "tka/modify", {"AddKeys": None, "RemoveKeys": keys})


def _keys(flags: Parsed) -> list[dict[str, Any]]:
    """The lock keys of the arguments, as the routes take them."""
    keys = [_parse_key(word, position) for position, word in enumerate(flags.args, 1)]
    if not keys:
        raise CliError("missing argument, expected one or more tailnet lock keys")
    return [{"Kind": _ED25519, "Votes": votes, "Public": _base64(key.raw)} for key, votes in keys]


def _base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode()


def _sign(client: LocalClient, flags: Parsed) -> None:
    words = [text_or_file(word, "the key") for word in flags.args]
    if not 1 <= len(words) <= 2:
        raise CliError("usage: mesh lock sign <node-key> [<rotation-key>]")
    try:
        node_key = NodePublic.parse(words[0])
    except ValueError as error:
        raise CliError(f"decoding node-key: {error}") from None
    rotation = _parse_key(words[1], 2)[0].raw if len(words) > 1 else b""
    client.call("POST", "tka/sign", {"NodeKey": node_key.text(), "RotationPublic": _base64(rotation)})


def _disable(client: LocalClient, flags: Parsed) -> None:
    secrets = [_parse_secret(word, position) for position, word in enumerate(flags.args, 1)]
    if len(secrets) != 1:
        raise CliError("usage: mesh lock disable <disablement-secret>")
    client.call("POST", "tka/disable", secrets[0])


def _local_disable(client: LocalClient, flags: Parsed) -> None:
    client.call("POST", "tka/force-local-disable", {})


def _log(client: LocalClient, flags: Parsed) -> None:
    if not lock_status(client).get("Enabled"):
        raise CliError("Tailnet Lock is not enabled")
    updates: list[dict[str, Any]] = client.json("GET", f"tka/log?limit={flags.number('limit')}") or []
    if flags.on("json"):
        messages = [{"Hash": update.get("Hash"), "Raw": update.get("Raw")} for update in updates]
        out_json({"SchemaVersion": "1", "Messages": messages}, 2)
        return
    for update in updates:
        out(f"update {printable(update.get('Hash'))} ({printable(update.get('Change'))})\n")


INIT = Command(
    "init",
    usage="mesh lock init [--gen-disablement-for-support] --gen-disablements N <trusted-key>...",
    short="Check the keys that tailnet lock would begin with",
    flags=[
        Flag("confirm", BOOL, False, "do not ask"),
        Flag("gen-disablement-for-support", BOOL, False, "make a disablement secret for those who run the network"),
        Flag("gen-disablements", INT, 1, "number of disablement secrets to make"),
    ],
    run=_init,
)

ADD = Command("add", usage="mesh lock add <public-key>...", short="Trust more signing keys", run=_add)

REMOVE = Command(
    "remove",
    usage="mesh lock remove [--re-sign=false] <public-key>...",
    short="Trust signing keys no longer",
    flags=[Flag("re-sign", BOOL, True, "sign again what the removed keys have signed")],
    run=_remove,
)

SIGN = Command(
    "sign",
    usage="mesh lock sign <node-key> [<rotation-key>]",
    short="Sign the key of a node",
    long="A key can be read from a file: file:PATH.",
    run=_sign,
)

DISABLE = Command(
    "disable",
    usage="mesh lock disable <disablement-secret>",
    short="Use up a disablement secret to end tailnet lock",
    long="All nodes learn the secret; it is worth nothing afterwards.",
    run=_disable,
)

LOCAL_DISABLE = Command(
    "local-disable",
    usage="mesh lock local-disable",
    short="Ignore tailnet lock on this node only",
    long="This node then accepts traffic of nodes that are locked out. They still do not accept its traffic.",
    run=_local_disable,
)

LOG = Command(
    "log",
    usage="mesh lock log [--limit N]",
    short="List the changes of tailnet lock",
    flags=[
        Flag("json", BOOL, False, "print JSON"),
        Flag("limit", INT, 50, "number of changes at most"),
    ],
    run=_log,
)
