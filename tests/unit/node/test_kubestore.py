"""State in a Kubernetes secret, against an API server of the test over TLS."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from base64 import b64decode, b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from meshd.base.addr import IPAddress, parse_ip
from meshd.base.errors import MeshdError
from meshd.io.http import h1blocking
from meshd.node import kubestore
from meshd.node.kubestore import KubeApi, KubeStore, Unreachable
from meshd.node.store import open_store

BASE = "/api/v1/namespaces/mesh/secrets"


class ApiServer:
    """One namespace with secrets. ``forbid`` holds methods, ``meanwhile`` runs once before a change is applied."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.secrets: dict[str, dict[str, Any]] = {}
        self.token = "first"
        self.forbid: set[str] = set()
        self.meanwhile: list[Any] = []
        self.answers: dict[str, int] = {}
        """The status that a method is answered with, whatever is asked."""
        self.silent = False
        """Do what is asked, and do not say so."""
        self.requests: list[str] = []
        self.made = 0
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def _do(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, value = owner.answer(self.command, self.path, self.headers, body)
                data = json.dumps(value).encode()
                if owner.silent:
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = do_PATCH = _do

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def put(self, name: str, data: dict[str, str] | None, old: int = 0) -> dict[str, Any]:
        before = self.secrets.get(name)
        self.made += before is None
        identity = before["metadata"]["uid"] if before else f"number {self.made}"
        made = {"metadata": {"name": name, "uid": identity, "resourceVersion": str(old + 1)}, "kind": "Secret"}
        self.secrets[name] = made if data is None else {**made, "data": data}
        return self.secrets[name]

    def data(self, name: str = "state") -> dict[str, bytes]:
        return {key: b64decode(value) for key, value in self.secrets[name].get("data", {}).items()}

    def answer(self, method: str, path: str, headers: Any, body: bytes) -> tuple[int, Any]:
        self.requests.append(method)
        if headers["Authorization"] != f"Bearer {self.token}":
            return 401, {}
        if method in self.forbid:
            return 403, {}
        if method in self.answers:
            return self.answers[method], {}
        if method == "POST":
            name = json.loads(body)["metadata"]["name"]
            if name in self.secrets:
                return 409, {}
            return 201, self.put(name, None)
        name = path.removeprefix(BASE + "/")
        if name not in self.secrets:
            return 404, {}
        if method == "GET":
            return 200, self.secrets[name]
        if self.meanwhile:
            self.meanwhile.pop()()
        secret = self.secrets[name]
        version = int(secret["metadata"]["resourceVersion"])
        if method == "PUT":
            wanted = json.loads(body)
            if wanted["metadata"]["resourceVersion"] != str(version):
                return 409, {}
            return 200, self.put(name, wanted["data"], version)
        assert headers["Content-Type"] == "application/json-patch+json"
        data = dict(secret["data"]) if "data" in secret else None
        for step in json.loads(body):
            if step["op"] == "test":
                if step["value"] != str(version):
                    return 422, {}
            elif step["path"] == "/data":
                data = dict(step["value"])
            elif data is None or (step["op"] == "remove" and step["path"][6:] not in data):
                return 422, {}
            elif step["op"] == "add":
                data[step["path"][6:]] = step["value"]
            else:
                del data[step["path"][6:]]
        return 200, self.put(name, data, version)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls") / "server.pem")


def make_certificate(path: Path) -> Path:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kubernetes")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, private.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path.write_bytes(made.public_bytes(pem) + private.private_bytes(pem, pkcs8, serialization.NoEncryption()))
    return path


@pytest.fixture
def server(certificate: Path) -> Iterator[ApiServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    made = ApiServer(context)
    yield made
    made.server.shutdown()
    made.server.server_close()
    made.thread.join()


@pytest.fixture
def account(tmp_path: Path, certificate: Path) -> Path:
    (tmp_path / "token").write_text("first\n")
    (tmp_path / "namespace").write_text("mesh")
    (tmp_path / "ca.crt").write_bytes(certificate.read_bytes())
    return tmp_path


def environment(server: ApiServer) -> dict[str, str]:
    return {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(server.port)}


def store(server: ApiServer, account: Path) -> KubeStore:
    return KubeStore("state", lambda: KubeApi(account, environment(server)), lambda _: None)


def test_kube_store_makes_the_secret_and_comes_back(server: ApiServer, account: Path) -> None:
    """PS-03: one field for each key, with characters that a secret cannot have replaced."""
    first = store(server, account)
    assert (first.problem, first.ephemeral) == (None, False)
    first.update({"_machinekey": b"k", "profile-ab12||_routeInfo": b"{}"})
    assert server.data() == {"_machinekey": b"k", "profile-ab12___routeInfo": b"{}"}
    again = store(server, account)
    assert again.read("_machinekey") == b"k"
    assert again.read("profile-ab12||_routeInfo") == b"{}"
    assert again.read("absent") is None
    assert server.requests == ["GET", "POST", "PATCH", "GET"]


def test_kube_store_changes_several_keys_in_one_request_and_only_when_needed(server: ApiServer, account: Path) -> None:
    """PS-01."""
    made = store(server, account)
    made.update({"a": b"1", "b": b"2"})
    server.requests.clear()
    made.update({"a": None, "b": b"3", "c": b"4"})
    made.write("c", b"4")
    assert server.requests == ["PATCH"]
    assert server.data() == {"b": b"3", "c": b"4"}


def test_kube_store_without_leave_to_patch_updates_the_whole(server: ApiServer, account: Path) -> None:
    server.put("state", {"other": b64encode(b"kept").decode()})
    server.forbid.add("PATCH")
    made = store(server, account)
    made.write("a", b"1")
    made.write("a", b"2")
    assert server.data() == {"other": b"kept", "a": b"2"}
    assert server.requests == ["GET", "PATCH", "PUT", "PUT"]


@pytest.mark.parametrize("forbid", [set(), {"PATCH"}], ids=["patch", "update"])
def test_kube_store_change_by_others_meanwhile_is_kept(server: ApiServer, account: Path, forbid: set[str]) -> None:
    made = store(server, account)
    made.write("a", b"1")
    server.forbid |= forbid
    other = {"a": b64encode(b"1").decode(), "other": b64encode(b"x").decode()}
    server.meanwhile.append(lambda: server.put("state", other, old=7))
    made.write("a", b"2")
    assert server.data() == {"a": b"2", "other": b"x"}


@pytest.mark.parametrize("forbid", [set(), {"PATCH"}], ids=["patch", "update"])
def test_kube_store_secret_that_vanishes_is_made_again_with_all_it_held(
    server: ApiServer, account: Path, forbid: set[str]
) -> None:
    """Without its machine key and the list of its profiles the node would be another one."""
    server.forbid |= forbid
    made = store(server, account)
    made.update({"a": b"1", "gone": b"x"})
    del server.secrets["state"]
    made.update({"b": b"2", "gone": None})
    assert server.data() == {"a": b"1", "b": b"2"}
    assert made.read("a") == b"1"


def test_kube_store_secret_that_another_made_anew_gets_what_it_held(server: ApiServer, account: Path) -> None:
    made = store(server, account)
    made.write("a", b"1")

    def replace() -> None:
        del server.secrets["state"]
        server.put("state", {"other": b64encode(b"x").decode()}, old=50)

    server.meanwhile.append(replace)
    made.write("b", b"2")
    assert server.data() == {"a": b"1", "b": b"2", "other": b"x"}


def test_kube_store_secret_that_vanishes_during_a_failure_gets_what_it_held(server: ApiServer, account: Path) -> None:
    """Between making the secret again and filling it, the API server is busy."""
    made = store(server, account)
    made.update({"a": b"1", "b": b"1"})
    del server.secrets["state"]
    answer = server.answer

    def fill_later(method: str, *rest: Any) -> tuple[int, Any]:
        return (503, {}) if method == "PATCH" and "state" in server.secrets else answer(method, *rest)

    server.answer = fill_later  # type: ignore[method-assign]
    with pytest.raises(MeshdError, match="answered 503"):
        made.write("b", b"2")
    assert server.data() == {}
    assert (made.read("a"), made.read("b")) == (b"1", b"1")
    server.answer = answer  # type: ignore[method-assign]
    made.write("c", b"3")
    assert server.data() == {"a": b"1", "b": b"1", "c": b"3"}


def test_kube_store_is_refused_what_a_secret_cannot_be(server: ApiServer, account: Path) -> None:
    """Such as one of more than a megabyte."""
    made = store(server, account)
    made.write("a", b"1")
    server.requests.clear()
    server.answers["PATCH"] = 422
    with pytest.raises(MeshdError, match="the API server answered 422"):
        made.write("a", b"2")
    assert server.requests == ["PATCH", "GET"]


def test_kube_store_that_was_allowed_nothing_for_a_while_patches_again(server: ApiServer, account: Path) -> None:
    made = store(server, account)
    server.forbid |= {"PATCH", "PUT"}
    with pytest.raises(MeshdError, match="is not allowed to"):
        made.write("a", b"1")
    server.forbid = {"PUT"}
    made.write("a", b"1")
    assert server.data() == {"a": b"1"}


@pytest.mark.parametrize("status", [429, 500, 503])
def test_kube_store_waits_for_an_api_server_that_is_busy(server: ApiServer, account: Path, status: int) -> None:
    server.answers["GET"] = status
    made = KubeStore("state", lambda: KubeApi(account, environment(server)), lambda _: server.answers.clear())
    assert made.problem is None
    made.write("a", b"1")
    assert server.data() == {"a": b"1"}


@pytest.mark.parametrize(
    "lost", [{"a": b"2"}, {"a": None}, {"a": b"2", "new": b"3"}], ids=["set", "removed", "several"]
)
def test_kube_store_change_that_got_no_answer_is_undone_by_the_next(
    server: ApiServer, account: Path, lost: dict[str, bytes | None]
) -> None:
    """INV-2: the caller was told that it failed, and goes on with what was before."""
    made = store(server, account)
    made.write("a", b"1")
    server.silent = True
    with pytest.raises(MeshdError, match="does not answer") as caught:
        made.update(lost)
    assert "restart" not in (caught.value.hint or "")
    assert made.read("a") == b"1"
    assert server.data().get("a") == lost["a"]
    server.silent = False
    made.update({})
    assert server.data() == {"a": b"1"}


def test_kube_store_that_never_comes_to_its_turn_says_so(server: ApiServer, account: Path) -> None:
    made = store(server, account)
    for _ in range(20):
        server.meanwhile.append(
            lambda: server.put("state", {}, old=int(server.secrets["state"]["metadata"]["resourceVersion"]))
        )
    with pytest.raises(MeshdError, match="changed by others all the time"):
        made.write("a", b"1")


def test_kube_store_reads_the_token_anew(server: ApiServer, account: Path) -> None:
    made = store(server, account)
    server.token = "second"
    with pytest.raises(MeshdError, match="does not accept the pod's service account") as caught:
        made.write("a", b"1")
    assert "first" not in str(caught.value)
    (account / "token").write_text("second")
    made.write("a", b"1")
    assert server.data() == {"a": b"1"}


def test_kube_store_trusts_the_authority_of_the_moment(server: ApiServer, account: Path, certificate: Path) -> None:
    """A cluster gets a new one every few years, and its pods find it in the same file."""
    make_certificate(account / "ca.crt")
    made = store(server, account)
    assert made.passing
    assert "certificate verify failed" in str(made.problem)
    (account / "ca.crt").write_bytes(certificate.read_bytes())
    made.reopen()
    assert made.problem is None
    (account / "ca.crt").unlink()
    with pytest.raises(MeshdError, match="ca.crt cannot be used"):
        made.write("a", b"1")


def test_kube_store_failed_write_changes_nothing(server: ApiServer, account: Path) -> None:
    made = store(server, account)
    made.write("a", b"1")
    server.forbid |= {"PATCH", "PUT"}
    with pytest.raises(MeshdError, match="is not allowed to"):
        made.write("a", b"2")
    assert made.read("a") == b"1"


def test_kube_store_waits_a_little_for_the_network_of_its_pod(server: ApiServer, account: Path) -> None:
    api = KubeApi(account, environment(server))
    asked = api.ask
    pauses: list[float] = []

    def ask(*arguments: Any) -> Any:
        if len(pauses) < 2:
            raise Unreachable("no route to host")
        return asked(*arguments)

    api.ask = ask  # type: ignore[method-assign]
    assert KubeStore("state", lambda: api, pauses.append).problem is None
    assert len(pauses) == 2


def test_kube_store_does_not_wait_long_for_an_api_server_that_is_silent(
    server: ApiServer, account: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon neither answers nor ends while it starts."""
    api = KubeApi(account, environment(server))
    asked = []

    def ask(*arguments: Any) -> Any:
        asked.append(arguments)
        raise Unreachable("timed out")

    api.ask = ask  # type: ignore[method-assign]
    ticks = iter(range(0, 1000, 10))
    monkeypatch.setattr(kubestore, "time", SimpleNamespace(monotonic=lambda: float(next(ticks))))
    made = KubeStore("state", lambda: api, lambda _: None)
    assert made.passing
    assert len(asked) == 1


def test_kube_store_other_name_in_the_certificate_is_not_trusted(server: ApiServer, account: Path) -> None:
    named = environment(server) | {"KUBERNETES_SERVICE_HOST": "localhost"}
    made = KubeStore("state", lambda: KubeApi(account, named), lambda _: None)
    assert "does not answer" in str(made.problem)
    assert server.requests == []


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda server, account: server.forbid.add("GET"), "is not allowed to"),
        (lambda server, account: server.put("state", {"a": "%%%"}), "cannot be understood"),
        (lambda server, account: (account / "token").unlink(), "token cannot be read"),
        (lambda server, account: (account / "ca.crt").write_text("x"), "ca.crt cannot be used"),
        (lambda server, account: (account / "namespace").unlink(), "namespace cannot be read"),
    ],
)
def test_kube_store_that_cannot_be_opened_explains_itself(
    server: ApiServer, account: Path, spoil: Any, text: str
) -> None:
    """SM-21: the daemon starts with it and refuses logins."""
    spoil(server, account)
    made = store(server, account)
    assert text in str(made.problem)
    with pytest.raises(MeshdError):
        made.write("a", b"1")


def test_kube_store_that_could_not_be_reached_is_opened_later(server: ApiServer, account: Path) -> None:
    """SM-21."""
    server.put("state", {"a": b64encode(b"1").decode()})
    server.answers["GET"] = 503
    made = store(server, account)
    assert made.passing
    assert "tries again" in str(made.problem)
    made.reopen()
    assert made.passing
    server.answers.clear()
    server.forbid.add("GET")
    made.reopen()
    assert made.problem is not None
    assert not made.passing
    server.forbid.clear()
    made.reopen()
    assert (made.problem, made.passing, made.read("a")) == (None, False, b"1")


def test_kube_store_asks_past_the_tunnel(server: ApiServer, account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exit node or a peer's subnet route must not come between a pod and its API server."""
    marked: list[IPAddress | None] = []
    monkeypatch.setattr(h1blocking, "mark_socket", lambda _, peer: marked.append(peer))
    store(server, account)
    assert marked == [parse_ip("127.0.0.1")] * 2


def test_kube_store_answer_without_end_is_waited_for_once(certificate: Path, account: Path) -> None:
    """Nothing else happens meanwhile: each piece of an answer is not granted the whole time anew."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    ticks = iter(range(1000))
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.MonkeyPatch.context() as patch:
        patch.setattr(h1blocking, "time", SimpleNamespace(monotonic=lambda: float(next(ticks))))
        thread = threading.Thread(target=pour, args=(context, listener))
        thread.start()
        port = listener.getsockname()[1]
        api = KubeApi(account, {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(port)})
        with pytest.raises(Unreachable, match="timed out"):
            api.ask("GET", "/")
        thread.join()


def pour(context: ssl.SSLContext, listener: socket.socket) -> None:
    """Answer one client for as long as it stays."""
    plain, _ = listener.accept()
    with contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as sock:
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            sock.sendall(bytes(1 << 14))


def test_kube_store_outside_a_pod_explains_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """PS-03."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert "this is no pod" in str(open_store("kube:state").problem)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "\u00b2")
    assert "this is no pod" in str(open_store("kube:state").problem)
    with pytest.raises(MeshdError, match="not the name of a secret"):
        open_store("kube:../x")
