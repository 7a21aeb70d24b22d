"""The names of our queues, most urgent first."""

QUEUES = ("clasper", "clasper.dispatch", "clasper.periodic", "clasper.webhooks")
"""Turns that a person waits for, turns from notifications, the periodic jobs, and webhooks."""
