"""Who has heartbeats and standups."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from clasper_worker.config.settings import Settings
from clasper_worker.errors import BackendUnavailableError, ConfigurationError
from clasper_worker.periodic.agents import Agent, Roster, parse_agents


def test_users_may_hold_colons_and_at_signs() -> None:
    agents = parse_agents("u1:writer, a@b.c:lead@Europe/Berlin,x:y:reader@UTC,")
    assert [(one.user_id, one.agent_role, one.timezone) for one in agents] == [
        ("u1", "writer", None),
        ("a@b.c", "lead", "Europe/Berlin"),
        ("x:y", "reader", "UTC"),
    ]


def test_an_agent_that_is_named_twice_is_one_with_a_place_that_stays() -> None:
    (one,) = parse_agents("u1:w,u1:w@UTC")
    assert one.timezone == "UTC"
    assert one.place == parse_agents("u1:w")[0].place
    assert 0 <= one.place < 1


@pytest.mark.parametrize("text", ["u1", "u1:../x", "u1:w@Mars/Base", ":w"])
def test_a_wrong_entry_is_named(text: str) -> None:
    with pytest.raises(ConfigurationError, match="CLASPER_AGENTS: entry 2"):
        parse_agents(f"ok:fine,{text}")


def test_a_yaml_file_lists_texts_or_fields(tmp_path: Path) -> None:
    path = tmp_path / "agents.yaml"
    path.write_text("- u1:writer\n- {user_id: u2, active_hours: '22:00-06:00'}\n")
    assert [(one.user_id, one.agent_role, one.active_hours) for one in parse_agents(str(path))] == [
        ("u1", "writer", None),
        ("u2", "default", "22:00-06:00"),
    ]
    for text in ("{a: 1}", "[", "- {user_id: 7}"):
        path.write_text(text)
        with pytest.raises(ConfigurationError, match="CLASPER_AGENTS"):
            parse_agents(str(path))
    with pytest.raises(ConfigurationError, match="FileNotFoundError"):
        parse_agents(str(tmp_path / "none.yml"))


class Listing:
    """A backend's list of agents."""

    has_token = True

    def __init__(self, *items: dict[str, Any], offers: bool = True) -> None:
        self.items = items
        self.offers = offers
        self.asked = 0

    async def has(self, feature: str) -> bool:
        return feature == "agents" and self.offers

    async def agents(self) -> AsyncIterator[dict[str, Any]]:
        self.asked += 1
        for item in self.items:
            yield item


def roster(settings: Settings, backend: Any, clock: Callable[[], float] = lambda: 0.0) -> Roster:
    return Roster(settings, backend, clock=clock)


async def test_the_setting_goes_before_the_user_and_that_before_the_backend(
    settings_of: Callable[..., Settings],
) -> None:
    backend: Any = Listing({"user_id": "b", "agent_role": "r"})
    named = {"clasper_agents": "a:r"}, {"user_id": "me", "agent_role": "w"}
    both = roster(settings_of(**named[0], **named[1]), backend)
    assert [one.user_id for one in await both.agents() or ()] == ["a"]
    assert await roster(settings_of(**named[1]), backend).agents() == (
        Agent.of({"user_id": "me", "agent_role": "w"}),
    )
    listed = await roster(settings_of(), backend).agents()
    assert [one.user_id for one in listed or ()] == ["b"]
    assert await roster(settings_of(), Listing(offers=False)).agents() is None


async def test_the_backends_list_is_kept_for_a_while_and_bad_entries_left_out(
    settings_of: Callable[..., Settings],
) -> None:
    now = 0.0
    backend: Any = Listing({"user_id": "b"}, {"user_id": "c", "agent_role": "/etc"}, {})
    found = roster(settings_of(), backend, lambda: now)
    for _ in range(3):
        assert [one.user_id for one in await found.agents() or ()] == ["b"]
    assert backend.asked == 1
    now = 31.0
    await found.agents()
    assert backend.asked == 2


async def test_a_long_list_is_asked_for_less_often_than_a_short_one(
    settings_of: Callable[..., Settings],
) -> None:
    now = 0.0
    backend: Any = Listing(*({"user_id": f"u{n}"} for n in range(4000)))
    found = roster(settings_of(), backend, lambda: now)
    await found.agents()
    now = 299.0
    await found.agents()
    assert backend.asked == 1
    now = 301.0
    await found.agents()
    assert backend.asked == 2


async def test_while_the_backend_is_away_its_last_list_is_kept(
    settings_of: Callable[..., Settings],
) -> None:
    now = 0.0
    backend: Any = Listing({"user_id": "b"})
    found = roster(settings_of(), backend, lambda: now)
    before = await found.agents()

    async def fail(_: str) -> bool:
        raise BackendUnavailableError("away")

    backend.has = fail
    now = 301.0
    assert await found.agents() == before
    with pytest.raises(BackendUnavailableError):
        await roster(settings_of(), backend).agents()
