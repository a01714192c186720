"""The sealed state file: migration that loses nothing, keys that got lost, copies without their key."""

from __future__ import annotations

import json
import os
from base64 import b64encode
from pathlib import Path

import pytest

from meshd.base.errors import MeshdError
from meshd.node.statekey import InFile, SystemdCreds, best_protection, credential
from meshd.node.store import FileStore, open_store
from tests.unit.node.killpoints import kill_everywhere

SECRET = b"privkey:" + b"5a" * 32

CREDS = """#!/bin/sh
# Stands in for systemd-creds(1): what one "TPM" encrypted only that one decrypts.
tpm=$(cat "$(dirname "$0")/tpm")
[ "$tpm" = broken ] && { echo "Failed to unseal with TPM2: no such object" >&2; exit 1; }
case $1 in
    encrypt) printf '%s ' "$tpm"; base64 -w0 ;;
    decrypt) read -r with data
        [ "$with" = "$tpm" ] || { echo "Failed to unseal with TPM2" >&2; exit 1; }
        printf %s "$data" | base64 -d ;;
esac
"""


def plain_file(path: Path, **values: bytes) -> None:
    path.write_text(json.dumps({key: b64encode(value).decode() for key, value in values.items()}, indent=2))


def sealed_store(path: Path, value: bytes = SECRET) -> FileStore:
    store = FileStore(path, sealed=True, protection=InFile())
    store.write("_machinekey", value)
    return store


def listed(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def test_sealed_state_shows_no_key_and_comes_back(tmp_path: Path) -> None:
    """state:tpm."""
    path = tmp_path / "state"
    sealed_store(path)
    for text in (SECRET, b64encode(SECRET), b"_machinekey"):
        assert text not in path.read_bytes()
    assert {p.name: p.stat().st_mode & 0o777 for p in tmp_path.iterdir()} == {"state": 0o600, "state.key": 0o600}
    again = FileStore(path, sealed=True)
    assert (again.problem, again.notice, again.read("_machinekey")) == (None, "", SECRET)


def test_sealed_state_is_the_default_for_files_only(tmp_path: Path) -> None:
    """`--encrypt-state` needs a file."""
    open_store(str(tmp_path / "state"))
    assert b"meshd-sealed-state" in (tmp_path / "state").read_bytes()
    open_store(str(tmp_path / "plain"), encrypt=False)
    assert json.loads((tmp_path / "plain").read_text()) == {}
    with pytest.raises(MeshdError, match="can only be used with --state set to a local file path"):
        open_store("mem:", encrypt=True)


def test_plain_state_of_another_daemon_becomes_sealed_and_plain_again(tmp_path: Path) -> None:
    """flag:--encrypt-state; PS-02: nothing in it is lost on the way, known to us or not."""
    path = tmp_path / "tailscaled.state"
    values = {"_machinekey": SECRET, "_profiles": b"{}", "_taildrop-received": b"x"}
    plain_file(path, **values)
    store = FileStore(path, sealed=True, protection=InFile())
    assert {key: store.read(key) for key in values} == values
    assert b64encode(SECRET) not in path.read_bytes()
    back = FileStore(path, sealed=False)
    assert {key: back.read(key) for key in values} == values
    assert json.loads(path.read_text()).keys() == values.keys()


def test_migration_killed_anywhere_keeps_the_key(tmp_path: Path) -> None:
    path = tmp_path / "state"

    def prepare() -> None:
        for file in tmp_path.iterdir():
            file.unlink()
        plain_file(path, _machinekey=SECRET)

    def work() -> None:
        FileStore(path, sealed=True, protection=InFile())

    points = 0
    for points in kill_everywhere(prepare, work):
        store = FileStore(path, sealed=True, protection=InFile())
        assert (store.problem, store.notice, store.read("_machinekey")) == (None, "", SECRET), f"point {points}"
    assert points > 8


def test_migration_that_cannot_be_written_keeps_the_plain_file_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state"
    plain_file(path, _machinekey=SECRET)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("meshd.node.statekey.write_atomic", full)
    store = FileStore(path, sealed=True, protection=InFile())
    assert store.problem is None
    assert "is not encrypted" in store.notice
    assert store.read("_machinekey") == SECRET
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", ["no key file", "another key", "key file cut", "key file of a newer version"])
def test_sealed_state_whose_key_is_lost_is_kept_and_asks_for_a_login(tmp_path: Path, damage: str) -> None:
    """SM-21: a copy without its key file, restored on another machine, or tampered with."""
    path, key = tmp_path / "state", tmp_path / "state.key"
    sealed_store(path)
    before = path.read_bytes()
    if damage == "no key file":
        key.unlink()
    elif damage == "another key":
        key.write_text("meshd-state-key 1 file\n" + "ab" * 32 + "\n")
    elif damage == "key file cut":
        key.write_text(key.read_text()[:40])
    else:
        key.write_text(key.read_text().replace(" 1 ", " 2 "))
    store = FileStore(path, sealed=True, protection=InFile())
    assert store.problem is None
    assert store.read("_machinekey") is None
    assert "could not be decrypted" in store.notice
    assert f"{path}.kept-1" in store.notice
    assert "log in again" in store.notice
    assert (tmp_path / "state.kept-1").read_bytes() == before
    store.write("_machinekey", b"new")
    again = FileStore(path, sealed=True, protection=InFile())
    assert (again.notice, again.read("_machinekey")) == ("", b"new")


def test_sealed_state_put_back_with_its_key_works_again(tmp_path: Path) -> None:
    path, key = tmp_path / "state", tmp_path / "state.key"
    sealed_store(path)
    text = key.read_text()
    key.unlink()
    FileStore(path, sealed=True, protection=InFile())
    (tmp_path / "state.kept-1").rename(path)
    key.write_text(text)
    assert FileStore(path, sealed=True).read("_machinekey") == SECRET


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-20],
        lambda data: data.replace(b'"meshd-sealed-state": 1', b'"meshd-sealed-state": 9'),
        lambda data: data[:-40] + b"AAAA" + data[-36:],
    ],
    ids=["cut", "a newer version", "changed"],
)
def test_sealed_state_that_is_damaged_is_untouched_and_refuses_logins(tmp_path: Path, spoil: object) -> None:
    """SM-21: not the key but the file is wrong, so a backup is worth a try."""
    path = tmp_path / "state"
    sealed_store(path)
    path.write_bytes(spoil(path.read_bytes()))  # type: ignore[operator]
    before = path.read_bytes()
    store = FileStore(path, sealed=True, protection=InFile())
    assert store.problem is not None
    with pytest.raises(MeshdError, match="does not log in"):
        store.write("_machinekey", b"x")
    assert path.read_bytes() == before
    assert listed(tmp_path) == ["state", "state.key"]


@pytest.fixture
def creds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "systemd-creds").write_text(CREDS)
    (folder / "systemd-creds").chmod(0o755)
    (folder / "tpm").write_text("tpm-A")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def creds_store(path: Path, creds: Path) -> FileStore:
    return FileStore(path, sealed=True, protection=SystemdCreds(str(creds / "systemd-creds")))


def test_state_key_protected_by_systemd_is_in_no_file(tmp_path: Path, creds: Path) -> None:
    path = tmp_path / "state"
    creds_store(path, creds).write("_machinekey", SECRET)
    header, wrapped = (tmp_path / "state.key").read_text().strip().split("\n")
    assert header == "meshd-state-key 1 systemd-creds"
    assert wrapped.startswith("tpm-A ")
    assert FileStore(path, sealed=True).read("_machinekey") == SECRET


def test_changed_tpm_leads_to_a_new_login_not_to_a_daemon_that_does_not_start(tmp_path: Path, creds: Path) -> None:
    path = tmp_path / "state"
    creds_store(path, creds).write("_machinekey", SECRET)
    (creds / "tpm").write_text("tpm-B")
    store = creds_store(path, creds)
    assert store.problem is None
    assert "Failed to unseal with TPM2" in store.notice
    store.write("_machinekey", b"new")
    assert {"state.kept-1", "state.key.kept-1"} <= set(listed(tmp_path))
    assert creds_store(path, creds).read("_machinekey") == b"new"


def test_tpm_that_cannot_encrypt_leaves_the_plain_key_file(tmp_path: Path, creds: Path) -> None:
    (creds / "tpm").write_text("broken")
    path = tmp_path / "state"
    creds_store(path, creds).write("_machinekey", SECRET)
    assert (tmp_path / "state.key").read_text().startswith("meshd-state-key 1 file\n")
    assert FileStore(path, sealed=True).read("_machinekey") == SECRET


def test_missing_systemd_creds_refuses_logins_and_keeps_everything(
    tmp_path: Path, creds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program may be back after the next start, so this is no reason to give an identity up."""
    path = tmp_path / "state"
    creds_store(path, creds).write("_machinekey", SECRET)
    monkeypatch.setenv("PATH", "/nonexistent")
    store = FileStore(path, sealed=True)
    assert store.problem is not None
    assert "needs systemd-creds" in str(store.problem)
    assert listed(tmp_path) == ["bin", "state", "state.key"]


def test_killed_systemd_creds_refuses_logins_and_keeps_everything(tmp_path: Path, creds: Path) -> None:
    """Out of memory at the start is no reason to become another node."""
    path = tmp_path / "state"
    creds_store(path, creds).write("_machinekey", SECRET)
    (creds / "systemd-creds").write_text("#!/bin/sh\nkill -9 $$\n")
    store = creds_store(path, creds)
    assert "was ended by signal 9" in str(store.problem)
    assert listed(tmp_path) == ["bin", "state", "state.key"]
    (creds / "systemd-creds").write_text(CREDS)
    assert creds_store(path, creds).read("_machinekey") == SECRET


def test_key_file_that_others_could_read_is_made_private(tmp_path: Path) -> None:
    path, key = tmp_path / "state", tmp_path / "state.key"
    sealed_store(path)
    key.chmod(0o644)
    FileStore(path, sealed=True)
    assert key.stat().st_mode & 0o777 == 0o600


def test_best_protection_is_systemds_only_below_systemd() -> None:
    assert isinstance(best_protection({}), InFile)


def test_initial_state_comes_from_a_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PS-03: used once, for a node that has no state."""
    folder = tmp_path / "credentials"
    folder.mkdir()
    plain_file(folder / "meshd.state", _machinekey=SECRET)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    path = tmp_path / "state"
    store = open_store(str(path))
    assert store.read("_machinekey") == SECRET
    store.write("_machinekey", b"newer")
    assert open_store(str(path)).read("_machinekey") == b"newer"
    assert credential("absent") is None


def test_initial_state_that_is_damaged_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "meshd.state").write_text("{")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    store = open_store(str(tmp_path / "state"))
    assert "the initial state is damaged" in str(store.problem)
