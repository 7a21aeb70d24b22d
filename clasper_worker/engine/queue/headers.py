"""Headers of a task's message that tell a worker what no request may say of itself.

A request's body comes from whoever may ask for a turn. Headers come from whoever may write to the
broker, and they are trusted.
"""

NOTIFICATION_HEADER = "clasper_notification"
"""Which notification the turn answers, or why there is none to answer: `periodic.notification`."""
