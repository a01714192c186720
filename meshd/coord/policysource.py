"""Where the access rules of a network come from: nothing, a file, or a text that an administrator set."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from meshd.base.errors import MeshdError
from meshd.coord.access import Access, AllowAll
from meshd.coord.network import Network
from meshd.coord.policy.claims import broken_claims
from meshd.coord.policy.compile import compile_policy
from meshd.coord.policy.document import PolicyDocument, parse_policy
from meshd.coord.records import NodeRecord, UserRecord

_SHOWN = 10  # failed tests, in one message


class PolicySource:
    """The policy that holds now."""

    def __init__(self) -> None:
        self.text: str | None = None
        self.file: Path | None = None
        """Where it was read from; then it is changed there and not by command."""
        self._document: PolicyDocument | None = None

    def set(self, text: str | None, name: str = "policy", tested: Network | None = None) -> None:
        """Take a policy text, or None for "everybody may reach everybody"; for the network it is `tested` with.

        MeshdError naming line and column when it is not a valid policy, or not what it claims to be; the old one then
        stays.
        """
        self._document = None if text is None else checked_policy(text, name, tested)
        self.text = text

    def read(self, path: Path, tested: Network | None = None) -> None:
        """Take the policy of a file; MeshdError when it cannot be read or is not valid, or its tests fail."""
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeError) as error:
            raise MeshdError(f"cannot read the policy file {path}: {error}", code="config") from None
        self.set(text, str(path), tested)
        self.file = path

    def access(self, network: Network) -> Access:
        """The rules for the network as it is now. Not for single questions: it works through all nodes."""
        return AllowAll() if self._document is None else compile_policy(self._document, network)

    def unknown_users(self, users: Iterable[UserRecord]) -> list[str]:
        """Names in the policy that nobody has: rules with a mistyped name of a host or user allow nothing."""
        return [] if self._document is None else sorted(self._document.user_names() - {user.name for user in users})

    def broken_claims(self, network: Network) -> list[str]:
        """Tests of the policy that fail in the network as it is now."""
        return [] if self._document is None else broken_claims(self._document, network)

    def may_claim(self, tags: Collection[str], user: str) -> bool:
        """Whether a user may give these tags to a machine."""
        return not tags if self._document is None else self._document.may_claim(tags, user)

    def approves(self, route: str, node: NodeRecord, user: str) -> bool:
        """Whether a route is usable without an administrator's approval."""
        return self._document is not None and self._document.approves(route, node, user)


def checked_policy(text: str, name: str, network: Network | None) -> PolicyDocument:
    """A policy that is valid, and whose tests hold in the network, if one is given. Raises MeshdError."""
    document = parse_policy(text, name)
    broken = broken_claims(document, network) if network is not None else []
    if broken:
        more = f"; {len(broken) - _SHOWN} more" if len(broken) > _SHOWN else ""
        raise MeshdError(f"tests of the policy failed: {'; '.join(broken[:_SHOWN])}{more}", code="usage")
    return document
