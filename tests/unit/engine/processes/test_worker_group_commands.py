"""The command lines of a group's processes."""

import pytest

from clasper_worker.engine.processes.worker_group import (
    numbered,
    own_node,
    split_node,
    turns_in_flight,
    worker_commands,
)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], ("clasper@%h", ())),
        (["-c", "9"], ("clasper@%h", ("-c", "9"))),
        (["-n", "a@h", "-c", "9"], ("a@h", ("-c", "9"))),
        (["-na@h"], ("a@h", ())),
        (["-c", "9", "--hostname=a@h"], ("a@h", ("-c", "9"))),
        (["--hostname", "a"], ("a", ())),
    ],
)
def test_the_node_name_is_taken_out_of_the_options(
    options: list[str], expected: tuple[str, tuple[str, ...]]
) -> None:
    assert split_node(options) == expected


def test_each_process_has_a_name_of_its_own() -> None:
    assert numbered("agents@%h", 2) == "agents-2@%h"
    assert numbered("agents", 2) == "agents-2@%h"
    commands = worker_commands(3, ["-c", "9"])
    assert len({command[-1] for command in commands}) == 3
    assert all(command[-4:-2] == ("-c", "9") for command in commands)


def test_groups_that_were_given_no_name_have_other_names_than_one_another() -> None:
    nodes = [command[-1] for _ in range(20) for command in worker_commands(3, ["-c", "9"])]
    assert len(set(nodes)) == 60
    assert len({own_node([])[0] for _ in range(20)}) == 20


def test_a_name_that_was_given_is_kept() -> None:
    assert own_node(["-n", "clasper@%h"]) == ("clasper@%h", ())
    commands = worker_commands(2, ["-n", "a@h"])
    assert [command[-1] for command in commands] == ["a-1@h", "a-2@h"]


def test_with_a_process_a_core_each_has_one_of_its_own() -> None:
    commands = worker_commands(2, ["-c", "9"], cpus=[4, 7])
    assert [command[command.index("--cpu") + 1] for command in commands] == ["4", "7"]
    assert all(command[-4:-2] == ("-c", "9") for command in commands)


@pytest.mark.parametrize("cpus", [[], [0], [0, 1, 2]])
def test_else_the_system_shares_the_cores_out(cpus: list[int]) -> None:
    assert all("--cpu" not in command for command in worker_commands(2, [], cpus=cpus))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], 500),
        (["-c", "9"], 9),
        (["-c9"], 9),
        (["--concurrency=9"], 9),
        (["--concurrency", "9"], 9),
        (["-c", "x"], None),
        (["-P", "threads", "-c", "9"], None),
        (["-Pthreads"], None),
    ],
)
def test_turns_in_flight_are_what_c_says_for_the_asyncio_pool(
    options: list[str], expected: int | None
) -> None:
    assert turns_in_flight(options) == expected
