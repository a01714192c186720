"""HTTP proxies from the environment: which one to use for a host, and how to get through it."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from meshd.base.addr import parse_ip
from meshd.base.discreet import Discreet
from meshd.base.errors import MeshdError
from meshd.io.dial import dial_tcp
from meshd.io.streams import SocketStream


class Proxy(Discreet, frozen=True):
    """One proxy; ``authorization`` is the value of Proxy-Authorization or empty."""

    hidden = ("authorization",)

    host: str
    port: int
    authorization: str = ""


def proxy_for(scheme: str, host: str, port: int, environ: Mapping[str, str] | None = None) -> Proxy | None:
    """The proxy for ``scheme`` (http or https) and this host, None for a direct connection.

    HTTP_PROXY, HTTPS_PROXY and NO_PROXY in either case. Loopback hosts are never proxied.
    """
    environ = os.environ if environ is None else environ
    name = f"{scheme}_proxy"
    value = environ.get(name) or environ.get(name.upper()) or ""
    if not value or _exempt(host, port, environ.get("no_proxy") or environ.get("NO_PROXY") or ""):
        return None
    try:
        return _parse(value)
    except ValueError:  # its text may hold the password
        raise _unusable(name) from None


def _parse(value: str) -> Proxy:
    parts = urlsplit(value if "://" in value else f"http://{value}")
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError("no HTTP proxy")
    authorization = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + b64encode(pair.encode()).decode()
    return Proxy(parts.hostname, parts.port or 80, authorization)


async def dial_through(proxy: Proxy, host: str, port: int) -> SocketStream:
    """A stream to ``host:port`` by CONNECT. Raises MeshdError."""
    from meshd.io.http.h1client import upgrade

    stream = await dial_tcp(proxy.host, proxy.port)
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    headers = [("Host", target)]
    if proxy.authorization:
        headers.append(("Proxy-Authorization", proxy.authorization))
    try:
        answer = await upgrade(stream, "CONNECT", target, headers)
        if not 200 <= answer.status < 300:
            raise MeshdError(
                f"the proxy {proxy.host}:{proxy.port} refused a connection to {target}: HTTP {answer.status}",
                code="control-unreachable",
                hint="Check the proxy variables in the environment of the daemon.",
            )
        stream.unread(answer.rest)
    except BaseException:
        stream.close()
        raise
    return stream


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5


def _unusable(name: str) -> MeshdError:
    return MeshdError(
        f"{name.upper()} does not name an HTTP proxy",
        code="proxy",
        hint="Write it as http://host:port; other kinds of proxy are not supported.",
    )


def _exempt(host: str, port: int, no_proxy: str) -> bool:
    host = host.lower().rstrip(".")
    address = None
    try:
        address = parse_ip(host)
    except ValueError:
        if host == "localhost":
            return True
    if address is not None and address.is_loopback:
        return True
    for entry in no_proxy.lower().split(","):
        rule = entry.strip()
        if rule == "*":
            return True
        name, colon, only_port = rule.rpartition(":")
        if colon and _is_port(only_port) and (":" not in name or name.endswith("]")):
            if int(only_port) != port:
                continue
            rule = name
        rule = rule.strip("[]").removeprefix("*")
        if not rule:
            continue
        if address is not None:
            from ipaddress import ip_network

            try:
                if address in ip_network(rule, strict=False):
                    return True
            except ValueError:
                continue
        elif host == rule.lstrip(".") or host.endswith("." + rule.lstrip(".")):
            return True
    return False
