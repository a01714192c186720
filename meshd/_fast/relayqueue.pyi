"""Datagrams waiting for relays; C API only, see relayqueue.pxd."""
