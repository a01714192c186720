"""Deferred freeing of memory that lock-free readers may hold; C API only, see epoch.pxd."""
