"""The turns' harness, for jobs that run one."""

from tests.unit.turn.conftest import NOW, SECRET, TurnHarness, harness, workspace_path

__all__ = ["NOW", "SECRET", "TurnHarness", "harness", "workspace_path"]
