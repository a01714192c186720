"""`mesh lock`: the command, and what its subcommands share."""

from __future__ import annotations

from meshd.cli.client import JSON, LocalClient
from meshd.cli.command import Command, Part
from meshd.cli.errors import CliError
from meshd.cli.flags import BOOL, Flag, Parsed
from meshd.cli.output import out, out_json, printable


def lock_status(client: LocalClient) -> JSON:
    """The daemon's status of tailnet lock."""
    status = client.json("GET", "tka/status")
    return status if isinstance(status, dict) else {}


def cli_key(text: object) -> str:
    """A lock key as people exchange it: `tlpub:` instead of `nlpub:`."""
    key = str(text or "")
    return "tlpub:" + key.removeprefix("nlpub:") if key.startswith("nlpub:") else key


def is_zero(key: str) -> bool:
    """Whether a key stands for none."""
    return not key.partition(":")[2].strip("0")


def _status(client: LocalClient, flags: Parsed) -> None:
    if flags.args:
        raise CliError("mesh lock status: unexpected argument")
    status = lock_status(client)
    if flags.values.get("json"):
        out_json(_as_json(status), 2)
    else:
        _print(status)


def _as_json(status: JSON) -> JSON:
    """Version 1 of the JSON of this command."""
    shown: JSON = {"SchemaVersion": "1", "Enabled": bool(status.get("Enabled"))}
    key = cli_key(status.get("PublicKey"))
    if not is_zero(key):
        shown["PublicKey"] = key
    if status.get("NodeKey"):
        shown["NodeKey"] = status["NodeKey"]
    if not shown["Enabled"]:
        return shown
    if status.get("Head"):
        shown["Head"] = status["Head"]
    shown["NodeKeySigned"] = bool(status.get("NodeKeySigned"))
    shown["TrustedKeys"] = [
        {
            "Kind": key.get("Kind") or "",
            "Votes": key.get("Votes") or 0,
            "PublicKey": cli_key(key.get("Key")),
            **({"Meta": key["Metadata"]} if key.get("Metadata") else {}),
        }
        for key in status.get("TrustedKeys") or []
    ]
    for name in ("VisiblePeers", "FilteredPeers"):
        shown[name] = [
            {
                "DNSName": peer.get("Name") or "",
                "ID": peer.get("StableID") or "",
                "TailscaleIPs": peer.get("TailscaleIPs") or [],
                "NodeKey": peer.get("NodeKey") or "",
            }
            for peer in status.get(name) or []
        ]
    shown["StateID"] = status.get("StateID") or 0
    return shown


def _print(status: JSON) -> None:
    enabled = bool(status.get("Enabled"))
    key = cli_key(status.get("PublicKey"))
    out(f"Tailnet Lock is {'ENABLED' if enabled else 'NOT enabled'}.\n")
    if enabled and status.get("NodeKey") and not is_zero(key):
        if status.get("NodeKeySigned"):
            out("This node is accessible under Tailnet Lock.\n")
        else:
            out("This node is LOCKED OUT by Tailnet Lock, and action is required to establish connectivity.")
            out(
                f"Run the following command on a node with a trusted key:\n\tmesh lock sign {status['NodeKey']} {key}\n"
            )
    if not is_zero(key):
        out(f"This node's tailnet-lock key: {key}\n")
    if enabled and status.get("TrustedKeys"):
        out("Trusted signing keys:")
        for trusted in status["TrustedKeys"]:
            note = "(self)" if trusted.get("Key") == status.get("PublicKey") else ""
            out(f"\t{cli_key(trusted.get('Key'))}\t{trusted.get('Votes') or 0}\t{note}{_preauth(trusted)}")
    if enabled and status.get("FilteredPeers"):
        out("\nThe following nodes are locked out by tailnet lock and cannot connect to other nodes:")
        for peer in status["FilteredPeers"]:
            addresses = ",".join(peer.get("TailscaleIPs") or [])
            words = (peer.get("Name") or "", addresses, peer.get("StableID") or "", peer.get("NodeKey") or "")
            out("".join("\t" + printable(word) for word in words))


def _preauth(key: JSON) -> str:
    about = key.get("Metadata") or {}
    if about.get("purpose") != "pre-auth key":
        return ""
    return "(pre-auth key" + (f" {printable(about['authkey_stableid'])})" if about.get("authkey_stableid") else ")")


STATUS = Command(
    "status",
    usage="mesh lock status",
    short="Show the state of tailnet lock",
    flags=[Flag("json", BOOL, False, "print JSON")],
    run=_status,
)

COMMAND = Command(
    "lock",
    usage="mesh lock <subcommand> [arguments...]",
    short="Show and manage tailnet lock",
    long="""\
With tailnet lock the nodes of a network only accept new nodes that one of them has signed, so that
the coordination server alone cannot add any. Without a subcommand its state is shown.""",
    parts=[
        Part("init", "Check the keys that tailnet lock would begin with", "lockchange_command", "INIT"),
        Part("status", STATUS.short, "lock_command", "STATUS"),
        Part("add", "Trust more signing keys", "lockchange_command", "ADD"),
        Part("remove", "Trust signing keys no longer", "lockchange_command", "REMOVE"),
        Part("sign", "Sign the key of a node", "lockchange_command", "SIGN"),
        Part("disable", "Use up a disablement secret to end tailnet lock", "lockchange_command", "DISABLE"),
        Part("log", "List the changes of tailnet lock", "lockchange_command", "LOG"),
        Part("local-disable", "Ignore tailnet lock on this node only", "lockchange_command", "LOCAL_DISABLE"),
    ],
    run=_status,
)
