"""Lending of TUN queues between packet threads; C API only, see tunlend.pxd."""
