import pytest
from hypothesis import given
from hypothesis import strategies as st

from clasper_worker.offline_model.asks import find_asks
from clasper_worker.offline_model.heads import Kind


def kinds(words: str) -> list[Kind]:
    return [ask.kind for ask in find_asks(words)]


@pytest.mark.parametrize(
    ("words", "title"),
    [
        ('Create a task called "Launch checklist"', "Launch checklist"),
        ("create a task named Ship v2.0 by Friday.", "Ship v2.0 by Friday"),
        ("Please add a task titled 'Bob's review'", "Bob's review"),
        ("Could you open a new task: Buy milk", "Buy milk"),
        ("Make me a high-priority task “Prüfung Ω” please", "Prüfung Ω"),
        ("add buy milk to my to-do list", "Buy milk"),
        ("Add 'Check logs' to my tasks.", "Check logs"),
        ("I'd like you to create a task to follow up with Dana", "Follow up with Dana"),
        ("I need a new task called Renew passport", "Renew passport"),
        ("Create a task in the marketing project called Banner", "Banner"),
        ("Put 'Renew domain' on my list, then let me know", "Renew domain"),
        ("Create a task Renew the lease", "Renew the lease"),
        ("please don't forget to create a task called Water plants", "Water plants"),
        (
            "make a task called Write report for finance, then list my tasks",
            "Write report for finance",
        ),
        ("Use create_task to make a task called Alpha beta", "Alpha beta"),
        ('"Create a task called Quoted as a whole"', "Quoted as a whole"),
    ],
)
def test_a_task_gets_the_title_that_was_said(words: str, title: str) -> None:
    ask = find_asks(words)[0]
    assert (ask.kind, ask.title) == (Kind.CREATE_TASK, title)


@pytest.mark.parametrize(
    ("words", "description"),
    [
        ('Create a task called A with description "check the numbers"', "check the numbers"),
        ("Create a task called A described as the quarterly one", "the quarterly one"),
        ("create a task titled A, description: call Dana first", "call Dana first"),
    ],
)
def test_a_task_gets_the_description_that_was_said(words: str, description: str) -> None:
    ask = find_asks(words)[0]
    assert (ask.title, ask.text) == ("A", description)


@pytest.mark.parametrize(
    ("words", "titles"),
    [
        ('Create tasks called "A one", "B two" and "C three"', ["A one", "B two", "C three"]),
        ("Create two tasks: alpha and beta", ["Alpha", "Beta"]),
        (
            "Create tasks for:\n1. Hire a designer\n2. Write a plan\nThanks",
            ["Hire a designer", "Write a plan"],
        ),
        ("Create a task called Alpha and another called Beta", ["Alpha", "Beta"]),
        (
            "Add a task to water the plants and another one to feed the cat",
            ["Water the plants", "Feed the cat"],
        ),
    ],
)
def test_several_tasks_in_one_sentence_are_several_asks(words: str, titles: list[str]) -> None:
    assert [ask.title for ask in find_asks(words)] == titles


@pytest.mark.parametrize(
    "words",
    [
        "list tasks",
        "Show me my open tasks",
        "what's open?",
        "What tasks do I have?",
        "Do I have any tasks?",
        "Can you tell me what's still outstanding",
        "Is there a task called Alpha?",
        "can you pull up everything that's open",
        "What should I do first today?",
    ],
)
def test_tasks_are_listed_however_it_is_put(words: str) -> None:
    assert kinds(words) == [Kind.LIST_TASKS]


@pytest.mark.parametrize(
    "words", ["any notifications?", "Check my alerts", "notifications", "got any notifications"]
)
def test_notifications_are_read_however_it_is_put(words: str) -> None:
    assert kinds(words) == [Kind.GET_NOTIFICATIONS]


@pytest.mark.parametrize(
    ("words", "doc_type", "title", "subject"),
    [
        ("write a plan for the autumn newsletter", "plan", "", "the autumn newsletter"),
        ("Draft a 3-step plan for hiring, then list my tasks", "plan", "", "hiring"),
        ("Write a report on churn in Q2", "report", "", "churn in Q2"),
        (
            'Create a document called "Runbook" about restoring backups',
            "document",
            "Runbook",
            "restoring backups",
        ),
        (
            "write me a short plan titled Spring push for new shoes",
            "plan",
            "Spring push",
            "new shoes",
        ),
        ("Draft a plan with 4 steps for the launch", "plan", "", "the launch"),
        ("write a memo about the move called Moving day", "memo", "Moving day", "the move"),
    ],
)
def test_a_document_gets_type_title_and_subject(
    words: str, doc_type: str, title: str, subject: str
) -> None:
    ask = find_asks(words)[0]
    assert ask.kind is Kind.CREATE_DOCUMENT
    assert (ask.doc_type, ask.title, ask.subject) == (doc_type, title, subject)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ('post a message saying "We ship at noon"', "We ship at noon"),
        ("Post a message to the team saying we ship at noon. Thanks!", "we ship at noon"),
        ("Add a comment: looks good to me", "looks good to me"),
        ('post "Hello there" to the thread', "Hello there"),
        (
            "Send the team an update saying that the release is out; and list my tasks",
            "the release is out",
        ),
    ],
)
def test_a_message_gets_the_words_to_say(words: str, text: str) -> None:
    ask = find_asks(words)[0]
    assert (ask.kind, ask.text) == (Kind.POST_MESSAGE, text)


def test_asks_come_in_the_order_in_which_they_were_made() -> None:
    words = "Can you list the tasks, check for notifications, and write a plan for hiring?"
    assert kinds(words) == [Kind.LIST_TASKS, Kind.GET_NOTIFICATIONS, Kind.CREATE_DOCUMENT]


def test_two_lists_asked_for_with_one_verb_are_two_asks() -> None:
    assert kinds("Read the notifications and the open tasks.") == [
        Kind.GET_NOTIFICATIONS,
        Kind.LIST_TASKS,
    ]


@pytest.mark.parametrize(
    "words",
    [
        "Don't create a task called X",
        "please never create a task without asking",
        "How do I create a task?",
        "did you create a task called foo?",
        "Do I need a task for that?",
        "I need to finish this task",
        'Post a message saying "create a task called X"',
        "The report says: we should have written it",
        "tell me a joke about tasks",
        "Make the report shorter",
        "",
    ],
)
def test_what_is_negated_quoted_or_only_asked_about_creates_no_task(words: str) -> None:
    assert not {Kind.CREATE_TASK, Kind.CREATE_DOCUMENT} & set(kinds(words))


def test_a_plan_for_it_refers_back_to_the_task_before() -> None:
    task, plan = find_asks("Create a task called 'Q3 launch' and write a plan for it.")
    assert (task.title, plan.refers_back, plan.subject) == ("Q3 launch", True, "")


def test_save_that_as_a_document_keeps_what_was_said() -> None:
    (ask,) = find_asks("Save that as a document called Notes")
    assert (ask.kind, ask.saves, ask.title) == (Kind.CREATE_DOCUMENT, True, "Notes")


@given(
    st.text(alphabet="abc XYZ-_.,0123456789äß", min_size=1, max_size=80).map(str.strip).filter(bool)
)
def test_any_quoted_title_comes_back_as_it_was_written(title: str) -> None:
    (ask,) = find_asks(f'Create a task called "{title}"')
    assert ask.title == title


@given(st.text())
def test_reading_any_text_never_fails(words: str) -> None:
    find_asks(words)
