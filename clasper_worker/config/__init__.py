"""What the operator configures: settings, the names of queues and tasks, time zones."""
