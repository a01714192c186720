"""Peer slots of the data plane; C API only, see peer.pxd."""
