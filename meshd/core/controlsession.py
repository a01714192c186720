"""The conversation with a coordination server: log in, keep the map stream open, report changes of ours.

`ControlSession` is three small machines ("lanes") with a back-off each, that share the login state:

auth    register until the server says yes, following the URL that a person must visit
map     one long poll, watched; reopened for ever while logged in
update  one lite update at a time; changes while one is under way collapse into the next

It does no I/O. Inputs carry ``now`` (monotonic seconds) and, where absolute times matter, ``wall`` (unix
seconds); after each, execute what `drain` returns and call `handle_timer` at `next_timer`. Requests are
numbered: answers to a number that is no longer current are ignored, so the shell may cancel lazily.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto

from meshd.base.errors import MeshdError, WireError
from meshd.base.keys import Random
from meshd.core.backoff import Backoff
from meshd.core.controleffects import (
    Cancel,
    Effect,
    HangUp,
    HoldMap,
    NodeFacts,
    OpenMap,
    Report,
    SendRegister,
    SendUpdate,
)
from meshd.core.controlstatus import ControlStatus, LoginFlags, Persist
from meshd.core.mapchange import MapChange, joined
from meshd.core.maprequests import stream_request, update_request
from meshd.core.mapsession import CLOCK_TOLERANCE, MapSession
from meshd.core.registration import LOGOUT_EXPIRY, Registration, Verdict, retry_delay
from meshd.wire.control import Hostinfo, MapResponse, RegisterRequest, RegisterResponse

MAP_SILENCE = 120.0  # s without a complete message until the stream is given up
MAX_GOODBYES = 2  # requests to log out before giving up
EXPIRY_SLACK = 10.0  # s after a peer's expiry until it is acted on


class Auth(Enum):
    """Where the login is."""

    IDLE = auto()  # nobody asked, or it is done
    ASKING = auto()  # a register request is under way
    FOLLOWING = auto()  # one that waits for a person is under way
    WAITING = auto()  # for the next try
    HELD = auto()  # by a pause
    LEAVING = auto()  # the request that logs out is under way


class Lane(Enum):
    """Where the map stream or the update lane is."""

    OFF = auto()  # not logged in, paused, or nothing to send
    BUSY = auto()  # request under way
    WAITING = auto()  # for the next try


class ControlSession:
    """One login at one coordination server. See the module for how to run it."""

    def __init__(
        self,
        facts: NodeFacts,
        persist: Persist,
        *,
        version: int,
        auth_key: str = "",
        tailnet: str = "",
        random_bytes: Random,
        random: Callable[[], float],
    ) -> None:
        self.map = MapSession()
        self.facts = facts
        self.auth = Auth.IDLE
        self.map_lane = Lane.OFF
        self.update_lane = Lane.OFF
        self.logged_in = False
        self.in_map_poll = False
        self.map_heard_at: float | None = None
        """When the last message of a map stream came; monotonic seconds."""
        self.paused = False
        self.auth_url = ""
        self._registration = Registration(persist, auth_key, version, random_bytes, tailnet)
        self._version = version
        self._random = random
        self._flags = LoginFlags.DEFAULT
        self._numbers = 0
        self._current = {"auth": 0, "map": 0, "update": 0}
        self._timers: dict[str, float] = {}
        self._backoff = {lane: Backoff(random) for lane in ("auth", "map", "update")}
        self._changed, self._told = 1, 0  # generations of `facts`
        self._goodbyes = 0
        self._told_to_wait = False  # the wait for the next register request is the server's wish
        self._clock: tuple[float, float] | None = None  # the last (now, wall) seen together
        self._key_expired = False
        self._recalled = False  # the netmap is from an earlier process, and nothing contradicts it so far
        self._outbox: list[Effect] = []
        self._news: list[MapChange] = []  # of peers only: what comes between two looks at the outbox is one report
        self._news_at = 0.0, 0.0

    @property
    def persist(self) -> Persist:
        """What to store; changes are also reported."""
        return self._registration.persist

    # -- machine contract ----------------------------------------------------------------------------------

    def drain(self) -> list[Effect]:
        """Effects in order, each handed out once."""
        self._tell_news()
        effects, self._outbox = self._outbox, []
        return effects

    def next_timer(self) -> float | None:
        return min(self._timers.values(), default=None)

    def handle_timer(self, now: float) -> None:
        for name in [n for n, at in self._timers.items() if at <= now]:
            del self._timers[name]
            _TIMERS[name](self, now)

    # -- wishes of the owner -------------------------------------------------------------------------------

    def recall(self, response: MapResponse, now: float, wall: float) -> None:
        """Begin with the map that an earlier process had, as one message; the first one of the server replaces it.

        A server that wants a person or refuses us ends its use. Raises WireError when the map is unusable.
        """
        self._look_at_clock(now, wall)
        self.map.begin_stream()
        change = self.map.apply(response, wall)
        self._recalled = True
        self._arm_expiry(now, wall)
        self._report(change=change)

    def login(self, flags: LoginFlags, now: float, wall: float) -> None:
        """Start a login, dropping one that is under way. Interactive, expired or first: with a new key."""
        self._look_at_clock(now, wall)
        self._cancel("auth")
        self._flags = flags
        self.auth_url = ""
        self._backoff["auth"].reset()
        # A clock of ours that is years ahead is no reason to give up the key: only the server's own time is.
        expired = self.map.knows_server_clock and self.map.own_key_expired(wall)
        self._registration.start(new_key=bool(flags & LoginFlags.INTERACTIVE) or expired)
        self._ask(now)

    def logout(self, now: float) -> None:
        """Expire our key at the server, then forget it; ends with a report that has ``logged_out``."""
        for lane in self._current:
            self._cancel(lane)
        self.map_lane = self.update_lane = Lane.OFF
        self.logged_in = self.in_map_poll = False
        self.auth_url = ""
        request = self._registration.expiry_request(self._hostinfo(), LOGOUT_EXPIRY)
        if request is None:
            self._left(None)
        else:
            self.auth = Auth.LEAVING
            self._goodbyes = 1
            self._outbox.append(SendRegister(self._number("auth"), request))

    def abandon_logout(self, error: MeshdError) -> None:
        """The owner waited long enough: forget the key although the server was not told."""
        if self.auth is Auth.LEAVING:
            self._cancel("auth")
            self._left(error)

    def expiry_request(self, expiry: float) -> RegisterRequest | None:
        """A request that shortens the life of our key to ``expiry`` (unix seconds); None without a key."""
        return self._registration.expiry_request(self._hostinfo(), expiry)

    def set_facts(self, facts: NodeFacts, now: float) -> None:
        """Something about this node changed; the server hears of it once, however often this is called."""
        if facts == self.facts:
            return
        retagged = facts.hostinfo.request_tags != self.facts.hostinfo.request_tags
        self.facts = facts
        self._changed += 1
        if retagged:
            # Carried out after the new wish, the old one would read as a wish to go back, which may not be granted.
            self._cancel("update")
        self._update(now)

    def network_gained(self, now: float) -> None:
        """The host has another way out: what waits for its next try waits no longer, unless the server said so."""
        for name, backoff in self._backoff.items():
            backoff.reset()
            if name in self._timers and self._waits(name):
                self._timers[name] = now

    def _waits(self, lane: str) -> bool:
        if lane == "auth":
            return self.auth is Auth.WAITING and not self._told_to_wait
        return (self.map_lane if lane == "map" else self.update_lane) is Lane.WAITING

    def set_paused(self, paused: bool, now: float) -> None:
        """Stop talking (the network is down, or we are stopped); go on where we were."""
        if paused == self.paused:
            return
        self.paused = paused
        if paused:
            following = self.auth in (Auth.ASKING, Auth.FOLLOWING, Auth.WAITING)
            for lane in self._current:
                if lane != "auth" or self.auth is not Auth.LEAVING:
                    self._cancel(lane)
            self.map_lane = self.update_lane = Lane.OFF
            self.in_map_poll = False
            if following:
                self.auth = Auth.HELD
            return
        for backoff in self._backoff.values():
            backoff.reset()
        if self.auth is Auth.HELD:
            self._ask(now)
        if self.logged_in:
            self._changed += 1
            self._open_map(now)
            self._update(now)

    # -- register ------------------------------------------------------------------------------------------

    def register_answered(self, number: int, answer: RegisterResponse, now: float) -> None:
        """The server answered with status 200."""
        if number != self._current["auth"]:
            return
        self._current["auth"] = 0
        if self.auth is Auth.LEAVING:
            self._left(MeshdError(answer.error, code="logout-failed") if answer.error else None)
            return
        verdict, error = self._registration.judge(answer)
        if verdict is Verdict.REFUSED:
            assert error is not None
            if not self._flags & LoginFlags.INTERACTIVE:
                self._contradicted()
            elif not self.auth_url and not self._key_expired and self._registration.go_back():
                self._flags &= ~LoginFlags.INTERACTIVE  # it is the new key that is refused; the old one may be good
            self._auth_failed(error, self._backoff["auth"].failed(), now)
        elif verdict is Verdict.ROTATE:
            self.auth_url = ""
            self._ask(now)
        elif verdict is Verdict.VISIT:
            self._visit(answer.auth_url, now)
        else:
            self._succeeded(now)

    def register_failed(
        self, number: int, error: MeshdError, now: float, *, retry_after: float | None = None, limited: bool = False
    ) -> None:
        """No answer, or a status other than 200. ``limited``: it was 429 with this Retry-After."""
        if number != self._current["auth"]:
            return
        self._current["auth"] = 0
        if self.auth is Auth.LEAVING:
            self._leave_again(error)
            return
        delay = retry_delay(retry_after, self._random) if limited else self._backoff["auth"].failed()
        self._auth_failed(error, delay, now)
        self._told_to_wait = limited

    def _ask(self, now: float) -> None:
        if self.paused:
            self.auth = Auth.HELD
            return
        self.auth = Auth.FOLLOWING if self.auth_url else Auth.ASKING
        request = self._registration.request(self._hostinfo(), self._flags, self.auth_url)
        self._outbox.append(SendRegister(self._number("auth"), request))

    def _visit(self, url: str, now: float) -> None:
        following, news = bool(self.auth_url), url != self.auth_url
        if not self._flags & LoginFlags.INTERACTIVE:
            self._contradicted()  # else a person is wanted for the new key, and the old one may be as good as ever
        self.auth_url = url
        if news:
            self._report(auth_url=url)
        if following:  # a server that answers follow-ups at once must not be asked in a busy loop
            self.auth = Auth.WAITING
            self._told_to_wait = True
            self._timers["auth"] = now + self._backoff["auth"].failed()
            return
        self._backoff["auth"].reset()
        self._ask(now)

    def _contradicted(self) -> None:
        """The server answered, and we are not what the recalled map says."""
        if self._recalled:
            self._recalled = self._key_expired = False
            self.map = MapSession()

    def _auth_failed(self, error: MeshdError, delay: float, now: float) -> None:
        self.auth = Auth.WAITING  # whoever was turned away asks about the same page: not to wait on another one
        self._told_to_wait = False
        self._timers["auth"] = now + delay
        self._report(error=error)

    def _succeeded(self, now: float) -> None:
        self.auth = Auth.IDLE
        self.auth_url = ""
        self.logged_in = True
        self._flags = LoginFlags.DEFAULT
        self._backoff["auth"].reset()
        self._report(login_finished=True, persist=self.persist)
        self._changed += 1
        self._cancel("map")
        self._open_map(now)
        self._cancel("update")
        self._update(now)

    def _leave_again(self, error: MeshdError) -> None:
        """A connection that had died unnoticed is no reason to leave without a word: try a fresh one."""
        request = self._registration.expiry_request(self._hostinfo(), LOGOUT_EXPIRY)
        if error.code == "control-closed" and self._goodbyes < MAX_GOODBYES and request is not None:
            self._goodbyes += 1
            self._outbox.append(SendRegister(self._number("auth"), request))
        else:
            self._left(error)

    def _left(self, error: MeshdError | None) -> None:
        self.auth = Auth.IDLE
        self._registration.persist = Persist()
        self._recalled = self._key_expired = False
        self.map = MapSession()
        self._report(logged_out=True, persist=self.persist, error=error)

    # -- map -----------------------------------------------------------------------------------------------

    def map_message(self, number: int, response: MapResponse, now: float, wall: float) -> MapChange | None:
        """One decoded message. Returns what it changed, None when it was dropped."""
        if number != self._current["map"]:
            return None
        self._look_at_clock(now, wall)
        self.map_heard_at = now
        offset = self.map.clock_offset
        try:
            change = self.map.apply(response, wall)
        except WireError as error:
            broken = MeshdError(f"the coordination server sent an unusable map: {error}", code="control-map")
            self._cancel("map")
            self._map_ended(broken, now)
            return None
        self._timers["map"] = now + MAP_SILENCE + change.sleep_seconds
        if change.sleep_seconds:
            self._outbox.append(HoldMap(number, change.sleep_seconds))
        if change.full:
            self._recalled = False
            self._backoff["map"].reset()
            self.in_map_poll = True
        if change.only_peers:
            self._news.append(change)
            self._news_at = now, wall
        elif not change.is_empty:
            self._arm_expiry(now, wall)
            self._report(change=change, persist=self._note_stable_id())
        elif self.map.clock_offset != offset:
            self._timers["expiry"] = now
        return change

    def map_failed(self, number: int, error: MeshdError, now: float) -> None:
        """The stream ended, or never began."""
        if number == self._current["map"]:
            self._current["map"] = 0
            self._map_ended(error, now)

    def _open_map(self, now: float) -> None:
        if self.paused or not self.logged_in or self.persist.node_private is None:
            self.map_lane = Lane.OFF
            return
        self.map.begin_stream()
        self.map_lane = Lane.BUSY
        self._timers["map"] = now + MAP_SILENCE
        key = self.persist.node_private.public().text()
        self._outbox.append(OpenMap(self._number("map"), stream_request(self.facts, key, self._version)))

    def _map_ended(self, error: MeshdError, now: float) -> None:
        self.in_map_poll = False
        self.map_lane = Lane.WAITING
        self._timers["map"] = now + self._backoff["map"].failed()
        self._report(error=error)

    def _map_timer(self, now: float) -> None:
        if self.map_lane is Lane.BUSY:
            self._cancel("map")
            self._outbox.append(HangUp())  # what is sent into a hole is sent again for a quarter of an hour
            silence = MeshdError(
                f"nothing heard from the coordination server for {MAP_SILENCE:.0f} s", code="control-silent"
            )
            self._map_ended(silence, now)
        else:
            self._open_map(now)

    def _look_at_clock(self, now: float, wall: float) -> None:
        """Somebody may have set our clock, by minutes or by years; how long things take is not touched by that."""
        if self._clock is not None:
            then, was = self._clock
            step = (wall - was) - (now - then)
            if abs(step) > CLOCK_TOLERANCE:
                self.map.clock_stepped(step)
        self._clock = (now, wall)

    def _arm_expiry(self, now: float, wall: float) -> None:
        self._key_expired = self.map.own_key_expired(wall)
        delay = self.map.next_expiry(wall)
        if delay is None:
            self._timers.pop("expiry", None)
        else:
            self._timers["expiry"] = now + delay + EXPIRY_SLACK

    def _expiry_timer(self, now: float) -> None:
        assert self._clock is not None
        then, wall = self._clock
        wall += now - then
        was_expired = self._key_expired
        change = self.map.expire(wall)
        self._arm_expiry(now, wall)
        if not change.is_empty or self._key_expired != was_expired:
            self._report(change=change)

    def _note_stable_id(self) -> Persist | None:
        """The identity with the id that the server gave us, when that is news."""
        netmap = self.map.netmap
        if netmap is None or netmap.self_node.stable_id == self.persist.stable_id:
            return None
        return self._registration.note_stable_id(netmap.self_node.stable_id)

    # -- update --------------------------------------------------------------------------------------------

    def update_done(self, number: int, now: float) -> None:
        """The server took the update."""
        if number != self._current["update"]:
            return
        self._current["update"] = 0
        self._backoff["update"].reset()
        self.update_lane = Lane.OFF
        self._update(now)

    def update_failed(self, number: int, now: float) -> None:
        """It did not; the state will be sent again."""
        if number != self._current["update"]:
            return
        self._current["update"] = 0
        self._told = 0
        self.update_lane = Lane.WAITING
        self._timers["update"] = now + self._backoff["update"].failed()

    def _update(self, now: float) -> None:
        key = self.persist.node_private
        if self.paused or not self.logged_in or key is None or self._told == self._changed:
            return
        if self.update_lane is not Lane.OFF:
            return  # the one under way, or the retry, is followed by what is new
        self.update_lane = Lane.BUSY
        self._told = self._changed
        request = update_request(self.facts, key.public().text(), self._version)
        self._outbox.append(SendUpdate(self._number("update"), request))

    def _update_timer(self, now: float) -> None:
        self.update_lane = Lane.OFF
        self._update(now)

    # -- shared --------------------------------------------------------------------------------------------

    def _hostinfo(self) -> Hostinfo:
        return self.facts.full_hostinfo()

    def _number(self, lane: str) -> int:
        self._numbers += 1
        self._current[lane] = self._numbers
        return self._numbers

    def _cancel(self, lane: str) -> None:
        self._timers.pop(lane, None)
        if self._current[lane]:
            self._outbox.append(Cancel(self._current[lane]))
            self._current[lane] = 0
        if lane == "update":
            self.update_lane = Lane.OFF
            self._told = 0

    def _tell_news(self) -> None:
        if self._news:
            news, self._news = self._news, []
            self._arm_expiry(*self._news_at)
            self._report(change=news[0] if len(news) == 1 else joined(news))

    def _report(
        self,
        *,
        error: MeshdError | None = None,
        auth_url: str = "",
        login_finished: bool = False,
        logged_out: bool = False,
        persist: Persist | None = None,
        change: MapChange | None = None,
    ) -> None:
        self._tell_news()
        self._outbox.append(
            Report(
                ControlStatus(
                    logged_in=self.logged_in and self.auth is Auth.IDLE,
                    login_finished=login_finished,
                    logged_out=logged_out,
                    in_map_poll=self.in_map_poll,
                    can_continue=self.logged_in or (self.auth in _GOING and not self.auth_url),
                    auth_url=auth_url,
                    error=error,
                    persist=persist,
                    netmap=self.map.netmap if self.logged_in or self._recalled else None,
                    recalled=self._recalled,
                    key_expired=self._key_expired,
                    change=change,
                )
            )
        )


_GOING = (Auth.ASKING, Auth.WAITING, Auth.HELD)

_TIMERS: dict[str, Callable[[ControlSession, float], None]] = {
    "auth": ControlSession._ask,
    "map": ControlSession._map_timer,
    "update": ControlSession._update_timer,
    "expiry": ControlSession._expiry_timer,
}
