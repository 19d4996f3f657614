"""The contract: Neon's API v2 as a table of operations, wire models, errors and ids.

The tools and the platform meet here, and this knows neither. It imports nothing of ours but itself.
"""
