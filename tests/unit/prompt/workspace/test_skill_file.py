import json
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from clasper_worker.prompt.workspace.skill_file import SkillError, parse_skill
from clasper_worker.prompt.workspace.skills import Skill

FILE = "skills/search/SKILL.md"


def parse(front: str, body: str = "Body.") -> Skill:
    return parse_skill(FILE, f"---\n{front}\n---\n{body}\n")


def test_every_field_of_the_format_is_read() -> None:
    skill = parse(
        "name: web-search\n"
        "description: Search the web\n"
        "metadata:\n"
        "  openclaw:\n"
        '    emoji: "🔍"\n'
        "    requires:\n"
        "      env: [SEARCH_API_KEY]\n"
        "      bins: [curl, jq]\n"
        "      anyBins: [rg, grep]\n"
        "    os: [darwin, linux]\n"
        "    always: true\n"
        "version: 1.0.0",
        "# How\n\n---\n\nUse it.",
    )
    assert (skill.name, skill.description) == ("web-search", "Search the web")
    assert (skill.emoji, skill.always, skill.os) == ("🔍", True, ("darwin", "linux"))
    assert skill.requires_env == ("SEARCH_API_KEY",)
    assert skill.requires_bins == ("curl", "jq")
    assert skill.requires_any_bins == ("rg", "grep")
    assert skill.instructions == "# How\n\n---\n\nUse it."


@pytest.mark.parametrize(
    "metadata",
    [
        'metadata: {"openclaw": {"emoji": "🔍", "requires": {"env": ["KEY"]}}}',
        'metadata: \'{"openclaw": {"emoji": "🔍", "requires": {"env": ["KEY"]}}}\'',
        'metadata:\n  {\n    "openclaw":\n      {"emoji": "🔍", "requires": {"env": "KEY",},}\n  }',
        'metadata:\n  clawdbot:\n    emoji: "🔍"\n    requires: {env: KEY}',
        'emoji: "🔍"\nrequires:\n  env: [KEY]',
    ],
    ids=["flow", "json-string", "block-json-trailing-commas", "former-name", "top-level"],
)
def test_metadata_is_taken_in_each_form_in_which_skills_are_written(metadata: str) -> None:
    skill = parse(f"name: s\ndescription: d\n{metadata}")
    assert (skill.emoji, skill.requires_env) == ("🔍", ("KEY",))


def test_the_folder_names_a_skill_whose_front_matter_does_not() -> None:
    assert parse("description: d").name == "search"


def test_a_description_over_several_lines_becomes_one() -> None:
    assert parse("description: >\n  one\n  two\n\n  three").description == "one two three"


def test_operating_systems_by_their_common_names_are_understood() -> None:
    assert parse("description: d\nos: [macOS, Windows]").os == ("darwin", "win32")


def test_empty_fields_count_as_not_given() -> None:
    skill = parse("description: d\nmetadata:\n  openclaw:\n    requires:\n    os:\n")
    assert (skill.requires_env, skill.os, skill.always) == ((), (), False)


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("", 1, "description: is missing, and there is no text"),
        ("---\nname: x\ndescription: d\n", 1, "not closed; add a line ---"),
        ("---\nname: x\ndescr", 1, "not closed; add a line ---"),
        ("---\nname: x\n---\n", 1, "description: is missing, and there is no text"),
        ("---\nname: x\n---\n***\n", 1, "description: is missing, and there is no text"),
        ("---\ndescription: d\nmetadata: '{oops'\n---\n", 3, "metadata: is text that is not JSON"),
        ("---\ndescription: d\nmetadata: [a]\n---\n", 3, "metadata: must hold fields"),
        ("---\ndescription: a: b\nmetadata: {oops\n---\n", 4, "YAML: "),
        ("---\ndescription: a: b\nos: 7\n---\n", 3, "os: must be a list"),
        (
            (
                "---\ndescription: d\nmetadata:\n  openclaw:\n    requires:\n      env:\n"
                "        - A\n        - 7\n---\n"
            ),
            8,
            "metadata.openclaw.requires.env.1: must be text",
        ),
        (
            "---\ndescription: d\nmetadata:\n  openclaw:\n    always: sometimes\n---\n",
            5,
            "metadata.openclaw.always: must be true or false",
        ),
    ],
)
def test_what_decides_whether_a_skill_is_on_is_never_guessed(
    text: str, line: int, problem: str
) -> None:
    with pytest.raises(SkillError) as caught:
        parse_skill(FILE, text)
    assert problem in caught.value.problem
    assert caught.value.line == line


def test_a_file_without_front_matter_is_the_skill_of_its_folders_name() -> None:
    text = "# Task management\n\nCreate and list **tasks** by the API.\n\n- one\n"
    skill = parse_skill("skills/task-management/SKILL.md", text)
    assert skill.name == "task-management"
    assert skill.description == "Create and list **tasks** by the API."
    assert skill.instructions == text.strip()
    assert skill.doubts == ()
    assert parse_skill(FILE, "# Only a heading").description == "Only a heading"


def test_a_description_with_a_colon_is_read_as_the_line_of_text_that_it_is() -> None:
    skill = parse(
        "name: s\ndescription: Use when: asked about x: y\nmetadata:\n  openclaw:\n"
        '    requires: {env: [KEY]}\nhomepage: "https://x"'
    )
    assert (skill.name, skill.description) == ("s", "Use when: asked about x: y")
    assert skill.requires_env == ("KEY",)
    ((line, problem),) = skill.doubts
    assert line == 3
    assert "description: YAML: mapping values are not allowed" in problem
    assert "put it in quotes" in problem


@pytest.mark.parametrize(
    ("text", "name", "description", "problem"),
    [
        ("\ufeff---\r\nname: x\r\ndescription: d\r\n---\r\nB\r\n", "x", "d", ""),
        ("\n\n---\nname: x\ndescription: d\n---\n", "x", "d", ""),
        ("---\nname: x\n\tdescription: d\n---\n", "x", "d", "tab"),
        ("---\nname: x\ndescription: d\n\n# Head\n\nText", "x", "d", "not closed"),
        ("---\n---\nWords.", "search", "Words.", "has no fields"),
        ("---\n- a\n---\nWords.", "search", "Words.", "has no fields"),
        ("---\nname: x\n---\nWords.", "x", "Words.", "description: is missing"),
        ("---\nname: x\ndescription: ''\n---\nWords.", "x", "Words.", "description: is missing"),
        ("---\nname: x\ndescription: 5\n---\n", "x", "5", "description: is not text"),
        ("---\nname: 12\ndescription: d\n---\n", "12", "d", "name: is not text"),
        ("---\nname: true\ndescription: d\n---\n", "true", "d", "name: is not text"),
        ("---\nname: 2026-01-02\ndescription: d\n---\n", "2026-01-02", "d", "name: is not text"),
        ("---\nname: [a, b]\ndescription: d\n---\n", "search", "d", "name: may hold letters"),
        ("---\nname: x\ndescription: [a, b]\n---\n", "x", "a, b", "description: is not text"),
        ("---\nname: x\ndescription:\n  Use: y\n---\n", "x", "Use: y", "description: is not text"),
        ("---\nname: 🔍 find\ndescription: d\n---\n", "search", "d", "name: may hold letters"),
        ("---\nname: ../x\ndescription: d\n---\n", "search", "d", "name: may hold letters"),
        ("---\nname: a\nname: b\ndescription: d\n---\n", "b", "d", "name: stands here twice"),
        ("---\nname: a\nname: b\ndescription: d: e\n---\n", "b", "d: e", "stands here twice"),
        ("---\nname: x\ndescription: *Always* use\n---\n", "x", "*Always* use", "put it in quotes"),
        ("---\nname: x\ndescription: @home\n---\n", "x", "@home", "put it in quotes"),
        ("---\nname: x\ndescription: 'it's'\n---\n", "x", "it's", "put it in quotes"),
        (
            '---\nname: x\ndescription: "half \\ud83d"\n---\n',
            "x",
            "half \\ud83d",
            "invalid Unicode",
        ),
        ("---\nname: x\ndescription: d\nwhen: 2024-13-45\n---\n", "x", "d", "date or number"),
        ("---\nname: x\ndescription: d\ny: \x07\n---\n", "x", "d", "YAML does not allow"),
        ("---\nname: x\ndescription: d\nemoji: [a]\n---\n", "x", "d", "emoji: is not text"),
        (f"---\nname: {'x' * 65}\ndescription: d\n---\n", "x" * 64, "d", "longer than 64"),
    ],
)
def test_slips_that_people_make_are_read_and_told(
    text: str, name: str, description: str, problem: str
) -> None:
    skill = parse_skill(FILE, text)
    assert (skill.name, skill.description) == (name, description)
    told = "; ".join(told for _, told in skill.doubts)
    assert problem in told
    assert bool(problem) is bool(told)


def test_yaml_that_would_run_code_is_refused() -> None:
    with pytest.raises(SkillError, match="line 3: YAML: could not determine a constructor"):
        parse("description: d\nx: !!python/object/apply:os.system ['true']")


def test_nesting_that_would_overflow_the_parsers_stack_is_refused() -> None:
    with pytest.raises(SkillError, match="nested more than 32 levels deep"):
        parse("description: d\nx: " + "[" * 9_000)


def test_aliases_that_would_multiply_are_refused() -> None:
    bomb = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9))
    with pytest.raises(SkillError, match="aliases"):
        parse(f"description: d\na0: &a0 x\n{bomb}")


@given(st.text(max_size=300))
@example("? [a]\n: b")
@example("<<: 3")
@example("x: !!binary '\\xff'")
@example("x: 1" + "0" * 5_000)
@example("description: d\nrequires: {env: {a: 1}}")
def test_any_front_matter_is_parsed_or_refused_with_a_line_of_the_file(front: str) -> None:
    text = f"---\n{front}\n---\nbody"
    try:
        assert parse_skill(FILE, text).description
    except SkillError as exc:
        line = exc.line
    else:
        return
    assert 1 <= line <= len(text.splitlines()) + 1


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.dates()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=8,
)
KEYS = st.sampled_from(["name", "description", "metadata", "requires", "os", "always", "emoji"])


@given(st.dictionaries(KEYS, VALUES))
def test_front_matter_with_values_of_any_type_is_parsed_or_refused(fields: dict[str, Any]) -> None:
    text = "---\n" + yaml.safe_dump(fields, allow_unicode=True) + "---\nbody"
    try:
        skill = parse_skill(FILE, text)
    except SkillError:
        return
    assert isinstance(skill.description, str)
    assert "\n" not in skill.description


NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,20}", fullmatch=True)


@given(
    name=NAMES,
    description=st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=200),
    env=st.lists(NAMES, max_size=3),
    always=st.booleans(),
    as_json=st.booleans(),
)
def test_what_a_yaml_writer_wrote_is_read_back(
    name: str, description: str, env: list[str], always: bool, as_json: bool
) -> None:
    metadata = {"openclaw": {"requires": {"env": env}, "always": always}}
    fields = {
        "name": name,
        "description": description,
        "metadata": json.dumps(metadata) if as_json else metadata,
    }
    skill = parse(yaml.safe_dump(fields, allow_unicode=True).strip())
    assert (skill.name, skill.description) == (name, description)
    assert (skill.requires_env, skill.always) == (tuple(env), always)
