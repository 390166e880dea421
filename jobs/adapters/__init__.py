"""The only importers of sqlalchemy, rq and redis."""
