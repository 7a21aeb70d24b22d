"""Clasper Worker: Celery-native agent turns for a backend that stays the source of truth."""

__version__ = "0.1.0"
