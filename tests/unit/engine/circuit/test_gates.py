"""Which gate a request goes through."""

import asyncio

import pytest

from clasper_worker.engine.circuit.gates import host_name
from tests.unit.engine.circuit.simulation import SharedStore, Worker
from tests.unit.engine.circuit.virtual_time import run_virtually


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://api.openai.com/v1", "https://api.openai.com:443"),
        ("http://Backend.test", "http://backend.test:80"),
        ("http://user:secret@backend.test:9001/base?key=secret", "http://backend.test:9001"),
        ("http://[::1]:9001", "http://[::1]:9001"),
    ],
)
def test_a_gate_is_named_by_scheme_host_and_port_and_nothing_secret(url: str, name: str) -> None:
    assert host_name(url) == name


def test_a_host_and_each_model_of_it_have_one_gate_of_their_own() -> None:
    async def main() -> None:
        worker = Worker(SharedStore())
        gate = worker.gates.gate
        assert gate("http://h/a") is gate("http://h:80/b")
        assert gate("http://h", "m1") is gate("http://h", "m1")
        assert len({gate("http://h"), gate("http://h", "m1"), gate("http://h", "m2")}) == 3
        await worker.gates.close()
        await asyncio.sleep(0)

    run_virtually(main())
