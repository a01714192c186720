"""A serve configuration as text: what is served where, and who can reach it."""

from __future__ import annotations

from meshd.cli.client import JSON
from meshd.cli.output import printable

_LONGEST_TEXT = 20


def is_empty(config: JSON) -> bool:
    """Whether nothing is served."""
    return not any(config.get(name) for name in ("TCP", "Web", "Services", "AllowFunnel"))


def funnel_urls(config: JSON) -> list[str]:
    """What the internet can reach."""
    urls = []
    for host_port, allowed in sorted((config.get("AllowFunnel") or {}).items()):
        host, _, port = host_port.rpartition(":")
        if allowed:
            forwards = _forwards(config, port)
            scheme = "tcp" if forwards else "https"
            urls.append(f"{scheme}://{host}" + (f":{port}" if forwards or port != "443" else ""))
    return urls


def _forwards(config: JSON, port: str) -> bool:
    return bool(((config.get("TCP") or {}).get(port) or {}).get("TCPForward"))


def tree(config: JSON, status: JSON) -> list[str]:
    """The configuration as lines: forwarded ports, then web servers, then services."""
    lines: list[str] = []
    own = status.get("Self") or {}
    name = str(own.get("DNSName") or "").rstrip(".")
    for port, handler in sorted((config.get("TCP") or {}).items(), key=lambda item: int(item[0])):
        if handler.get("TCPForward"):
            reach = "Funnel on" if (config.get("AllowFunnel") or {}).get(f"{name}:{port}") else "tailnet only"
            lines += _forward(f"|-- tcp://{name}:{port}", handler, reach)
            for address in status.get("TailscaleIPs") or []:
                lines.append(f"|-- tcp://{_join(address, port)}")
            lines += [_target(handler["TCPForward"]), ""]
    for host_port, web in sorted((config.get("Web") or {}).items()):
        funnel = bool((config.get("AllowFunnel") or {}).get(host_port))
        lines += [*_web(host_port, web, config.get("TCP") or {}, funnel=funnel), ""]
    suffix = str((status.get("CurrentTailnet") or {}).get("MagicDNSSuffix") or "")
    for service, parts in sorted((config.get("Services") or {}).items()):
        lines += _service(service, parts or {}, suffix)
    return [printable(line) for line in lines]


def _forward(head: str, handler: JSON, reach: str) -> list[str]:
    kind = "TLS-terminated TCP, " if handler.get("TerminateTLS") else ""
    return [f"{head} ({kind}{reach})"]


def _target(forward: str) -> str:
    return f"|--> {forward}" if forward.startswith("unix:") else f"|--> tcp://{forward}"


def _join(address: str, port: str) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _web(host_port: str, web: JSON, ports: JSON, *, funnel: bool, service: str = "") -> list[str]:
    host, _, port = host_port.rpartition(":")
    scheme = "http" if (ports.get(port) or {}).get("HTTP") else "https"
    shown = "" if (scheme, port) in (("http", "80"), ("https", "443")) else f":{port}"
    note = f" ({'Funnel on' if funnel else 'tailnet only'})" + (f" ({service})" if service else "")
    lines = [f"{scheme}://{host}{shown}{note}"]
    if scheme == "http" and not service:
        lines.insert(0, f"http://{host.partition('.')[0]}{shown}{note}")
    mounts = sorted((web.get("Handlers") or {}).items(), key=lambda item: len(item[0]))
    width = len(mounts[-1][0]) if mounts else 0
    for mount, handler in mounts:
        kind, what = _handler(handler)
        lines.append(f"|-- {mount.ljust(width)} {kind:<5} {what}")
    return lines


def _handler(handler: JSON) -> tuple[str, str]:
    if handler.get("Path"):
        return "path", str(handler["Path"])
    if handler.get("Proxy"):
        return "proxy", str(handler["Proxy"])
    text = str(handler.get("Text") or "")
    if not text:
        return "", ""
    return "text", '"' + (text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 3] + "...") + '"'


def _service(service: str, parts: JSON, suffix: str) -> list[str]:
    if parts.get("Tun"):
        return [f"tun (L3 forwarding) ({service})", ""]
    host = service.removeprefix("svc:") + (f".{suffix}" if suffix else "")
    lines: list[str] = []
    for port, handler in sorted((parts.get("TCP") or {}).items(), key=lambda item: int(item[0])):
        if handler.get("TCPForward"):
            head = _forward(f"tcp://{host}:{port}", handler, "tailnet only")[0]
            lines += [f"{head} ({service})", _target(handler["TCPForward"]), ""]
    for host_port, web in sorted((parts.get("Web") or {}).items()):
        lines += [*_web(host_port, web, parts.get("TCP") or {}, funnel=False, service=service), ""]
    return lines
