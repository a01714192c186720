"""The tables of the coordination server, and how older ones are brought up to date."""

from __future__ import annotations

import sqlite3

from meshd.base.errors import MeshdError

_VERSIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE secret (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT",
        "CREATE TABLE setting (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT",
        """CREATE TABLE user (
            id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, created REAL NOT NULL
        ) STRICT""",
        """CREATE TABLE auth_key (
            id INTEGER PRIMARY KEY AUTOINCREMENT, prefix TEXT NOT NULL UNIQUE, digest BLOB NOT NULL,
            user_id INTEGER NOT NULL REFERENCES user(id), reusable INTEGER NOT NULL, ephemeral INTEGER NOT NULL,
            tags TEXT NOT NULL, created REAL NOT NULL, expiry REAL, used REAL, revoked INTEGER NOT NULL DEFAULT 0,
            note TEXT NOT NULL DEFAULT ''
        ) STRICT""",
        """CREATE TABLE node (
            id INTEGER PRIMARY KEY AUTOINCREMENT, machine_key TEXT NOT NULL, node_key TEXT NOT NULL UNIQUE,
            user_id INTEGER NOT NULL REFERENCES user(id), name TEXT NOT NULL UNIQUE, v4 TEXT NOT NULL UNIQUE,
            v6 TEXT NOT NULL UNIQUE, created REAL NOT NULL, hostname TEXT NOT NULL, disco_key TEXT NOT NULL,
            tags TEXT NOT NULL, method TEXT NOT NULL, auth_key_id INTEGER, ephemeral INTEGER NOT NULL,
            expiry REAL, last_seen REAL, hostinfo TEXT NOT NULL, endpoints TEXT NOT NULL,
            endpoint_types TEXT NOT NULL, version INTEGER NOT NULL, approved_routes TEXT NOT NULL
        ) STRICT""",
        "CREATE INDEX node_machine ON node(machine_key)",
        """CREATE TABLE policy (
            id INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT NOT NULL, created REAL NOT NULL
        ) STRICT""",
    ),
)
"""Each entry brings a database from its index to the next version; entries are never changed once released."""

SCHEMA_VERSION = len(_VERSIONS)


def migrate(connection: sqlite3.Connection) -> None:
    """Create or update the tables in one transaction; MeshdError when they belong to a newer program."""
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if found > SCHEMA_VERSION:
        raise MeshdError(
            f"the database has format {found}, this program knows {SCHEMA_VERSION}",
            code="config",
            hint="It was written by a newer mesh-coord: run that one, or restore an older copy.",
        )
    if found == SCHEMA_VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statements in _VERSIONS[found:]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
