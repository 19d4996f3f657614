"""What a request schedules, and the engine that runs it: `states` decides, `store` is the SQL, `engine` runs."""
