"""The via routes of this node, as the loop makes them and packet threads read them (viaroutes.pxd)."""

from meshd._fast.viaflow cimport ViaFlows
from meshd._fast.viaroutes cimport via_t

cdef class Via:
    cdef via_t c
    cdef readonly ViaFlows flows    # kept for as long as a packet thread may use it
