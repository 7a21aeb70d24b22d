"""What a process of a world of its own inherits."""

from clasper_worker.devkit.local_stack.bare_environment import bare_environment


def test_only_what_programs_and_people_need_is_kept() -> None:
    inherited = {"PATH": "/bin", "LC_ALL": "C.UTF-8", "TERM": "dumb", "HOME": "/root"}
    named = {"BACKEND_URL": "http://b", "http_proxy": "http://p", "OPENAI_ORG_ID": "o", "NEW": "x"}
    assert bare_environment({**inherited, **named}) == inherited


def test_further_names_are_kept_by_their_beginning() -> None:
    assert bare_environment({"PYTEST_X": "1", "PYTHONX": "2", "X": "3"}, "PYT") == {
        "PYTEST_X": "1",
        "PYTHONX": "2",
    }
