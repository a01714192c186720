"""Which key to register, what the request says, and what each answer means."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto

import msgspec

from meshd.base.errors import MeshdError, WireError
from meshd.base.gotime import ZERO_TIME, format_time
from meshd.base.keys import LockPrivate, NodePrivate, NodePublic, Random
from meshd.core.controlstatus import LoginFlags, Persist
from meshd.core.nodekeysigning import sign_by_credential, sign_rotation
from meshd.wire.control import (
    ZERO_LOCK_KEY,
    ZERO_NODE_KEY,
    Hostinfo,
    RegisterAuth,
    RegisterRequest,
    RegisterResponse,
    UserProfile,
)
from meshd.wire.nodekeysignature import WrappedAuthKey, decode_node_key_signature, unwrap_auth_key

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

    def __init__(self, persist: Persist, auth_key: str, version: int, random: Random, tailnet: str = "") -> None:
        """``tailnet`` names the network that the server is to let this node into, "" for any."""
        self.persist = persist
        self._tailnet = tailnet
        self.auth_key, self._wrapped = _unwrapped(auth_key)
        self._version = version
        self._random = random
        self._trial: NodePrivate | None = None
        self._old: NodePrivate | None = None
        self._fresh = False
        self._old_signature = b""

    def __repr__(self) -> str:
        return f"Registration(fresh={self._fresh})"

    def start(self, *, new_key: bool) -> None:
        """Choose the key: a new one when asked or when there is none, else the one that we have."""
        current = self.persist.node_private
        self._fresh = new_key or current is None
        self._old_signature = b""
        if self._fresh:
            self._trial, self._old = NodePrivate.generate(self._random), current
        else:
            self._trial, self._old = current, self.persist.old_node_private
        if self.persist.lock_private is None:
            self.persist = msgspec.structs.replace(self.persist, lock_private=LockPrivate.generate(self._random))

    def go_back(self) -> bool:
        """After a new key was refused, try the one of before, without the auth key; False when there is none."""
        if not self._fresh or self.persist.node_private is None:
            return False
        self.auth_key, self._wrapped = "", None
        self.start(new_key=False)
        return True

    def request(self, hostinfo: Hostinfo, flags: LoginFlags, followup: str) -> RegisterRequest:
        """The request for the chosen key."""
        assert self._trial is not None
        return self._build(
            hostinfo,
            node_key=self._trial.public().text(),
            old_node_key=ZERO_NODE_KEY if self._old is None else self._old.public().text(),
            followup=followup,
            ephemeral=bool(flags & LoginFlags.EPHEMERAL),
            signature=self._signature(self._trial.public()),
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
        signature: bytes | None = None,
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
            node_key_signature=signature,
            tailnet=self._tailnet,
            nl_key=ZERO_LOCK_KEY if lock is None else lock.public().text(),
        )

    def _signature(self, node_key: NodePublic) -> bytes | None:
        """Tailnet lock's signature of the key that is being tried, if we can make one."""
        lock = self.persist.lock_private
        if self._old_signature and lock is not None:
            return sign_rotation(lock, node_key, self._old_signature)
        return sign_by_credential(self._wrapped, node_key) if self._wrapped is not None else None

    def _sign_anew(self, old: bytes) -> tuple[Verdict, MeshdError | None]:
        """The server wants the signature of our former key carried over to a new one: LK-10."""
        if self._old_signature:
            return Verdict.REFUSED, _lock_error("the coordination server does not accept this node's signature")
        try:
            decode_node_key_signature(old)
        except WireError as error:
            return Verdict.REFUSED, _lock_error(f"the coordination server sent an unusable signature: {error}")
        self.start(new_key=True)
        self._old_signature = old
        return Verdict.ROTATE, None

    def note_stable_id(self, stable_id: str) -> Persist:
        """Keep the id that the server gave this node."""
        self.persist = msgspec.structs.replace(self.persist, stable_id=stable_id)
        return self.persist

    def judge(self, answer: RegisterResponse) -> tuple[Verdict, MeshdError | None]:
        """Read an answer. ROTATE has already chosen a new key; SUCCESS has already stored it."""
        if answer.error:
            return Verdict.REFUSED, refused(answer.error)
        if answer.node_key_signature:
            return self._sign_anew(answer.node_key_signature)
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
        self.persist = msgspec.structs.replace(
            self.persist, node_private=self._trial, old_node_private=self._old, user_profile=profile
        )
        self._trial = None
        return Verdict.SUCCESS, None


def _unwrapped(auth_key: str) -> tuple[str, WrappedAuthKey | None]:
    """The key as the server knows it, and what a tailnet lock wrapped around it: LK-06."""
    try:
        wrapped = unwrap_auth_key(auth_key)
    except WireError as error:
        raise MeshdError(str(error), code="auth-key", hint="Copy the whole auth key, or make a new one.") from None
    return (auth_key, None) if wrapped is None else (wrapped.auth_key, wrapped)


def _lock_error(message: str) -> MeshdError:
    hint = "This network uses tailnet lock: sign this node from a machine that holds a trusted key."
    return MeshdError(message, code="auth-lock", hint=hint)


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
