"""Webhooks: a signed HTTP request when a turn has ended, delivered from a queue of its own.

For receivers written in Python: `clasper_worker.webhooks.signature.verify_signature`.
"""
