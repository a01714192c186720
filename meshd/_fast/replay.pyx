"""The replay window; the contract is in replay.pyi."""
# freethreading: a Window is not locked; one thread uses it at a time.

WINDOW = REPLAY_WINDOW
REJECT_AFTER_MESSAGES = REPLAY_REJECT_AFTER


cdef class Window:
    """Counters seen on one receiving session."""

    def accept(self, uint64_t counter, /):
        """Whether the counter is new and inside the window; marks it as seen."""
        return replay_accept_c(&self.c, counter) != 0

    @property
    def last(self):
        """The greatest accepted counter, 0 at first."""
        return self.c.last
