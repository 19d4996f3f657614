"""PostgreSQL's protocol 3 as a proxy before the server needs it: what to read of it, and what to say. Pure.

Nothing here waits, connects or reads a clock: bytes come in, values and bytes go out. What peers send is bounded
before it is kept, and raises nothing but what `errors.py` draws.
"""
