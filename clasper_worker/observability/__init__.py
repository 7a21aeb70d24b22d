"""What can be seen of the workers: logs, metrics, the events of a turn."""
