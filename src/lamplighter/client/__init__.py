"""The SDK: `Neon` and `AsyncNeon`, which talk to Neon's cloud and to Lamplighter alike.

`_async` is written by hand, `_sync` is generated from it. What decides (pacing, retries, how a request is built, what
an answer means) is pure and stands beside them, so that both have the same.
"""
