"""The client without async. Made of `_async` by tools/async_to_sync.py, but for the driver. Do not edit."""
