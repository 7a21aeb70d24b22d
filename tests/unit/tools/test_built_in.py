from __future__ import annotations

import re

from clasper_worker.tools.built_in import BUILT_IN_TOOLS
from clasper_worker.tools.registry import Toolbox


def test_those_of_mission_control_come_first_and_each_has_a_name_of_its_own() -> None:
    names = Toolbox(BUILT_IN_TOOLS).names
    assert len(names) == len(BUILT_IN_TOOLS)
    assert names[:5] == (
        "list_tasks",
        "create_task",
        "post_message",
        "create_document",
        "get_notifications",
    )


def test_each_tells_the_model_what_it_does_and_takes() -> None:
    for tool in BUILT_IN_TOOLS:
        spec = tool.spec()
        assert re.fullmatch("[a-zA-Z0-9_-]{1,64}", spec.name), "of OpenAI's API"
        assert spec.description.endswith(".")
        assert spec.parameters["type"] == "object"
