"""`mesh dns query`."""

from __future__ import annotations

import binascii
import sys
from urllib.parse import urlencode

from meshd.cli.client import JSON, LocalClient
from meshd.cli.command import Command
from meshd.cli.commands.dnsstatus_command import resolver, resolver_text
from meshd.cli.dnsanswer import Answer, read_answers
from meshd.cli.errors import ApiError, CliError
from meshd.cli.flags import BOOL, Flag, Parsed
from meshd.cli.output import columns, out, out_json, printable
from meshd.cli.progress import progress


def _run(client: LocalClient, flags: Parsed) -> None:
    if not flags.args:
        raise CliError("missing required argument: name")
    misplaced = [arg for arg in flags.args[1:] if arg.startswith("-")]
    if misplaced:
        words = printable(", ".join(misplaced))
        raise CliError(f"unexpected flags after query name: {words}; see 'mesh dns query --help'")
    if len(flags.args) > 2:
        raise CliError(f"unexpected extra arguments: {printable(' '.join(flags.args[2:]))}")
    name, kind = flags.args[0], flags.args[1].upper() if len(flags.args) > 1 else "A"
    try:
        with progress(f"asking for {printable(name)}"):
            reply = client.json("GET", "dns-query?" + urlencode({"name": name, "type": kind}))
    except ApiError as error:
        raise CliError(f"failed to query DNS: {error.message}") from None
    code, answers = _decode(reply)
    resolvers = [resolver(entry) for entry in reply.get("Resolvers") or []]
    if flags.on("json"):
        _print_json(name, kind, resolvers, code, answers)
    else:
        _print_text(name, kind, resolvers, code, answers)


def _decode(reply: JSON) -> tuple[str, list[Answer] | None]:
    """The response code and the answers; None for those of a failure."""
    try:
        code, answers = read_answers(binascii.a2b_base64(str(reply.get("Bytes") or "")))
    except ValueError as error:
        raise CliError(f"failed to parse DNS response: {error}") from None
    return code, answers if code == "RCodeSuccess" else None


def _print_json(name: str, kind: str, resolvers: list[JSON], code: str, answers: list[Answer] | None) -> None:
    shown: JSON = {"Name": name, "QueryType": kind}
    if resolvers:
        shown["Resolvers"] = resolvers
    shown["ResponseCode"] = code
    if answers is not None:
        shown["Answers"] = [
            {"Name": a.name, "TTL": a.ttl, "Class": a.rrclass, "Type": a.type, "Body": a.body} for a in answers
        ]
    out_json(shown, 2)


def _print_text(name: str, kind: str, resolvers: list[JSON], code: str, answers: list[Answer] | None) -> None:
    out(f'DNS query for "{printable(name)}" ({printable(kind)}) using internal resolver:\n')
    if len(resolvers) == 1:
        out(f"Forwarding to resolver: {resolver_text(resolvers[0])}")
    else:
        out("Multiple resolvers available:" if resolvers else "No resolver but meshd itself.")
        for entry in resolvers:
            out(f"  - {resolver_text(entry)}")
    out(f"\nResponse code: {code}\n")
    if answers is None:
        out("No answers were returned.")
        return
    if not answers:
        out("  (no answers found)")
    rows = [["Name", "TTL", "Class", "Type", "Body"], ["----", "---", "-----", "----", "----"]]
    rows += [[a.name, str(a.ttl), a.rrclass, a.type, printable(a.body)] for a in answers]
    sys.stdout.write(columns(rows))
    out()


COMMAND = Command(
    "query",
    usage="mesh dns query [--json] <name> [type]",
    short="Ask the resolver of meshd",
    long="""\
Asks the resolver of meshd (100.100.100.100) for a name and shows which resolvers it would ask in
turn. The type is A when it is not named; others are AAAA, CNAME, MX, NS, PTR, SRV and TXT.""",
    flags=[Flag("json", BOOL, False, "print JSON")],
    run=_run,
)
