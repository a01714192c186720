"""`mesh-coord nodes …`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from meshd.coord.cli.output import admin_options, ask, moment, print_json, print_table, printable


@click.group()
def nodes() -> None:
    """Machines of the network."""


@nodes.command("list")
@admin_options
@click.option("--pending", is_flag=True, help="Machines that wait for approval.")
def list_nodes(state_dir: Path, as_json: bool, pending: bool) -> None:
    """Show all machines."""
    found = ask(state_dir, "nodes.pending" if pending else "nodes.list")
    if as_json:
        print_json(found)
    elif pending:
        print_table(
            ["ID", "HOSTNAME", "OS", "FROM", "SINCE"],
            [[n["id"], n["hostname"], n["os"], n["source"], moment(n["since"])] for n in found],
        )
    else:
        print_table(
            ["ID", "NAME", "OWNER", "ADDRESSES", "STATE", "LAST SEEN", "EXPIRY", "ROUTES"],
            [
                [
                    n["id"],
                    n["name"],
                    ",".join(n["tags"]) or n["user"],
                    ",".join(n["addresses"]),
                    _state(n),
                    moment(n["last_seen"]),
                    moment(n["expiry"]),
                    _routes(n),
                ]
                for n in found
            ],
        )


@nodes.command("approve")
@admin_options
@click.option("--user", help="Owner of the machine; may be left out when there is one user.")
@click.option("--tags", default="", metavar="TAG[,TAG…]", help="It belongs to these tags.")
@click.argument("registration")
def approve(state_dir: Path, as_json: bool, user: str | None, tags: str, registration: str) -> None:
    """Let a waiting machine in. REGISTRATION is the id (or the whole address) that the machine shows."""
    node = ask(state_dir, "nodes.approve", id=registration, user=user, tags=_split(tags))
    _done(node, as_json, f"{node['name']} joined as {node['addresses'][0]}.")


@nodes.command("refuse")
@admin_options
@click.argument("registration")
def refuse(state_dir: Path, as_json: bool, registration: str) -> None:
    """Turn a waiting machine away."""
    _done(ask(state_dir, "nodes.refuse", id=registration), as_json, "The machine was refused.")


@nodes.command("expire")
@admin_options
@click.argument("node")
def expire(state_dir: Path, as_json: bool, node: str) -> None:
    """End a machine's key: it has to log in again. NODE is an id, name or address."""
    found = ask(state_dir, "nodes.expire", node=node)
    _done(found, as_json, f"{found['name']} has to log in again.")


@nodes.command("delete")
@admin_options
@click.argument("node")
def delete(state_dir: Path, as_json: bool, node: str) -> None:
    """Remove a machine from the network. NODE is an id, name or address."""
    found = ask(state_dir, "nodes.delete", node=node)
    _done(found, as_json, f"{found['name']} is deleted.")


@nodes.command("rename")
@admin_options
@click.argument("node")
@click.argument("name")
def rename(state_dir: Path, as_json: bool, node: str, name: str) -> None:
    """Give a machine another DNS name."""
    found = ask(state_dir, "nodes.rename", node=node, name=name)
    _done(found, as_json, f"The machine is called {found['name']} now.")


@nodes.command("tag")
@admin_options
@click.argument("node")
@click.argument("tags", nargs=-1)
def tag(state_dir: Path, as_json: bool, node: str, tags: tuple[str, ...]) -> None:
    """Make a machine belong to TAGS, or to its user again when none is given."""
    found = ask(state_dir, "nodes.tag", node=node, tags=list(tags))
    _done(found, as_json, f"{found['name']} belongs to {', '.join(found['tags']) or found['user']}.")


@nodes.command("approve-routes")
@admin_options
@click.option("--all", "every", is_flag=True, help="All routes that the machine advertises.")
@click.argument("node")
@click.argument("routes", nargs=-1)
def approve_routes(state_dir: Path, as_json: bool, every: bool, node: str, routes: tuple[str, ...]) -> None:
    """Set which ROUTES a machine may carry; none revokes them all."""
    found = ask(state_dir, "nodes.approve-routes", node=node, routes=list(routes), all=every)
    _done(found, as_json, f"{found['name']} may carry {', '.join(found['approved_routes']) or 'no route'}.")


@nodes.command("call")
@admin_options
@click.option("--method", default="GET", show_default=True, help="HTTP method.")
@click.option("--data", default="", help="Body of the request.")
@click.argument("node")
@click.argument("path")
def call(state_dir: Path, as_json: bool, method: str, data: str, node: str, path: str) -> None:
    """Ask a machine something about itself, to find out what is wrong: /echo, /debug/health, /debug/netmap …"""
    found = ask(state_dir, "nodes.call", node=node, method=method, path=path, body=data)
    lines = [str(found["status"]), *found["body"].splitlines()]
    _done(found, as_json, "\n".join(map(printable, lines)))


def _split(tags: str) -> list[str]:
    return [tag.strip() for tag in tags.split(",") if tag.strip()]


def _state(node: dict[str, Any]) -> str:
    if node["expired"]:
        return "expired"
    return "online" if node["online"] else "offline"


def _routes(node: dict[str, Any]) -> str:
    waiting = [route for route in node["advertised_routes"] if route not in node["approved_routes"]]
    shown = list(node["carried_routes"]) + [f"{route} (not approved)" for route in waiting]
    return ", ".join(shown) or "-"


def _done(value: Any, as_json: bool, text: str) -> None:
    if as_json:
        print_json(value)
    else:
        click.echo(text)
