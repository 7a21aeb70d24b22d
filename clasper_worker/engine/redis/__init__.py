"""Redis: connections, Sentinels, and scripts whose calls share a round trip."""
