"""The names of our queues and Celery tasks; the contract fixes those that others use."""

from __future__ import annotations

TURN_QUEUE = "clasper"
"""Turns that a person waits for."""

DISPATCH_QUEUE = "clasper.dispatch"
"""Turns from notifications."""

PERIODIC_QUEUE = "clasper.periodic"
"""Polls, heartbeats and standups."""

WEBHOOK_QUEUE = "clasper.webhooks"
"""Webhooks to deliver."""

QUEUES = (TURN_QUEUE, DISPATCH_QUEUE, PERIODIC_QUEUE, WEBHOOK_QUEUE)
"""All of them, most urgent first."""

SEND_TASK = "clasper.send"
COMPACT_TASK = "clasper.compact"
LLM_TASK = "clasper.llm_task"
HEARTBEAT_TASK = "clasper.heartbeat"
STANDUP_TASK = "clasper.standup"
DELIVERED_TASK = "clasper.delivered"
WEBHOOK_TASK = "clasper.webhook"

DISPATCH_TASK = "clasper.dispatch"
HEARTBEATS_TASK = "clasper.heartbeats"
STANDUPS_TASK = "clasper.standups"

VERSIONS_COMMAND = "clasper_versions"
"""The remote-control command that our workers answer with their versions."""
