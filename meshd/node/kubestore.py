"""State in a Kubernetes secret (``--state=kube:NAME``), one field for each key.

The pod's service account must be allowed to get the secret and to patch or update it, and to create it where it is
not there yet. Other fields of the secret are left alone.
"""

from __future__ import annotations

import os
import re
import ssl
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from meshd.base.errors import MeshdError
from meshd.base.log import get_logger, kv
from meshd.io.http.h1blocking import fetch_blocking
from meshd.io.http.h1client import Answer

log = get_logger(__name__)

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TIMEOUT_S = 10.0
ATTEMPTS = 5
PAUSE_S = 0.2
START_PAUSE_S = 1.0
START_PATIENCE_S = 5.0
_LIMIT_BYTES = 8 << 20
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_UNFIT = re.compile(r"[^-._a-zA-Z0-9]")
_BUSY = (429, 500, 502, 503, 504)
_LATER = "meshd goes on with the state that it had. Try again when this is mended."
_JSON, _PATCH = "application/json", "application/json-patch+json"


class Unreachable(MeshdError):
    """There was no answer, or none that decides anything; there may be one later."""


class KubeApi:
    """The API server as a pod sees it: address from the environment, account and authority from its files."""

    def __init__(self, account: Path = ACCOUNT, environment: Mapping[str, str] = os.environ) -> None:
        host, port = environment.get("KUBERNETES_SERVICE_HOST", ""), environment.get("KUBERNETES_SERVICE_PORT", "443")
        if not host or not (port.isascii() and port.isdigit() and len(port) <= 5):
            raise _unavailable("this is no pod: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set")
        self._address = (host, int(port))
        self._host = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._account = account
        self.namespace = self._read("namespace")
        self._trusted()

    def _read(self, name: str) -> str:
        try:
            return (self._account / name).read_text().strip()
        except OSError as error:
            raise _unavailable(f"{self._account / name} cannot be read: {error.strerror}") from None

    def _trusted(self) -> ssl.SSLContext:
        path = self._account / "ca.crt"
        try:
            return ssl.create_default_context(cafile=str(path))
        except OSError as error:
            raise _unavailable(f"{path} cannot be used: {error.strerror or error}") from None

    def ask(self, method: str, path: str, value: object = None, kind: str = _JSON) -> Answer:
        """One request. Token and authority are read every time, because they are exchanged while we run."""
        headers = [
            ("Host", self._host),
            ("Authorization", f"Bearer {self._read('token')}"),
            ("Accept", _JSON),
            ("Connection", "close"),
        ]
        body = b""
        if value is not None:
            headers.append(("Content-Type", kind))
            body = msgspec.json.encode(value)
        trusted = self._trusted()
        try:
            return fetch_blocking(
                self._address, trusted, method, path, headers, body, timeout_s=TIMEOUT_S, limit=_LIMIT_BYTES
            )
        except (OSError, MeshdError) as error:
            raise _unavailable(f"the API server at {self._host} does not answer: {error}", Unreachable) from None


class KubeStore:
    """Implements `meshd.node.store.Store` over one secret. Every change is one request, so all of it or nothing."""

    ephemeral = False
    encrypted = False
    notice = ""

    def __init__(
        self, name: str, api: Callable[[], KubeApi] = KubeApi, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        if not _NAME.fullmatch(name):
            raise MeshdError(f"--state=kube:{name}: that is not the name of a secret", code="usage")
        self._name = name
        self._sleep = sleep
        self.problem: MeshdError | None = None
        self._values: dict[str, bytes] = {}
        self._version = self._identity = ""
        self._patching = True
        self._undecided: dict[str, bytes | None] = {}
        """What holds for our caller where a change got no answer or came half way; the next change makes it so."""
        try:
            self._api = api()
            self._path = f"/api/v1/namespaces/{self._api.namespace}/secrets"
            self._load_patiently()
        except MeshdError as error:
            self.problem = error

    @property
    def passing(self) -> bool:
        return isinstance(self.problem, Unreachable)

    def reopen(self) -> None:
        try:
            self._load()
        except MeshdError as error:
            self.problem = error
        else:
            self.problem = None

    def read(self, key: str) -> bytes | None:
        return {**self._values, **self._undecided}.get(_field(key)) or None

    def write(self, key: str, value: bytes | None) -> None:
        self.update({key: value})

    def update(self, changes: Mapping[str, bytes | None]) -> None:
        if self.problem is not None:
            raise self.problem
        wanted = self._undecided | {_field(key): value for key, value in changes.items()}
        before = {key: self._values.get(key) for key in wanted} | self._undecided
        held, identity = self._values, self._identity
        try:
            if self._undecided:
                self._load()
            self._change(wanted, held, identity)
        except MeshdError as error:
            if self._identity != identity:
                self._undecided = {**held, **before}
            elif isinstance(error, Unreachable):
                self._undecided = before
            raise MeshdError(error.message, code="unavailable", hint=_LATER) from None
        self._undecided = {}

    def _change(self, wanted: dict[str, bytes | None], held: dict[str, bytes], identity: str) -> None:
        for attempt in range(ATTEMPTS):
            if self._identity != identity:  # it was deleted: what we hold is all that is left of this node
                wanted, identity = {**held, **wanted}, self._identity
            news = {key: value for key, value in wanted.items() if self._values.get(key) != value}
            if not news:
                return
            answer = self._send(news)
            if answer.status in (200, 201):
                self._take(answer.body)
                return
            if answer.status not in (404, 409, 422):  # gone, or changed by somebody else
                raise self._refused("cannot be changed", answer)
            log.info("secret_changed_meanwhile", extra=kv(secret=self._name, status=answer.status))
            self._sleep(PAUSE_S * attempt)
            version = self._version
            self._load()
            if answer.status == 422 and (self._identity, self._version) == (identity, version):
                raise self._refused("cannot be changed", answer)
        raise _unavailable(f"the secret {self._name} is changed by others all the time")

    def _load_patiently(self) -> None:
        """A pod may run before its network does. Nothing else happens meanwhile, not even an end, so that one that
        takes long is left to `reopen`."""
        began = time.monotonic()
        for _ in range(ATTEMPTS - 1):
            try:
                self._load()
                return
            except Unreachable as error:
                if time.monotonic() - began > START_PATIENCE_S:
                    raise
                log.warning("state_not_reachable", extra=kv(secret=self._name, reason=error.message))
                self._sleep(START_PAUSE_S)
        self._load()

    def _load(self) -> None:
        answer = self._api.ask("GET", f"{self._path}/{self._name}")
        if answer.status == 404:
            empty = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": self._name}, "type": "Opaque"}
            answer = self._api.ask("POST", self._path, empty)
            if answer.status == 409:  # somebody was quicker
                answer = self._api.ask("GET", f"{self._path}/{self._name}")
        if answer.status not in (200, 201):
            raise self._refused("cannot be read or made", answer)
        self._take(answer.body)

    def _take(self, body: bytes) -> None:
        try:
            secret: dict[str, Any] = msgspec.json.decode(body, type=dict[str, Any])
            self._values = {key: b64decode(text, validate=True) for key, text in (secret.get("data") or {}).items()}
            self._version = str(secret["metadata"]["resourceVersion"])
            self._identity = str(secret["metadata"].get("uid", ""))
            self._secret = secret
        except (msgspec.MsgspecError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
            raise _unavailable(f"the secret {self._name} cannot be understood") from None

    def _send(self, news: dict[str, bytes | None]) -> Answer:
        if self._patching:
            answer = self._patch(news)
            if answer.status != 403:
                return answer
        answer = self._put(news)
        self._patching = answer.status == 403  # of what is not allowed now, either may be later
        return answer

    def _put(self, news: dict[str, bytes | None]) -> Answer:
        values = self._values | {key: value for key, value in news.items() if value is not None}
        data = {key: _text(value) for key, value in values.items() if news.get(key, value) is not None}
        return self._api.ask("PUT", f"{self._path}/{self._name}", {**self._secret, "data": data})

    def _patch(self, news: dict[str, bytes | None]) -> Answer:
        steps: list[dict[str, Any]] = []
        if not self._secret.get("data"):
            steps.append({"op": "add", "path": "/data", "value": {}})
        for key, value in news.items():
            if value is not None:
                steps.append({"op": "add", "path": f"/data/{key}", "value": _text(value)})
            else:
                steps.append({"op": "remove", "path": f"/data/{key}"})
        # What we know of the secret must still hold, else ours and another's changes could undo each other.
        steps.insert(0, {"op": "test", "path": "/metadata/resourceVersion", "value": self._version})
        return self._api.ask("PATCH", f"{self._path}/{self._name}", steps, _PATCH)

    def _refused(self, what: str, answer: Answer) -> MeshdError:
        reasons = {
            401: "the API server does not accept the pod's service account",
            403: "the pod's service account is not allowed to",
        }
        why = reasons.get(answer.status, f"the API server answered {answer.status}")
        text = f"the secret {self._name} in namespace {self._api.namespace} {what}: {why}"
        return _unavailable(text, Unreachable if answer.status in _BUSY else MeshdError)


def _field(key: str) -> str:
    return _UNFIT.sub("_", key)


def _text(value: bytes) -> str:
    return b64encode(value).decode()


def _unavailable(message: str, kind: type[MeshdError] = MeshdError) -> MeshdError:
    hint = "meshd does not log in without its state. "
    hint += "It tries again." if kind is Unreachable else "Mend this, then restart it."
    return kind(f"Kubernetes state: {message}", code="unavailable", hint=hint)
