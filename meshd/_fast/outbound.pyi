"""Outbound packet path; C API only, see outbound.pxd."""
