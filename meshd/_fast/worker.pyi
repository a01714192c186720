"""Loops of the packet threads; C API only, see worker.pxd."""
