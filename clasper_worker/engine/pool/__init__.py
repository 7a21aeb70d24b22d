"""How coroutines run inside Celery's worker pools.

``task`` declares them, ``pool`` is the asyncio pool, ``bridge`` runs them under any other pool,
``resources`` holds what belongs to one event loop.
"""
