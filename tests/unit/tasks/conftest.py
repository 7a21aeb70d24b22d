"""The turns' harness and the listeners to ends, for the task that joins the two."""

from tests.unit.completion.conftest import listeners
from tests.unit.turn.conftest import harness, workspace_path

__all__ = ["harness", "listeners", "workspace_path"]
