"""What runs by the clock: the dispatcher, heartbeats and standups."""
