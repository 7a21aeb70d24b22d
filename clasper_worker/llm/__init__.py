"""Language models: what the turn asks of one, and the adapters that answer."""
