"""Auth keys made on the spot: by an OAuth client's secret, or by the identity that a cloud gives its machines."""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import parse_qsl, urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from meshd.cli.errors import CliError
from meshd.cli.output import printable

SECRET_PREFIX = "tskey-client-"
DEFAULT_API = "https://api.tailscale.com"
PATIENCE_S = 20.0
_MAX_BYTES = 1 << 20
_TRUE, _FALSE = ("1", "t", "T", "TRUE", "true", "True"), ("0", "f", "F", "FALSE", "false", "False")


def key_for_secret(secret: str, tags: list[str] | None) -> str:
    """An auth key for `tskey-client-…[?ephemeral=…&preauthorized=…&baseURL=…]`; any other key is returned as it is.

    Raises:
        CliError: without tags, for an unknown attribute, when the server refuses.
    """
    if not secret.startswith(SECRET_PREFIX):
        return secret
    if not tags:
        raise CliError("oauth authkeys require --advertise-tags")
    bare, wanted = _attributes(secret, ("ephemeral", "preauthorized", "baseURL"))
    api = wanted.pop("baseURL", "") or DEFAULT_API
    token = _post(api, "/api/v2/oauth/token", {"grant_type": "client_credentials", "client_id": "some-client-id",
                                               "client_secret": bare}, secrets=(bare,))  # fmt: skip
    return _create_key(api, _text(token, "access_token"), tags, wanted)


def key_for_identity(client_id: str, id_token: str, audience: str, api: str, tags: list[str] | None) -> str:
    """An auth key for a client that trusts the identity of this workload, proven by `id_token` or one for `audience`.

    Raises:
        CliError: as `key_for_secret`, or no token can be had here.
    """
    if not id_token and not audience:
        raise CliError("federated identity requires either an ID token or an audience")
    if not tags:
        raise CliError("federated identity authkeys require --advertise-tags")
    bare, wanted = _attributes(client_id, ("ephemeral", "preauthorized"))
    id_token = id_token or _ambient_token(audience)
    found = _post(api, "/api/v2/oauth/token-exchange", {"client_id": bare, "jwt": id_token}, secrets=(id_token,))
    return _create_key(api, _text(found, "access_token"), tags, wanted)


def _attributes(text: str, known: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    """What is before the question mark, and the attributes after it: booleans, and a URL."""
    bare, _, query = text.partition("?")
    wanted: dict[str, Any] = {"ephemeral": True, "preauthorized": False}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            raise CliError(f'unknown attribute "{printable(name)}"')
        if name == "baseURL":
            wanted[name] = value
        elif value in _TRUE or value in _FALSE:
            wanted[name] = value in _TRUE
        elif value:
            raise CliError(f'invalid boolean attribute {name} value "{printable(value)}"')
    return bare, wanted


def _create_key(api: str, token: str, tags: list[str], wanted: dict[str, Any]) -> str:
    create = {"reusable": False, "ephemeral": wanted["ephemeral"], "preauthorized": wanted["preauthorized"]}
    body = json.dumps({"capabilities": {"devices": {"create": {**create, "tags": tags}}}}).encode()
    request = _request(api, "/api/v2/tailnet/-/keys", body, "application/json")
    request.add_unredirected_header("Authorization", f"Bearer {token}")
    return _text(_answer(request, (token,)), "key")


def _ambient_token(audience: str) -> str:
    """The identity token that GitHub Actions or Google Cloud gives this machine."""
    url, secret = os.environ.get("ACTIONS_ID_TOKEN_REQUEST_URL"), os.environ.get("ACTIONS_ID_TOKEN_REQUEST_TOKEN")
    if url and secret:
        request = Request(url + ("&" if "?" in url else "?") + urlencode({"audience": audience}))
        request.add_unredirected_header("Authorization", f"Bearer {secret}")
        return _text(_answer(request, (secret,)), "value")
    if host := os.environ.get("GCE_METADATA_HOST"):
        query = urlencode({"audience": audience, "format": "full"})
        path = "/computeMetadata/v1/instance/service-accounts/default/identity?"
        return _fetch(Request(f"http://{host}{path}{query}", headers={"Metadata-Flavor": "Google"}), ()).decode()
    raise CliError(
        "federated identity authkeys require --id-token: this is neither GitHub Actions (with the permission "
        "id-token: write), nor is GCE_METADATA_HOST set"
    )


def _post(api: str, path: str, form: dict[str, str], secrets: tuple[str, ...]) -> dict[str, Any]:
    return _answer(_request(api, path, urlencode(form).encode(), "application/x-www-form-urlencoded"), secrets)


def _request(api: str, path: str, body: bytes, kind: str) -> Request:
    parts = urlsplit(api)
    local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if (parts.scheme != "https" and not (parts.scheme == "http" and local)) or not parts.hostname:
        raise CliError(f'"{printable(api)}" is no https URL: a secret is not sent anywhere else')
    return Request(api.rstrip("/") + path, data=body, headers={"Content-Type": kind, "Accept": "application/json"})


class _NoRedirect(HTTPRedirectHandler):
    """A secret goes to the server that was named and to no other."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _fetch(request: Request, secrets: tuple[str, ...]) -> bytes:
    host = urlsplit(request.full_url).hostname
    try:
        with build_opener(_NoRedirect).open(request, timeout=PATIENCE_S) as answer:
            return bytes(answer.read(_MAX_BYTES))
    except HTTPError as error:
        with error:
            words = error.read(2000).decode("utf-8", "replace").strip()
        for secret in secrets:
            words = words.replace(secret, "...")
        raise CliError(f"{host} refused to make an auth key: {error.code}, {printable(words)}") from None
    except (URLError, OSError, ValueError) as error:
        raise CliError(f"cannot get an auth key from {host}: {getattr(error, 'reason', None) or error}") from None


def _answer(request: Request, secrets: tuple[str, ...]) -> dict[str, Any]:
    try:
        value = json.loads(_fetch(request, secrets))
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise CliError(f"{urlsplit(request.full_url).hostname} answered something that is no JSON object")
    return value


def _text(answer: dict[str, Any], name: str) -> str:
    value = answer.get(name)
    if not isinstance(value, str) or not value:
        raise CliError(f'the server that makes auth keys answered without "{name}"')
    return value
