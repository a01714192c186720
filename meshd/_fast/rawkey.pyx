"""What all kinds of keys have in common; the contract is in rawkey.pyi."""
# freethreading: immutable; no shared state.


cdef class RawKey:
    """32 or 64 bytes that are compared and hashed often."""
    cdef readonly bytes raw

    def __init__(self, raw):
        raw = bytes(raw)
        if len(raw) != self.size:
            raise ValueError(f"a {self.prefix} key has {self.size} bytes, not {len(raw)}")
        if self.raw is None:
            self.raw = raw

    def __eq__(self, other):
        return type(other) is type(self) and (<RawKey> other).raw == self.raw

    def __hash__(self):
        return hash(self.raw)           # keys of different types are told apart by equality


def trusted(kind not None, bytes raw not None, /):
    """A key of this kind from bytes of the right size."""
    cdef RawKey out = RawKey.__new__(kind)
    out.raw = raw
    return out
