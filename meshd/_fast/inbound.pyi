"""Inbound packet path; C API only, see inbound.pxd."""
