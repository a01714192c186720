"""From IPv4 hosts back to the peers of via addresses, from C only; see viaout.pxd."""
