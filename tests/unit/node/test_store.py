"""The state store: durable writes, files of other daemons, damaged files."""

from __future__ import annotations

import errno
import json
import os
import stat
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


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("there", [False, True], ids=["dangling", "of a file"])
def test_filestore_link_to_a_state_elsewhere_is_followed(tmp_path: Path, sealed: bool, there: bool) -> None:
    """PS-02: on hosts that keep one folder over a restart, the rest is what it was before."""
    kept, link = tmp_path / "kept" / "state", tmp_path / "state"
    if there:
        FileStore(kept, sealed=sealed).write("a", b"0")
    link.symlink_to(kept)
    FileStore(link, sealed=sealed).write("a", b"1")
    assert link.is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["kept", "state"]
    assert FileStore(kept, sealed=sealed).read("a") == b"1"


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


def test_open_store_takes_over_what_tailscaled_left_in_the_directory(tmp_path: Path) -> None:
    """PS-02: once, into our own file; theirs stays for a way back."""
    left = tmp_path / "tailscaled.state"
    left.write_text(json.dumps({"_machinekey": b64encode(b"privkey:00").decode()}, indent=2))
    before = left.read_bytes()
    store = open_store(str(tmp_path / "meshd.state"), False)
    assert store.problem is None
    assert store.read("_machinekey") == b"privkey:00"
    assert left.read_bytes() == before
    store.write("_machinekey", None)
    assert open_store(str(tmp_path / "meshd.state"), False).read("_machinekey") is None
    assert open_store(str(tmp_path / "other.state"), False).read("_machinekey") is None


def test_open_store_state_of_tailscaled_that_is_damaged_is_told(tmp_path: Path) -> None:
    (tmp_path / "tailscaled.state").write_bytes(b"bad json")
    store = open_store(str(tmp_path / "meshd.state"), False)
    assert store.problem is not None
    assert str(tmp_path / "tailscaled.state") in store.problem.message
    assert os.listdir(tmp_path) == ["tailscaled.state"]


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


@pytest.mark.parametrize("encrypt", [None, False])
def test_filestore_state_that_tailscaled_encrypted_is_kept_and_says_how_to_open_it(
    tmp_path: Path, encrypt: bool | None
) -> None:
    """state:tpm; PS-03, SM-21."""
    path = tmp_path / "state"
    path.write_text(json.dumps({"key": {"Private": "AAAA", "Public": "AAAA"}, "nonce": "AAAA", "data": "AAAA"}))
    before = path.read_bytes()
    store = open_store(str(path), encrypt)
    assert "encrypted by tailscaled with the TPM" in str(store.problem)
    assert "--encrypt-state=false" in str(store.problem)
    assert path.read_bytes() == before


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


def test_filestore_write_that_the_system_cuts_short_leaves_the_old_state(tmp_path: Path) -> None:
    """INV-2: the kernel refuses to write more than 4 KB; nothing half-written stays."""
    path = tmp_path / "state"
    FileStore(path, sealed=True).write("a", b"1")
    code = f"""
import resource, signal
from pathlib import Path
from meshd.base.errors import MeshdError
from meshd.node.store import FileStore
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
store = FileStore(Path({str(path)!r}), sealed=True)
try:
    store.update({{"a": b"2", "b": bytes(100_000)}})
except MeshdError as error:
    print(store.read("a"), store.read("b"), error.message)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout.startswith("b'1' None cannot write the state file"), done.stderr
    assert FileStore(path, sealed=True).read("a") == b"1"
    assert sorted(os.listdir(tmp_path)) == ["state", "state.key"]


@pytest.mark.parametrize("code", [5, 28, 30], ids=["EIO", "ENOSPC", "EROFS"])
def test_filestore_disk_error_is_told_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """INV-2."""
    store = FileStore(tmp_path / "state", sealed=True)
    store.write("a", b"1")

    def fail(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(MeshdError, match="Nothing was changed") as caught:
        store.write("a", b"2")
    assert os.strerror(code) in caught.value.message
    monkeypatch.undo()
    assert store.read("a") == b"1"
    assert FileStore(tmp_path / "state", sealed=True).read("a") == b"1"
    assert sorted(os.listdir(tmp_path)) == ["state", "state.key"]


@pytest.mark.parametrize("sealed", [False, True])
def test_filestore_that_cannot_begin_yet_works_as_soon_as_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sealed: bool
) -> None:
    """SM-21: a disk that is full at the first start is freed, and nobody has to restart for it."""
    path = tmp_path / "d" / "state"

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "mkdir", full)
        store = FileStore(path, sealed=sealed)
        assert store.problem is None
        with pytest.raises(MeshdError, match="No space left on device") as caught:
            store.write("a", b"1")
        assert "try again" in (caught.value.hint or "")
        assert store.read("a") is None
    store.write("a", b"1")
    assert FileStore(path, sealed=sealed).read("a") == b"1"


def only_folders_fail(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Folders can no longer be synchronised; files can."""
    sync = os.fsync

    def fail(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EIO], ids=["not known there", "EIO"])
def test_filestore_where_folders_cannot_be_synchronised_is_what_is_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """INV-2: the new file is in place by then; a change that was said to be none came back with a restart."""
    only_folders_fail(monkeypatch, code)
    store = FileStore(tmp_path / "state", sealed=True)
    store.write("a", b"1")
    assert store.problem is None
    assert FileStore(tmp_path / "state", sealed=True).read("a") == store.read("a") == b"1"


def test_filestore_without_a_descriptor_for_its_folder_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """INV-2."""
    store = FileStore(tmp_path / "state")
    store.write("a", b"1")
    opened = os.open

    def fail(path: str, flags: int, *rest: int, **named: int) -> int:
        if flags & os.O_DIRECTORY:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return opened(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(MeshdError, match="Nothing was changed"):
        store.write("a", b"2")
    monkeypatch.undo()
    assert FileStore(tmp_path / "state").read("a") == store.read("a") == b"1"


def test_open_store_mem_is_ephemeral() -> None:
    """DM-06."""
    assert isinstance(open_store("mem:"), MemoryStore)
    assert open_store("mem:").ephemeral


def test_open_store_kinds_that_are_not_there_are_refused_by_name() -> None:
    """flag:--state; PS-03."""
    with pytest.raises(MeshdError, match="no store of kind 'arn'"):
        open_store("arn:aws:ssm:eu-west-1:1:parameter/x")


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
