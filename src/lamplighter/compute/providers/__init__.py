"""Where a Postgres comes from: wheels, the system, or a directory that somebody names."""
