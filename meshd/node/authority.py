"""Who besides the user decides about preferences: the configuration file of ``--config`` and the system policy.

Most nodes have neither: then this object allows everything, and nothing is imported for it.
"""

from __future__ import annotations

import os
import select
import stat
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from meshd.base.errors import MeshdError
from meshd.base.log import get_logger, kv
from meshd.core import prefs as prefs_module
from meshd.core.prefs import Prefs
from meshd.io.userdata import SOURCE, read_user_data

if TYPE_CHECKING:
    from meshd.core.configfile import ConfigFile
    from meshd.core.syspolicy import Policy

log = get_logger(__name__)

OPTIONAL = "optional:"
"""Before the path of ``--config``: it is no fault when there is no such file."""
_EXIT_KEYS = ("ExitNodeID", "ExitNodeIP", "ExitNode.AllowOverride")
_ALWAYS_ON_KEYS = ("AlwaysOn.Enabled", "AlwaysOn.OverrideWithReason")

Read = Callable[[str], bytes]
"""Reads the text behind a path; OSError when it cannot, FileNotFoundError when there is none."""


_LIMIT_BYTES = (1 << 20) + 1
"""One byte more than is taken, so that too much is noticed."""
PIPE_PATIENCE_S = 2.0


def read_file(path: str) -> bytes:
    if path == SOURCE:
        return read_user_data()
    with open(path, "rb") as file:
        return file.read(_LIMIT_BYTES)


def read_meanwhile(path: str) -> bytes:
    """As `read_file`, while others wait for us: a pipe that nobody writes to is given up."""
    if path == SOURCE:
        return read_user_data()
    with open(path, "rb", buffering=0, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISFIFO(os.fstat(file.fileno()).st_mode):
            return file.read(_LIMIT_BYTES) or b""
        return _read_pipe(file.fileno())


def _read_pipe(descriptor: int) -> bytes:
    deadline = time.monotonic() + PIPE_PATIENCE_S
    ready = select.poll()
    ready.register(descriptor, select.POLLIN)
    data = bytearray()
    while len(data) < _LIMIT_BYTES:
        left = deadline - time.monotonic()
        if left <= 0 or not ready.poll(left * 1000):
            raise TimeoutError("it is a pipe that nobody writes to")
        piece = os.read(descriptor, _LIMIT_BYTES)
        if not piece:
            break
        data += piece
    return bytes(data)


class Authority:
    """``load`` once; then the questions of the backend, in any order.

    ``config_path`` may begin with ``optional:``; "" means none. A missing policy file is an empty policy.
    """

    def __init__(self, config_path: str = "", policy_path: str = "", read: Read = read_file) -> None:
        self._config_path = config_path.removeprefix(OPTIONAL)
        self._optional = config_path.startswith(OPTIONAL)
        self._policy_path = policy_path
        self._read = read
        self.config: ConfigFile | None = None
        self.policy: Policy | None = None
        """The system policy; None is one without settings."""
        self.policy_problem = ""
        """What is wrong with the policy file, for the user."""
        self._exit_node_overridden = False
        self._always_on_overridden = False

    # -- reading --------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Read both files. MeshdError "config" says what is wrong with the configuration file; a bad policy file
        is remembered in ``policy_problem`` and does not keep the node from starting."""
        if self._config_path:
            try:
                self.config = self._read_config()
            except FileNotFoundError:
                if not self._optional:
                    raise self._config_error("there is no such file") from None
                log.info("config_absent", extra=kv(path=self._config_path, action="starting unconfigured"))
        self.load_policy()
        if self._read is read_file:
            self._read = read_meanwhile

    def reload_config(self) -> bool:
        """Read the configuration file again; False when there is none to read. MeshdError leaves the old one."""
        if not self._config_path or (self.config is None and not self._optional):
            return False
        try:
            self.config = self._read_config()
        except FileNotFoundError:
            if self.config is None:
                return False
            raise self._config_error("there is no such file") from None
        return True

    def _read_config(self) -> ConfigFile:
        from meshd.core.configfile import parse_config

        try:
            data = self._read(self._config_path)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise self._config_error(error.strerror or str(error)) from None
        config = parse_config(data, self._config_path)
        try:
            prefs_module.check(prefs_module.edit(Prefs(), config.masked))
        except MeshdError as error:
            raise MeshdError(f"error parsing config to prefs: {error.message}", code="config") from None
        for name in config.unused:
            log.warning("config_field_without_effect", extra=kv(field=name, path=self._config_path))
        return config

    def _config_error(self, problem: str) -> MeshdError:
        return MeshdError(f"error reading config file {self._config_path}: {problem}", code="config")

    def load_policy(self) -> None:
        """Read the policy file, for the first time or again. A file that is no good leaves the policy in force."""
        if not self._policy_path:
            return
        try:
            data = self._read(self._policy_path)
        except FileNotFoundError:
            self._take_policy(None)
            return
        except OSError as error:
            self._policy_fault(f"cannot read the policy file {self._policy_path}: {error.strerror or error}")
            return
        from meshd.core.syspolicy import parse_policy

        try:
            policy = parse_policy(data, self._policy_path)
        except MeshdError as error:
            self._policy_fault(error.message)
            return
        self._take_policy(policy)
        for name in policy.without_effect:
            log.warning("policy_setting_without_effect", extra=kv(setting=name, path=self._policy_path))
        if policy.problems:
            self._policy_fault(f"the policy file {self._policy_path} has bad settings: {'; '.join(policy.problems)}")

    def _take_policy(self, policy: Policy | None) -> None:
        before, self.policy, self.policy_problem = self.policy, policy, ""
        old, new = before or policy, policy or before
        if old is None or new is None:
            return
        gone_or_come = before is None or policy is None
        if gone_or_come or new.changed(old, _ALWAYS_ON_KEYS):
            self._always_on_overridden = False
        if gone_or_come or new.changed(old, _EXIT_KEYS):
            self._exit_node_overridden = False

    def _policy_fault(self, problem: str) -> None:
        self.policy_problem = problem
        log.warning("policy_file_bad", extra=kv(reason=problem))

    def policy_json(self) -> dict[str, Any]:
        """The settings in force as LocalAPI clients print them."""
        return self.policy.to_json() if self.policy is not None else {"Summary": {"Scope": "Device"}}

    # -- the configuration file -----------------------------------------------------------------------------

    @property
    def wants_login(self) -> bool:
        """The node logs in although it has no key yet."""
        return self.config is not None and self.config.enabled

    def check_unlocked(self) -> None:
        """MeshdError "invalid" while the configuration file alone decides (PP-05, CF-01)."""
        if self.config is not None and self.config.locked:
            from meshd.core.configfile import LOCKED

            raise MeshdError(LOCKED, code="invalid")

    def configured(self, prefs: Prefs) -> Prefs:
        """``prefs`` with what the configuration file says."""
        return prefs if self.config is None else prefs_module.edit(prefs, self.config.masked)

    def auth_key(self, *, first_login: bool, needed: bool = True) -> str:
        """The key that a login without one is given: that of the configuration file, or else, for a machine that
        never logged in, that of the policy. MeshdError when its file cannot be read, unless it is not ``needed``: a
        node that is logged in goes on after its auth key was cleared away."""
        if self.config is not None:
            key = self.config.auth_key
            if not key.startswith("file:"):
                return key
            try:
                return self._read(key.removeprefix("file:")).decode("ascii", "replace").strip()
            except OSError as error:
                reason = error.strerror or str(error)
                if not needed:
                    log.info("auth_key_unread", extra=kv(reason=reason, action="going on with the login of before"))
                    return ""
                raise MeshdError(f"error reading config file authKey: {reason}", code="config") from None
        if self.policy is not None and first_login:
            return (self.policy.text("AuthKey") or "").strip()
        return ""

    # -- the policy -----------------------------------------------------------------------------------------

    def overlay(self, prefs: Prefs) -> Prefs:
        """What the policy leaves of preferences (PP-09)."""
        if self.policy is None:
            return prefs
        from meshd.core.syspolicy import overlay

        return overlay(
            prefs, self.policy, exit_node=not self._exit_node_overridden, always_on=not self._always_on_overridden
        )

    def check_edit(self, before: Prefs, after: Prefs, *, exit_node: bool, reason: str) -> None:
        """MeshdError "invalid" for what the policy does not leave to users (PP-17, SM-18).

        ``exit_node``: the edit names an exit node, be it the present one. ``reason``: what the user gave as one.
        """
        policy = self.policy
        if policy is None:
            return
        complaints = []
        if before.want_running and not after.want_running and policy.flag("AlwaysOn.Enabled"):
            if not policy.flag("AlwaysOn.OverrideWithReason"):
                complaints.append("disconnect not allowed: always-on mode is enabled")
            elif not reason:
                complaints.append("disconnect not allowed: reason required")
        if exit_node and policy.holds_exit_node:
            switches_off = bool(before.exit_node_id) and not after.wants_exit_node
            if switches_off or not policy.flag("ExitNode.AllowOverride"):
                complaints.append("exit node cannot be changed: managed by policy")
        if complaints:
            raise MeshdError("\n".join(complaints), code="invalid")

    def edited(self, before: Prefs, after: Prefs, *, exit_node: bool) -> float | None:
        """An allowed edit is about to be carried out. Seconds after which the node is to connect again by itself,
        None for never."""
        policy = self.policy
        if policy is None:
            return None
        from meshd.core.syspolicy import overlay

        reconnect = None
        if before.want_running and not after.want_running:
            self._always_on_overridden = True
            reconnect = policy.seconds("ReconnectAfter") or None
        if before.want_running != after.want_running:
            self._exit_node_overridden = False
        if exit_node:
            held = overlay(after, policy, always_on=False)
            self._exit_node_overridden = _exit_node(held) != _exit_node(after) and policy.flag("ExitNode.AllowOverride")
        return reconnect

    @property
    def overridden(self) -> tuple[bool, bool]:
        """Of the policy, what the user overrode: the exit node, being always on."""
        return self._exit_node_overridden, self._always_on_overridden

    @overridden.setter
    def overridden(self, overridden: tuple[bool, bool]) -> None:
        self._exit_node_overridden, self._always_on_overridden = overridden

    def forget_overrides(self) -> None:
        """Another profile: what the user overrode in the last one is the policy's again."""
        self.overridden = False, False

    @property
    def asks_reason(self) -> bool:
        """Whether disconnecting is allowed for a reason, which is then told to the coordination server."""
        policy = self.policy
        return policy is not None and policy.flag("AlwaysOn.Enabled") and policy.flag("AlwaysOn.OverrideWithReason")

    @property
    def tailnet(self) -> str:
        """The only network that this machine may join, "" for any."""
        return (self.policy.text("Tailnet") or "") if self.policy is not None else ""

    @property
    def serial_number(self) -> str:
        """What this machine is to call itself, "" for the number that its manufacturer gave it."""
        return (self.policy.text("DeviceSerialNumber") or "") if self.policy is not None else ""

    def allowed_exit_nodes(self) -> list[str] | None:
        """Stable ids of nodes that may be suggested as exit node; None allows all."""
        return self.policy.strings("AllowedSuggestedExitNodes") if self.policy is not None else None


def _exit_node(prefs: Prefs) -> tuple[str, str, str]:
    """All that says which one is used: a policy's choice by the node itself leaves an id as it is, for a moment."""
    return prefs.auto_exit_node, prefs.exit_node_id, prefs.exit_node_ip
