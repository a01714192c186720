"""What the backend asks of a control client, and how it gets one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from meshd.base.addr import AddrPort, IPAddress
from meshd.base.keys import DiscoPublic, MachinePrivate
from meshd.core.controlstatus import ControlStatus, LoginFlags, Persist
from meshd.node.dialplan import DialPlan
from meshd.wire.control import ClientVersion, Hostinfo, MapResponse, NetInfo


class Control(Protocol):
    """What the backend asks of a control client; ``node.control.ControlClient`` is one."""

    @property
    def map_heard_at(self) -> float | None:
        """When the last message of the map stream came, keep-alives included; monotonic seconds."""

    @property
    def in_map_poll(self) -> bool:
        """The map stream is open and has brought a map: the server can reach us."""

    def recall(self, response: MapResponse) -> None: ...
    def login(self, flags: LoginFlags = LoginFlags.DEFAULT) -> None: ...
    async def logout(self, timeout: float) -> None: ...
    def network_changed(self, addresses: frozenset[IPAddress], *, gained: bool) -> None: ...
    def set_paused(self, paused: bool) -> None: ...
    def update_hostinfo(self, hostinfo: Hostinfo) -> None: ...
    def update_endpoints(self, endpoints: Iterable[tuple[AddrPort, int]]) -> None: ...
    def update_netinfo(self, net_info: NetInfo) -> None: ...
    def update_disco_key(self, disco_public: DiscoPublic) -> None: ...
    async def set_expiry_sooner(self, expiry: float) -> None: ...
    async def request(self, method: str, path: str, body: bytes) -> tuple[int, bytes]: ...
    def disconnect(self) -> None: ...
    async def shutdown(self) -> None: ...


class ControlFactory(Protocol):
    """Makes a control client for one login; it calls ``on_status`` on the event loop."""

    def __call__(
        self,
        *,
        server_url: str,
        machine_private: Callable[[], MachinePrivate],
        persist: Persist,
        auth_key: str,
        hostinfo: Hostinfo,
        on_status: Callable[[ControlStatus], None],
        on_client_version: Callable[[ClientVersion], None],
        dial_plan: DialPlan,
        tailnet: str,
    ) -> Control: ...


class Live(Protocol):
    """Whether anything of the data plane lives: a peer has handshaken or a relay is connected."""

    def __call__(self) -> bool: ...
