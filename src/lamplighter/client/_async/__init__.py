"""The client, written by hand. Its twin is generated from this package; only the two drivers are written twice."""
