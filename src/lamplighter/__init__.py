"""Neon you can run yourself, and the tools to run any Neon."""

__version__ = "0.1.0"
