"""The control plane's own Postgres: connections (`pool`) and the schema (`migrate`, `migrations/*.sql`)."""
