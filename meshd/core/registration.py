"""Which key to register, what the request says, and what each answer means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from enum import Enum, auto

from meshd.base.errors import MeshdError
from meshd.base.gotime import ZERO_TIME, format_time
from meshd.base.keys import LockPrivate, NodePrivate, Random
from meshd.core.controlstatus import LoginFlags, Persist
from meshd.wire.control import (
    ZERO_LOCK_KEY,
    ZERO_NODE_KEY,
    Hostinfo,
    RegisterAuth,
    RegisterRequest,
    RegisterResponse,
    UserProfile,
)

LOGOUT_EXPIRY = 123.0  # unix seconds; any time in the past says "forget this key"
RETRY_AFTER_LONGEST = 3600.0  # s; a server that says more is not believed
RETRY_AFTER_DEFAULT = 5.0  # s, plus up to as much again


class Verdict(Enum):
    """What an answer to a register request comes to."""

    SUCCESS = auto()
    VISIT = auto()
    ROTATE = auto()
    REFUSED = auto()


class Registration:
    """Builds register requests and reads their answers; holds the key that is being tried."""

    def __init__(self, persist: Persist, auth_key: str, version: int, random: Random) -> None:
        self.persist = persist
        self.auth_key = auth_key
        self._version = version
        self._random = random
        self._trial: NodePrivate | None = None
        self._old: NodePrivate | None = None
        self._fresh = False

    def __repr__(self) -> str:
        return f"Registration(fresh={self._fresh})"

    def start(self, *, new_key: bool) -> None:
        """Choose the key: a new one when asked or when there is none, else the one that we have."""
        current = self.persist.node_private
        self._fresh = new_key or current is None
        if self._fresh:
            self._trial, self._old = NodePrivate.generate(self._random), current
        else:
            self._trial, self._old = current, self.persist.old_node_private
        if self.persist.lock_private is None:
            self.persist = replace(self.persist, lock_private=LockPrivate.generate(self._random))

    def request(self, hostinfo: Hostinfo, flags: LoginFlags, followup: str) -> RegisterRequest:
        """The request for the chosen key."""
        assert self._trial is not None
        return self._build(
            hostinfo,
            node_key=self._trial.public().text(),
            old_node_key=ZERO_NODE_KEY if self._old is None else self._old.public().text(),
            followup=followup,
            ephemeral=bool(flags & LoginFlags.EPHEMERAL),
        )

    def expiry_request(self, hostinfo: Hostinfo, expiry: float) -> RegisterRequest | None:
        """The request that sets the expiry of the current key; None without one. In the past: log out."""
        if self.persist.node_private is None:
            return None
        old = self.persist.old_node_private
        return self._build(
            hostinfo,
            node_key=self.persist.node_private.public().text(),
            old_node_key=ZERO_NODE_KEY if old is None else old.public().text(),
            expiry=format_time(expiry),
        )

    def _build(
        self,
        hostinfo: Hostinfo,
        *,
        node_key: str,
        old_node_key: str,
        expiry: str = ZERO_TIME,
        followup: str = "",
        ephemeral: bool = False,
    ) -> RegisterRequest:
        lock = self.persist.lock_private
        return RegisterRequest(
            version=self._version,
            node_key=node_key,
            old_node_key=old_node_key,
            auth=RegisterAuth(auth_key=self.auth_key) if self.auth_key else None,
            expiry=expiry,
            followup=followup,
            hostinfo=hostinfo,
            ephemeral=ephemeral,
            nl_key=ZERO_LOCK_KEY if lock is None else lock.public().text(),
        )

    def note_stable_id(self, stable_id: str) -> Persist:
        """Keep the id that the server gave this node."""
        self.persist = replace(self.persist, stable_id=stable_id)
        return self.persist

    def judge(self, answer: RegisterResponse) -> tuple[Verdict, MeshdError | None]:
        """Read an answer. ROTATE has already chosen a new key; SUCCESS has already stored it."""
        if answer.error:
            return Verdict.REFUSED, refused(answer.error)
        if answer.node_key_signature:
            return Verdict.REFUSED, MeshdError(
                "this network uses tailnet lock, and meshd cannot sign its new key",
                code="auth-lock",
                hint="Sign this node from a machine that holds a trusted key, or turn tailnet lock off.",
            )
        if answer.node_key_expired:
            if self._fresh:
                return Verdict.REFUSED, MeshdError(
                    "the coordination server says that a key it has never seen is expired", code="auth-refused"
                )
            self.start(new_key=True)
            return Verdict.ROTATE, None
        profile = UserProfile(
            id=answer.user.id,
            login_name=answer.login.login_name,
            display_name=answer.login.display_name,
            profile_pic_url=answer.login.profile_pic_url,
        )
        if answer.auth_url:
            return Verdict.VISIT, None
        self.persist = replace(self.persist, node_private=self._trial, old_node_private=self._old, user_profile=profile)
        self._trial = None
        return Verdict.SUCCESS, None


def refused(text: str) -> MeshdError:
    """The server's own words, bounded, without control characters."""
    words = "".join(c if c.isprintable() else " " for c in text[:500]).strip()
    hint = None
    if "key" in words.lower():
        hint = "Make a new auth key on the coordination server, or log in without one."
    return MeshdError(f"the coordination server refused the login: {words}", code="auth-refused", hint=hint)


def retry_delay(retry_after: float | None, random: Callable[[], float]) -> float:
    """Seconds to wait after status 429; a missing or silly header counts as 5 to 10 s."""
    if retry_after is None or not 0 < retry_after <= RETRY_AFTER_LONGEST:
        return RETRY_AFTER_DEFAULT * (1 + random())
    return retry_after
