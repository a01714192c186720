"""The state store: durable writes, files of other daemons, damaged files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from base64 import b64encode
from pathlib import Path

import pytest

from meshd.base.errors import MeshdError
from meshd.node.store import FileStore, MemoryStore, open_store


def test_filestore_missing_file_is_created_empty_and_private(tmp_path: Path) -> None:
    """PS-02."""
    path = tmp_path / "d" / "state"
    store = FileStore(path)
    assert store.problem is None
    assert json.loads(path.read_text()) == {}
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_filestore_value_is_on_disk_when_write_returns(tmp_path: Path) -> None:
    """PS-01, INV-2."""
    path = tmp_path / "state"
    FileStore(path).write("_machinekey", b"privkey:00")
    assert FileStore(path).read("_machinekey") == b"privkey:00"
    assert os.listdir(tmp_path) == ["state"]


def test_filestore_reads_a_state_file_of_another_daemon(tmp_path: Path) -> None:
    """PS-02: two-space indent, base64, null for a cleared value."""
    path = tmp_path / "state"
    path.write_text(json.dumps({"_profiles": b64encode(b"{}").decode(), "gone": None}, indent=2))
    store = FileStore(path)
    assert store.read("_profiles") == b"{}"
    assert store.read("gone") is None
    assert store.read("never") is None


@pytest.mark.parametrize(
    "content",
    [
        b'{"_machinekey": "cHJpdmtl',
        b"root:x:0:0:root:/root:/bin/bash\n",
        b"[1,2]",
        b'{"a": 5}',
        b'{"a": "%%%"}',
        b"\xff\xfe",
    ],
    ids=["cut in half", "another file", "a list", "a number", "no base64", "binary"],
)
def test_filestore_damaged_file_is_kept_and_explained(tmp_path: Path, content: bytes) -> None:
    """SM-21: nothing stored is lost, and the daemon says what to do."""
    path = tmp_path / "state"
    path.write_bytes(content)
    store = FileStore(path)
    assert store.problem is not None
    assert str(path) in store.problem.message
    assert "restart meshd" in (store.problem.hint or "")
    with pytest.raises(MeshdError):
        store.write("a", b"b")
    assert path.read_bytes() == content


def test_filestore_failed_write_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state"
    store = FileStore(path)
    store.write("a", b"1")
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MeshdError, match="No space left on device"):
        store.write("a", b"2")
    assert store.read("a") == b"1"
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["state"]


def test_open_store_mem_is_ephemeral() -> None:
    """DM-06."""
    assert isinstance(open_store("mem:"), MemoryStore)
    assert open_store("mem:").ephemeral


def test_open_store_unknown_kind_is_refused() -> None:
    with pytest.raises(MeshdError, match="no store of kind 'kube'"):
        open_store("kube:secret")


@pytest.mark.parametrize("store", [MemoryStore(), None], ids=["memory", "file"])
def test_store_update_changes_several_keys_at_once(tmp_path: Path, store: MemoryStore | None) -> None:
    made = store or FileStore(tmp_path / "state")
    made.update({"a": b"1", "b": b"2"})
    made.update({"a": None, "c": b"3", "never": None})
    assert [made.read(key) for key in "abc"] == [None, b"2", b"3"]
    if store is None:
        assert sorted(json.loads((tmp_path / "state").read_text())) == ["b", "c"]


WRITER = """
import sys, pathlib
from meshd.node.store import FileStore
store = FileStore(pathlib.Path(sys.argv[1]))
assert store.problem is None, store.problem
print("ready", flush=True)
number = 0
while True:
    number += 1
    store.update({"a": b"%d" % number * 500, "b": b"%d" % number * 500})
"""


@pytest.mark.slow
def test_filestore_killed_at_any_moment_is_whole(tmp_path: Path) -> None:
    """INV-2: SIGKILL leaves the old state or the new one, and no copy of it lies about for ever."""
    path = tmp_path / "state"
    for turn in range(12):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(turn * 0.0017)
        writer.kill()
        writer.wait()
        writer.stdout.close()
        store = FileStore(path)
        assert store.problem is None
        assert store.read("a") == store.read("b")
    for left in tmp_path.iterdir():
        os.utime(left, (0, 0))
    FileStore(path)
    assert os.listdir(tmp_path) == ["state"]
