"""`mesh licenses`."""

from __future__ import annotations

from meshd.cli.client import LocalClient
from meshd.cli.command import Command
from meshd.cli.errors import CliError
from meshd.cli.flags import Parsed
from meshd.cli.output import columns, out, printable
from meshd.cli.state import no_arguments

_CLASSIFIER = "License :: OSI Approved :: "


def _run(client: LocalClient, flags: Parsed) -> None:
    no_arguments(flags.args)
    from importlib.metadata import PackageNotFoundError, metadata, requires

    try:
        needed = [_name(line) for line in requires("meshd") or [] if "extra ==" not in line]
        rows = [["meshd", _licence(metadata("meshd"))]]
    except PackageNotFoundError:
        raise CliError("meshd is not installed as a package, so that nothing is known about its licences") from None
    for name in sorted(needed, key=str.lower):
        try:
            rows.append([name, _licence(metadata(name))])
        except PackageNotFoundError:
            continue  # for another platform
    out("meshd and the packages that it uses on this machine:\n")
    out(columns([["PACKAGE", "LICENSE"], *rows]).rstrip("\n"))


def _name(requirement: str) -> str:
    """The name at the head of a requirement such as `h2>=4.1; python_version < "4"`."""
    for index, character in enumerate(requirement):
        if not (character.isalnum() or character in "-_."):
            return requirement[:index]
    return requirement


def _licence(about: object) -> str:
    """The licence that a package states: as an expression, in a classifier, or as text."""
    get_all = getattr(about, "get_all", None)
    fields = (
        {key: [str(v) for v in (get_all(key) or [])] for key in ("License-Expression", "Classifier", "License")}
        if get_all
        else {}
    )
    named = [text.removeprefix(_CLASSIFIER) for text in fields.get("Classifier", []) if text.startswith(_CLASSIFIER)]
    for candidates in (fields.get("License-Expression", []), named, fields.get("License", [])):
        if candidates and candidates[0].strip():
            return printable(", ".join(text.strip().splitlines()[0] for text in candidates))
    return "see the package"


COMMAND = Command(
    "licenses",
    usage="mesh licenses",
    short="Print the licences of meshd and of what it uses",
    run=_run,
)
