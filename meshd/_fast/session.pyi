"""WireGuard sessions and their index table; C API only, see session.pxd."""
