"""Checks any backend against contract v1, over HTTP; needs no worker and no Redis."""
