"""Which versions the tests that are marked ``every_server`` run on."""

import pytest

from tests.redis_servers import HOW_TO_GET, server_of


@pytest.mark.parametrize("name", HOW_TO_GET)
def test_the_scripts_are_tried_on_this_version(name: str) -> None:
    found = server_of(name)
    if found is None:
        pytest.skip(f"no {name} here: {HOW_TO_GET[name]}")
    assert found.durable
