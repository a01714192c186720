"""`mesh-coord users …`."""

from __future__ import annotations

from pathlib import Path

import click

from meshd.coord.cli.output import admin_options, ask, moment, print_json, print_table


@click.group()
def users() -> None:
    """People who own machines."""


@users.command("list")
@admin_options
def list_users(state_dir: Path, as_json: bool) -> None:
    """Show all users."""
    found = ask(state_dir, "users.list")
    if as_json:
        print_json(found)
    else:
        print_table(
            ["ID", "NAME", "NODES", "CREATED"],
            [[user["id"], user["name"], user["nodes"], moment(user["created"])] for user in found],
        )


@users.command("create")
@admin_options
@click.argument("name")
def create(state_dir: Path, as_json: bool, name: str) -> None:
    """Add a user."""
    user = ask(state_dir, "users.create", name=name)
    if as_json:
        print_json(user)
    else:
        click.echo(f"User {user['name']} has id {user['id']}.")


@users.command("delete")
@admin_options
@click.argument("name")
def delete(state_dir: Path, as_json: bool, name: str) -> None:
    """Remove a user who owns no machine, and the user's auth keys."""
    user = ask(state_dir, "users.delete", name=name)
    if as_json:
        print_json(user)
    else:
        click.echo(f"User {user['name']} is deleted.")
