"""The only door to a compute: addresses that stay, computes that wake when somebody comes, and bytes passed on.

It runs as a process of its own (`python -m lamplighter.gateway`): a control plane that is busy or restarts neither
stalls nor drops anybody. The control plane tells it routes by a Unix socket (`link.py`); it asks for wakes.
"""
