"""kubectl's configuration: a cluster, a user and a context for an API server that is reached through the mesh."""

from __future__ import annotations

import json
import os
from typing import Any

from meshd.cli.errors import CliError
from meshd.cli.files import write_atomically

_USER = "tailscale-auth"
"""One user for all clusters; the proxy in the cluster knows who connects, so its token means nothing."""


def configure(url: str, name: str) -> None:
    """Make a cluster, and the context in use, of this name. By kubectl where it is installed, else by hand.

    Raises:
        CliError: kubectl refused, or the file cannot be read or written.
    """
    from shutil import which

    kubectl = which("kubectl")
    if kubectl is not None:
        _by_kubectl(kubectl, url, name)
    else:
        _by_hand(path(), url, name)


def path() -> str:
    """The file that kubectl would write to: the first of KUBECONFIG that exists, else its last, else the usual one."""
    listed = [part for part in os.environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    return next((part for part in listed if os.path.isfile(part)), listed[-1] if listed else "") or os.path.join(
        os.path.expanduser("~"), ".kube", "config"
    )


def _by_kubectl(kubectl: str, url: str, name: str) -> None:
    import subprocess

    for words in (
        ["set-cluster", name, f"--server={url}"],
        ["set-credentials", _USER, "--token=unused"],
        ["set-context", name, f"--cluster={name}", f"--user={_USER}"],
        ["use-context", name],
    ):
        done = subprocess.run([kubectl, "config", *words], capture_output=True, text=True, check=False)
        if done.returncode:
            raise CliError(f"kubectl config {words[0]} failed: {done.stderr.strip() or done.returncode}")


def _by_hand(file: str, url: str, name: str) -> None:
    """JSON is YAML: without kubectl a new file, or one of ours, can be written, but no other one changed."""
    config = _read(file)
    for kind, entry in (
        ("clusters", {"name": name, "cluster": {"server": url}}),
        ("users", {"name": _USER, "user": {"token": "unused"}}),
        ("contexts", {"name": name, "context": {"cluster": name, "user": _USER}}),
    ):
        before = config.get(kind)
        others = [e for e in before or [] if not (isinstance(e, dict) and e.get("name") == entry["name"])]
        config[kind] = [*others, entry]
    config["current-context"] = name
    try:
        os.makedirs(os.path.dirname(file) or ".", 0o755, exist_ok=True)
    except OSError as error:
        raise CliError(f"cannot write {file}: {error.strerror}") from None
    write_atomically(file, json.dumps(config, indent=2).encode() + b"\n", 0o600)


def _read(file: str) -> dict[str, Any]:
    try:
        with open(file, encoding="utf-8") as source:
            text = source.read()
    except FileNotFoundError:
        text = ""
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"cannot read {file}: {getattr(error, 'strerror', None) or 'it is not text'}") from None
    if not text.strip():
        return {"apiVersion": "v1", "kind": "Config"}
    try:
        config = json.loads(text)
    except ValueError:
        raise CliError(f"{file} is not JSON, and only kubectl can change it; install kubectl") from None
    if not isinstance(config, dict) or (config.get("apiVersion"), config.get("kind")) != ("v1", "Config"):
        raise CliError(f"{file} is no configuration of kubectl")
    if not all(isinstance(config.get(kind) or [], list) for kind in ("clusters", "users", "contexts")):
        raise CliError(f"{file} is no configuration of kubectl")
    return config
