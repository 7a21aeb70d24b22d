"""Outages and rate limits of the hosts that turns call: waited out together, by all workers.

``state`` is the circuit breaker and the shared wait as pure functions, ``store`` shares it through
Redis, ``gate`` lets requests pass or wait, ``gates`` has the gates of one event loop, ``calls``
sends a request through one, ``retry_after`` reads how long a host asks us to wait.
"""
