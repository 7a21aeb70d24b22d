from __future__ import annotations

from clasper_worker.tools.built_in import BUILT_IN_TOOLS
from clasper_worker.tools.registry import Toolbox


def test_the_five_of_mission_control_are_offered_each_under_a_name_of_its_own() -> None:
    assert Toolbox(BUILT_IN_TOOLS).names == (
        "list_tasks",
        "create_task",
        "post_message",
        "create_document",
        "get_notifications",
    )


def test_each_tells_the_model_what_it_does_and_takes() -> None:
    for tool in BUILT_IN_TOOLS:
        spec = tool.spec()
        assert spec.description.endswith(".")
        assert spec.parameters["type"] == "object"
