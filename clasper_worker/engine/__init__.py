"""What runs jobs on Celery and Redis; it knows nothing of agents."""
