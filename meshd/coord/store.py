"""The statements behind the records. Every function takes the connection of a running transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

import msgspec

from meshd.base.errors import MeshdError
from meshd.coord.records import AuthKeyRecord, NodeRecord, UserRecord
from meshd.wire.control import Hostinfo, decode, encode

_NODE_COLUMNS = (
    *("id", "machine_key", "node_key", "user_id", "name", "v4", "v6", "created", "hostname", "disco_key", "tags"),
    *("method", "auth_key_id", "ephemeral", "expiry", "last_seen", "hostinfo", "endpoints", "endpoint_types"),
    *("version", "approved_routes"),
)
_ADD_NODE = f"INSERT INTO node ({', '.join(_NODE_COLUMNS)}) VALUES ({', '.join('?' * len(_NODE_COLUMNS))})"
_UPDATE_NODE = f"UPDATE node SET {', '.join(f'{c} = ?' for c in _NODE_COLUMNS[1:])} WHERE id = ?"
_KEY_COLUMNS = "id, prefix, user_id, reusable, ephemeral, tags, created, expiry, used, revoked, note"

NodeRow = tuple[object, ...]


def secret(connection: sqlite3.Connection, name: str, fresh: bytes) -> bytes:
    """The stored secret of that name; `fresh` is stored and returned when there is none yet."""
    connection.execute("INSERT OR IGNORE INTO secret (name, value) VALUES (?, ?)", (name, fresh))
    (value,) = connection.execute("SELECT value FROM secret WHERE name = ?", (name,)).fetchone()
    return bytes(value)


def setting(connection: sqlite3.Connection, name: str) -> str | None:
    row = connection.execute("SELECT value FROM setting WHERE name = ?", (name,)).fetchone()
    return None if row is None else str(row[0])


def set_setting(connection: sqlite3.Connection, name: str, value: str) -> None:
    connection.execute("INSERT OR REPLACE INTO setting (name, value) VALUES (?, ?)", (name, value))


def load_users(connection: sqlite3.Connection) -> list[UserRecord]:
    return [UserRecord(*row) for row in connection.execute("SELECT id, name, created FROM user ORDER BY id")]


def add_user(connection: sqlite3.Connection, name: str, wall: float) -> UserRecord:
    try:
        cursor = connection.execute("INSERT INTO user (name, created) VALUES (?, ?)", (name, wall))
    except sqlite3.IntegrityError:
        raise MeshdError(f"there is already a user {name!r}", code="conflict") from None
    assert cursor.lastrowid is not None
    return UserRecord(cursor.lastrowid, name, wall)


def delete_user(connection: sqlite3.Connection, user: UserRecord) -> None:
    """A user with the auth keys; MeshdError when a machine of that user has joined a moment ago."""
    connection.execute("DELETE FROM auth_key WHERE user_id = ?", (user.id,))
    try:
        connection.execute("DELETE FROM user WHERE id = ?", (user.id,))
    except sqlite3.IntegrityError:
        raise MeshdError(
            f"user {user.name!r} still owns a node", code="conflict", hint="Delete the nodes first."
        ) from None


def node_row(node: NodeRecord) -> NodeRow:
    """The values of a node at this moment, to be saved later by another thread."""
    return (
        node.id,
        node.machine_key,
        node.node_key,
        node.user_id,
        node.name,
        node.v4,
        node.v6,
        node.created,
        node.hostname,
        node.disco_key,
        _text(node.tags),
        node.method,
        node.auth_key_id,
        int(node.ephemeral),
        node.expiry,
        node.last_seen,
        encode(node.hostinfo).decode(),
        _text(node.endpoints),
        _text(node.endpoint_types),
        node.version,
        _text(node.approved_routes),
    )


def add_node(connection: sqlite3.Connection, row: NodeRow) -> None:
    """A new node; MeshdError when its key, name or address was taken a moment ago, or its owner deleted."""
    try:
        connection.execute(_ADD_NODE, row)
    except sqlite3.IntegrityError as error:
        raise _overtaken(error) from None


def update_node(connection: sqlite3.Connection, row: NodeRow) -> bool:
    """A node as it is now; False when it was deleted: what was on its way must not bring it back."""
    try:
        return connection.execute(_UPDATE_NODE, (*row[1:], row[0])).rowcount == 1
    except sqlite3.IntegrityError as error:
        raise _overtaken(error) from None


def _overtaken(error: sqlite3.IntegrityError) -> MeshdError:
    if error.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
        return MeshdError("the user who would own this machine was deleted a moment ago", code="not-found")
    return MeshdError("another machine has just taken this node key or name", code="denied")


def last_node_id(connection: sqlite3.Connection) -> int:
    """The highest id that was ever used; ids of deleted nodes are never given out again."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'node'").fetchone()
    return int(row[0]) if row is not None else 0


def delete_node(connection: sqlite3.Connection, node_id: int) -> None:
    connection.execute("DELETE FROM node WHERE id = ?", (node_id,))


def load_nodes(connection: sqlite3.Connection) -> list[NodeRecord]:
    nodes = []
    for row in connection.execute(f"SELECT {', '.join(_NODE_COLUMNS)} FROM node ORDER BY id"):
        values = dict(zip(_NODE_COLUMNS, row, strict=True))
        values["ephemeral"] = bool(values["ephemeral"])
        values["hostinfo"] = decode(Hostinfo, str(values["hostinfo"]).encode())
        for name in ("tags", "endpoints", "endpoint_types", "approved_routes"):
            values[name] = tuple(msgspec.json.decode(values[name]))
        nodes.append(NodeRecord(**values))
    return nodes


def add_auth_key(
    connection: sqlite3.Connection,
    *,
    prefix: str,
    digest: bytes,
    user_id: int,
    reusable: bool,
    ephemeral: bool,
    tags: Iterable[str],
    wall: float,
    expiry: float | None,
    note: str,
) -> AuthKeyRecord:
    tags = tuple(tags)
    try:
        cursor = connection.execute(
            "INSERT INTO auth_key (prefix, digest, user_id, reusable, ephemeral, tags, created, expiry, note) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (prefix, digest, user_id, int(reusable), int(ephemeral), _text(tags), wall, expiry, note),
        )
    except sqlite3.IntegrityError:  # the prefix is drawn from 2^48
        raise MeshdError("the owner of this key was deleted a moment ago", code="not-found") from None
    assert cursor.lastrowid is not None
    return AuthKeyRecord(cursor.lastrowid, prefix, user_id, reusable, ephemeral, tags, wall, expiry, None, False, note)


def auth_keys(connection: sqlite3.Connection) -> list[AuthKeyRecord]:
    return [_key(row) for row in connection.execute(f"SELECT {_KEY_COLUMNS} FROM auth_key ORDER BY id")]


def find_auth_key(connection: sqlite3.Connection, prefix: str) -> tuple[AuthKeyRecord, bytes] | None:
    """The key with that public half, and the digest of its secret half."""
    row = connection.execute(
        f"SELECT {_KEY_COLUMNS}, digest FROM auth_key WHERE prefix = ?",
        (prefix,),
    ).fetchone()
    return None if row is None else (_key(row[:-1]), bytes(row[-1]))


def consume_auth_key(connection: sqlite3.Connection, key_id: int, wall: float) -> bool:
    """Use the key once; False when it may not be used (any more). One statement decides, so no race can."""
    cursor = connection.execute(
        "UPDATE auth_key SET used = coalesce(used, ?) WHERE id = ? AND revoked = 0 "
        "AND (expiry IS NULL OR expiry > ?) AND (reusable = 1 OR used IS NULL)",
        (wall, key_id, wall),
    )
    return cursor.rowcount == 1


def revoke_auth_key(connection: sqlite3.Connection, key_id: int) -> bool:
    return connection.execute("UPDATE auth_key SET revoked = 1 WHERE id = ?", (key_id,)).rowcount == 1


def forget_stale_keys(connection: sqlite3.Connection, note: str, wall: float) -> None:
    """Delete expired keys that carry `note` (the ones a start makes for its join line)."""
    connection.execute("DELETE FROM auth_key WHERE note = ? AND expiry <= ?", (note, wall))


def current_policy(connection: sqlite3.Connection) -> str | None:
    row = connection.execute("SELECT text FROM policy ORDER BY id DESC LIMIT 1").fetchone()
    return None if row is None else str(row[0])


def add_policy(connection: sqlite3.Connection, text: str, wall: float) -> None:
    connection.execute("INSERT INTO policy (text, created) VALUES (?, ?)", (text, wall))


def _key(row: tuple[object, ...]) -> AuthKeyRecord:
    key_id, prefix, user_id, reusable, ephemeral, tags, created, expiry, used, revoked, note = row
    return msgspec.convert(
        {
            "id": key_id,
            "prefix": prefix,
            "user_id": user_id,
            "reusable": bool(reusable),
            "ephemeral": bool(ephemeral),
            "tags": msgspec.json.decode(str(tags)),
            "created": created,
            "expiry": expiry,
            "used": used,
            "revoked": bool(revoked),
            "note": note,
        },
        AuthKeyRecord,
    )


def _text(values: Iterable[object]) -> str:
    return msgspec.json.encode(list(values)).decode()
