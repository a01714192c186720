"""The running coordination server: its parts, in the order they start and stop."""

from __future__ import annotations

import asyncio
import fcntl
import os
import time

from meshd.base.errors import MeshdError
from meshd.base.keys import MachinePrivate, NodePrivate, NodePublic
from meshd.base.log import get_logger, kv
from meshd.base.version import VERSION
from meshd.coord import authkeys, store
from meshd.coord.admin import SOCKET_NAME, AdminServer
from meshd.coord.control import ControlService
from meshd.coord.database import HINT, Database
from meshd.coord.derpregion import derp_map
from meshd.coord.distributor import Distributor
from meshd.coord.mapbuild import MapBuilder
from meshd.coord.network import Network
from meshd.coord.nodecalls import NodeCalls
from meshd.coord.operations import Operations
from meshd.coord.options import ServeOptions
from meshd.coord.pages import CoordPages
from meshd.coord.policysource import PolicySource
from meshd.coord.presence import Presence
from meshd.coord.records import NodeRecord
from meshd.coord.registration import Registrar, RegistrationRules
from meshd.coord.registry import Registry
from meshd.io.http.front import FrontConnection
from meshd.io.listener import SniffingListener
from meshd.relay.certificate import RelayTls, from_files, self_signed
from meshd.relay.pages import RelayPages
from meshd.relay.server import RelayServer
from meshd.relay.stun import StunServer

log = get_logger(__name__)

DATABASE_NAME = "coord.db"
LOCK_NAME = "lock"
MAX_CONNECTIONS = 16384
CLOSE_GRACE_S = 0.5
"""Time for the last bytes of an orderly stop to leave."""
JOIN_KEY_NOTE = "join line"
JOIN_KEY_LIFETIME_S = 24 * 3600.0
"""The key in the printed line is for today's machines; lasting ones are made with `authkeys create`."""


class CoordService:
    """Start it inside a running loop; `close` ends everything."""

    def __init__(self, options: ServeOptions) -> None:
        self._options = options
        self._lock_fd = -1
        self._database: Database | None = None
        self._listener: SniffingListener | None = None
        self._stun: StunServer | None = None
        self._relay: RelayServer | None = None
        self._certificate: RelayTls | None = None
        self._admin: AdminServer | None = None
        self._presence: Presence | None = None
        self._control: ControlService | None = None
        self._policy: PolicySource | None = None
        self._distributor: Distributor | None = None
        self._registry: Registry | None = None
        self._reloading: asyncio.Task[None] | None = None
        self.join_key = ""
        """A reusable auth key for the line that is printed at the start."""
        self.network = Network()

    @property
    def port(self) -> int:
        """The TCP port served."""
        assert self._listener is not None
        return self._listener.port

    @property
    def stun_port(self) -> int:
        """The UDP port of STUN, 0 without one."""
        return self._stun.port if self._stun is not None else 0

    async def start(self) -> None:
        """Begin to serve. MeshdError when something the operator gave is not usable."""
        try:
            await self._start()
        except BaseException:
            await self.close()
            raise

    async def _start(self) -> None:
        options = self._options
        self._lock_state_dir()
        database = self._database = Database(options.state_dir / DATABASE_NAME)
        policy = PolicySource()
        self._policy = policy
        if options.policy_file is not None:
            policy.read(options.policy_file)
        else:
            text = await database.run(store.current_policy)
            try:
                policy.set(text, "stored policy")
            except MeshdError as error:
                raise MeshdError(
                    error.message,
                    code="config",
                    hint="This program refuses what another one stored: start it with --policy FILE and a policy that "
                    "is valid.",
                ) from None
        registry = self._registry = Registry(self.network, database, policy)
        await registry.load()
        machine_private = MachinePrivate(await self._secret("noise", MachinePrivate.generate().raw))
        relay_private = NodePrivate(await self._secret("relay", NodePrivate.generate().raw))
        if not self.network.users:
            await registry.add_user(options.user)
        self._tell_unknown_users()
        for problem in policy.broken_claims(self.network):  # no reason to keep everybody out
            log.warning("policy_test_failed", extra=kv(problem=problem))

        tls = self._certificate = self._tls(relay_private.public())
        tls.watch()
        await self._start_stun()
        regions = derp_map(options.address, stun_port=self.stun_port or -1, pin=tls.pin, enabled=options.derp)
        distributor = self._distributor = Distributor(
            self.network, MapBuilder(self.network, options.base_domain, regions), policy
        )
        presence = self._presence = Presence(registry, options.ephemeral_timeout_s)
        registrar = Registrar(registry, presence, RegistrationRules(options.address.url, options.node_key_lifetime_s))
        calls = NodeCalls(distributor)
        control = self._control = ControlService(registry, registrar, distributor, presence, calls)
        registry.on_deleted = self._node_deleted
        registry.on_rekeyed = self._node_rekeyed
        presence.start()

        if not options.derp:
            log.warning("no_relay", extra=kv(reason="clients need a relay to start; the map names none"))
        relay_pages = None
        if options.derp:
            self._relay = RelayServer(relay_private, admit=self._admit)
            names = () if options.address.is_v4 or options.address.is_v6 else (options.address.host,)
            relay_pages = RelayPages(self._relay, names)
        pages = CoordPages(machine_private, control, registrar, relay_pages, self._knows)
        self._listener = SniffingListener(
            lambda encrypted, released: FrontConnection(pages.handle, encrypted, released),
            tls=tls.context,
            max_connections=MAX_CONNECTIONS,
        )
        self._listener.listen(options.listen_host, options.listen_port)
        self._admin = AdminServer(Operations(registry, registrar, distributor, policy, calls).table())
        await self._admin.start(options.state_dir / SOCKET_NAME)
        # Last of all: a start that fails is often tried again for hours, and each would leave a key.
        await self._make_join_key(database)
        log.info(
            "serving",
            extra=kv(
                version=VERSION,
                url=options.address.url,
                port=self.port,
                stun=self.stun_port,
                nodes=len(self.network.nodes),
                users=len(self.network.users),
            ),
        )

    async def close(self) -> None:
        """Stop serving, finish what is being stored, release the state directory."""
        if self._listener is not None:
            self._listener.close()
        if self._control is not None:
            self._control.close()
        if self._relay is not None:
            self._relay.close()
        if self._listener is not None:
            await self._listener.close_connections(CLOSE_GRACE_S)
        if self._presence is not None:
            await self._presence.close()
        if self._stun is not None:
            self._stun.close()
        if self._certificate is not None:
            self._certificate.close()
        if self._admin is not None:
            await self._admin.close()
        if self._database is not None:
            await self._database.close()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def reload(self) -> None:
        """Look at the files again that the operator gave."""
        if self._certificate is not None:
            self._certificate.check()
        self.reload_policy()

    def reload_policy(self) -> None:
        """Read the policy file again; a bad one is logged and the old one stays."""
        if self._policy is None or self._distributor is None or self._policy.file is None:
            return
        try:
            self._policy.read(self._policy.file, self.network)
        except MeshdError as error:
            log.error("policy_refused", extra=kv(reason=error.message))
            return
        self._tell_unknown_users()
        self._distributor.policy_changed()
        self._reloading = asyncio.get_running_loop().create_task(self._approve_by_policy())
        log.info("policy_reloaded", extra=kv(file=self._policy.file))

    def _tell_unknown_users(self) -> None:
        unknown = self._policy.unknown_users(self.network.users.values()) if self._policy is not None else ()
        if unknown:
            log.warning("policy_names_nobody", extra=kv(names=",".join(unknown)))

    async def _approve_by_policy(self) -> None:
        assert self._registry is not None
        try:
            await self._registry.approve_by_policy()
        except MeshdError as error:
            log.error("not_stored", extra=kv(reason=error.message))
        except Exception as error:
            log.error("not_approved", extra=kv(reason=repr(error)), exc_info=error)

    def _lock_state_dir(self) -> None:
        folder = self._options.state_dir
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock_fd = os.open(folder / LOCK_NAME, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise MeshdError(f"cannot use the state directory {folder}: {error}", code="storage") from None
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise MeshdError(
                f"another mesh-coord already runs on {folder}",
                code="config",
                hint="Stop it first, or choose another --state-dir.",
            ) from None

    async def _secret(self, name: str, fresh: bytes) -> bytes:
        assert self._database is not None
        value = await self._database.run(lambda connection: store.secret(connection, name, fresh))
        if len(value) != len(fresh):
            raise MeshdError(f"the {name} key in the database is damaged", code="config", hint=HINT)
        return value

    async def _make_join_key(self, database: Database) -> None:
        """The key of the join line."""
        user_id = min(self.network.users)
        prefix, self.join_key, digest = authkeys.new_key()
        wall = time.time()

        def write(connection: object) -> None:
            store.forget_stale_keys(connection, JOIN_KEY_NOTE, wall)  # type: ignore[arg-type]
            store.add_auth_key(
                connection,  # type: ignore[arg-type]
                prefix=prefix,
                digest=digest,
                user_id=user_id,
                reusable=True,
                ephemeral=False,
                tags=(),
                wall=wall,
                expiry=wall + JOIN_KEY_LIFETIME_S,
                note=JOIN_KEY_NOTE,
            )

        await database.run(write)

    def _tls(self, relay: NodePublic) -> RelayTls:
        options = self._options
        if options.tls_certificate is not None and options.tls_key is not None:
            return from_files(options.state_dir, options.tls_certificate, options.tls_key, relay)
        return self_signed(options.state_dir, [options.address.host], relay)

    async def _start_stun(self) -> None:
        options = self._options
        if options.stun_port < 0 or not options.derp:
            return
        self._stun = StunServer()
        await self._stun.start(options.listen_host, options.stun_port)

    async def _admit(self, key: NodePublic, source_ip: str) -> bool:
        """Only machines of the network may use its relay."""
        return self._knows(key.text())

    def _knows(self, node_key: str) -> bool:
        return node_key in self.network.by_node_key

    def _node_deleted(self, node: NodeRecord) -> None:
        assert self._control is not None
        self._control.node_deleted(node)
        if self._relay is not None:
            self._relay.drop_key(NodePublic.parse(node.node_key))

    def _node_rekeyed(self, node: NodeRecord, old_key: str) -> None:
        assert self._control is not None
        self._control.node_rekeyed(node, old_key)
        if self._relay is not None:
            self._relay.drop_key(NodePublic.parse(old_key))
