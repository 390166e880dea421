"""The only importers of git, docker and psycopg on the runner's side."""
