"""`mesh-coord authkeys …`."""

from __future__ import annotations

from pathlib import Path

import click

from meshd.coord.cli.output import DURATION, admin_options, ask, moment, print_json, print_table


@click.group()
def authkeys() -> None:
    """Keys that let machines in without approval."""


@authkeys.command("create")
@admin_options
@click.option("--user", help="Owner of the machines; may be left out when there is one user.")
@click.option("--reusable", is_flag=True, help="For any number of machines.")
@click.option("--ephemeral", is_flag=True, help="Its machines are deleted when they go away.")
@click.option("--tags", metavar="TAG[,TAG…]", default="", help="The machines belong to these tags.")
@click.option(
    "--expiry", type=DURATION, default=90 * 86400.0, show_default="90d", help="How long it may be used; 0 = for ever."
)
def create(
    state_dir: Path, as_json: bool, user: str | None, reusable: bool, ephemeral: bool, tags: str, expiry: float
) -> None:
    """Make a key and print it. It is shown only this once."""
    key = ask(
        state_dir,
        "authkeys.create",
        user=user,
        reusable=reusable,
        ephemeral=ephemeral,
        tags=[tag.strip() for tag in tags.split(",") if tag.strip()],
        expiry_s=expiry or None,
    )
    if as_json:
        print_json(key)
    else:
        click.echo(key["key"])


@authkeys.command("list")
@admin_options
def list_keys(state_dir: Path, as_json: bool) -> None:
    """Show all keys, without their secret part."""
    keys = ask(state_dir, "authkeys.list")
    if as_json:
        print_json(keys)
        return
    print_table(
        ["ID", "KEY", "USER", "STATE", "KIND", "TAGS", "EXPIRY"],
        [
            [
                key["id"],
                key["key"],
                key["user"],
                key["state"],
                _kind(key),
                ",".join(key["tags"]) or "-",
                moment(key["expiry"]),
            ]
            for key in keys
        ],
    )


@authkeys.command("revoke")
@admin_options
@click.argument("key")
def revoke(state_dir: Path, as_json: bool, key: str) -> None:
    """Make a key useless. Machines that it let in stay."""
    revoked = ask(state_dir, "authkeys.revoke", id=key)
    if as_json:
        print_json(revoked)
    else:
        click.echo(f"Auth key {revoked['id']} is revoked.")


def _kind(key: dict[str, object]) -> str:
    words = ["reusable" if key["reusable"] else "one-off"]
    if key["ephemeral"]:
        words.append("ephemeral")
    return ",".join(words)
