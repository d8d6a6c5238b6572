"""Meshes of devices, and the processes that drive them."""
