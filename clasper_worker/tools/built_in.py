"""The tools that turns offer, in the order in which the model is told of them."""

from __future__ import annotations

from typing import Any

from clasper_worker.tools.mission_control_tools import MISSION_CONTROL_TOOLS
from clasper_worker.tools.registry import Tool

BUILT_IN_TOOLS: tuple[Tool[Any], ...] = (*MISSION_CONTROL_TOOLS,)
"""Each is offered where the backend has the feature that it needs."""
