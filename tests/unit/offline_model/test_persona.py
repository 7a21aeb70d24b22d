import pytest

from clasper_worker.offline_model.persona import read_persona


@pytest.mark.parametrize(
    ("system", "called"),
    [
        (
            "You are Scout, a careful research agent for small teams.",
            "Scout, a careful research agent for small teams",
        ),
        ("# Who you are\n\nYou are the writer. You turn notes into text.", "the writer"),
        (
            "You are the coordinator: the one\n\nYou act in the role `ops`.",
            "the coordinator (role ops)",
        ),
        ("You are the writer.\n\nYou act in the role `writer`. You can call tools.", "the writer"),
        ("- **Name:** Clasper\n- **Role:** planner", "Clasper, planner"),
        ("Your name is Ada. You are a helpful assistant who sings.", "Ada, a helpful assistant"),
        ("You are able to use tools.", ""),
        ("", ""),
    ],
)
def test_the_agent_is_called_as_its_prompt_calls_it(system: str, called: str) -> None:
    assert read_persona(system).called == called


@pytest.mark.parametrize(
    ("system", "skills"),
    [
        (
            "## Skills\n\n- 🗓 **planning**: How to plan\n- **triage**: Bugs\n\n## No\n- **x**: y",
            ("planning", "triage"),
        ),
        (
            '## Skills\n- **a**: x\n\n<skill name="a">\n- **T**: x</skill>\n<skill name="b"/>',
            ("a", "b"),
        ),
        (
            "<skills><skill><name>one</name></skill><skill>\n<name>two</name></skill></skills>",
            ("one", "two"),
        ),
        ("### Skill: writing\ntext\n### Skill: editing\ntext", ("writing", "editing")),
        ("## Your skills\n- `search`: find\n- notes: write", ("search", "notes")),
        ("No headings here, only skills in a sentence.", ()),
    ],
)
def test_the_skills_that_a_prompt_lists_are_found(system: str, skills: tuple[str, ...]) -> None:
    assert read_persona(system).skills == skills
