"""A turn's events on their way to whoever follows it: written by workers, kept in Redis, read."""
