"""`mesh-coord policy …`."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

import click

from meshd.base.errors import MeshdError
from meshd.coord.cli.output import admin_options, ask, print_json, printable


@click.group()
def policy() -> None:
    """Who may reach whom."""


@policy.command("get")
@admin_options
def get(state_dir: Path, as_json: bool) -> None:
    """Print the policy that holds now."""
    found = ask(state_dir, "policy.get")
    if as_json:
        print_json(found)
    elif found["text"] is None:
        click.echo("There is no policy: every machine may reach every other.", err=True)
    else:
        click.echo(found["text"], nl=not found["text"].endswith("\n"))


@policy.command("set")
@admin_options
@click.argument("file", type=click.File("r", encoding="utf-8"))
def set_policy(state_dir: Path, as_json: bool, file: TextIO) -> None:
    """Check a policy file and let it hold from now on. FILE may be - for standard input."""
    found = ask(state_dir, "policy.set", text=_text(file), name=str(file.name))
    if as_json:
        print_json(found)
    else:
        click.echo("The policy holds now.")
        for name in found.get("unknown_users", ()):
            shown = repr(printable(name))
            click.echo(f"{shown} is no host of it and nobody's name: what it says of {shown} has no effect.", err=True)


@policy.command("check")
@click.argument("file", type=click.File("r", encoding="utf-8"))
def check(file: TextIO) -> None:
    """Check a policy file without a running server."""
    from meshd.coord.policy.document import parse_policy

    found = parse_policy(_text(file), str(file.name))
    click.echo("The policy is valid." + (" Its tests are made when it is set." if found.claims else ""))


def _text(file: TextIO) -> str:
    from meshd.coord.policy.document import MAX_POLICY_BYTES

    try:
        text = file.read(MAX_POLICY_BYTES + 1)
    except UnicodeDecodeError:
        raise MeshdError(f"{file.name} is no UTF-8 text", code="usage") from None
    except OSError as error:
        raise MeshdError(f"cannot read {file.name}: {error.strerror}", code="usage") from None
    if len(text) > MAX_POLICY_BYTES:
        raise MeshdError(f"{file.name}: a policy has at most {MAX_POLICY_BYTES} characters", code="usage")
    return text
