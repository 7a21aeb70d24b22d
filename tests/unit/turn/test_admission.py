"""What is refused where a turn is asked for."""

from collections.abc import Callable
from typing import Any

import pytest

from clasper_worker.client import ClasperClient
from clasper_worker.config.settings import Settings
from clasper_worker.engine.http.public_addresses import AddressPolicy
from clasper_worker.errors import InvalidRequestError
from clasper_worker.turn.admission import Admission
from tests.unit.shim.shims import caller, shim_app

REQUEST = {"user_id": "u1", "message": "Hello"}


def field_refused(admission: Admission, **fields: Any) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        admission.admit({**REQUEST, **fields})
    (problem,) = caught.value.details["fields"]
    assert problem["fix"] in str(caught.value)
    return str(problem["field"])


def test_a_request_without_a_task_is_refused_where_there_is_no_default() -> None:
    assert field_refused(Admission()) == "task_id"
    assert field_refused(Admission(), task_id=None, task_title=None) == "task_id"


@pytest.mark.parametrize("named", [{"task_id": "t1"}, {"task_title": "T"}])
def test_a_request_that_names_its_task_is_sent_as_it_was_given(named: dict[str, str]) -> None:
    for admission in (Admission(), Admission(default_task="Inbox")):
        assert admission.admit({**REQUEST, **named})[1] == {**REQUEST, **named}


def test_the_default_task_goes_with_the_request_so_that_it_holds_for_every_worker() -> None:
    _, fields = Admission(default_task="Inbox").admit(REQUEST)
    assert fields == {**REQUEST, "task_title": "Inbox"}


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "a.localhost", "[::1]", "10.0.0.1", "169.254.169.254"],
)
def test_a_webhook_to_an_address_known_to_be_private_is_refused(host: str) -> None:
    webhook = {"webhook": {"url": f"http://{host}:9/hook"}}
    strict = Admission(default_task="T", webhooks=AddressPolicy())
    assert field_refused(strict, **webhook) == "webhook.url"
    for policy in (None, AddressPolicy(allow_private=True)):
        Admission(default_task="T", webhooks=policy).admit({**REQUEST, **webhook})
    allowed = AddressPolicy(allowed_hosts=frozenset({host.strip("[]")}))
    Admission(default_task="T", webhooks=allowed).admit({**REQUEST, **webhook})


def test_a_webhook_to_a_name_is_taken_since_only_its_name_server_knows() -> None:
    request = {**REQUEST, "task_id": "t", "webhook": {"url": "https://example.com/hook"}}
    assert Admission(webhooks=AddressPolicy()).admit(request)[0].webhook is not None


def test_a_workspace_is_refused_where_it_is_known_to_be_none(
    settings_of: Callable[..., Settings],
) -> None:
    knowing = Admission.from_settings(
        settings_of(clasper_default_task="T", clasper_workspaces="acme=./acme")
    )
    other, known = {"metadata": {"workspace": "x"}}, {"metadata": {"workspace": "acme"}}
    assert field_refused(knowing, **other) == "metadata.workspace"
    knowing.admit({**REQUEST, **known})
    Admission(default_task="T").admit({**REQUEST, **other})


def test_the_client_refuses_before_it_sends() -> None:
    client = ClasperClient("redis://127.0.0.1:1/0", "cache+memory://")
    with pytest.raises(InvalidRequestError, match="CLASPER_DEFAULT_TASK"):
        client.send(REQUEST)
    client.close()


async def test_the_shim_answers_400_at_once_and_by_its_own_setting() -> None:
    async with caller(shim_app()) as client:
        answer = await client.post("/api/agents/send", json=REQUEST)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
        assert answer.json()["details"]["fields"][0]["field"] == "task_id"
    async with caller(shim_app(clasper_default_task="Inbox")) as client:
        assert (await client.post("/api/agents/send", json=REQUEST)).status_code == 202
