"""The check of notifications passes where all went well, and finds each thing that did not."""

import pytest
from answered import Acknowledgement, Notification, check_answers, make_notifications
from turns import Faults, Post

NOTIFICATIONS = make_notifications(users=2, each=2)
FIRST, SECOND, THIRD, LAST = NOTIFICATIONS
POSTS: list[Post] = [(float(at), *each.post) for at, each in enumerate(NOTIFICATIONS, 1)]


def told(each: Notification, at: float = 9.0) -> Acknowledgement:
    return at, each.user_id, each.notification_id


TOLD = [told(each, 9.0 + number) for number, each in enumerate(NOTIFICATIONS)]


def test_each_is_of_a_user_and_session_and_comes_with_a_token_of_its_own() -> None:
    assert [each.number for each in NOTIFICATIONS] == [0, 0, 1, 1]
    assert FIRST.user_id == THIRD.user_id != SECOND.user_id
    deliveries = [each.delivery() for each in NOTIFICATIONS]
    assert len({each["notification_id"] for each in deliveries}) == 4
    assert len({each["session_key"] for each in deliveries}) == 2
    for each, delivery in zip(NOTIFICATIONS, deliveries, strict=True):
        assert each.token in delivery["content"]
        assert each.token in each.post[2]


def test_all_answered_and_acknowledged_once_is_no_fault() -> None:
    assert not check_answers(NOTIFICATIONS, POSTS, TOLD, 4).any


@pytest.mark.parametrize(
    ("posts", "acknowledged", "calls", "faults"),
    [
        (POSTS[:-1], TOLD[:-1], 4, Faults(missing=1, unacknowledged=1)),
        ([*POSTS, POSTS[0]], TOLD, 4, Faults(doubled=1)),
        (POSTS, [*TOLD, told(FIRST)], 4, Faults(doubled=1)),
        (POSTS, TOLD[1:], 4, Faults(unacknowledged=1)),
        ([*POSTS, (5.0, "u", "t", "x")], TOLD, 4, Faults(wrong=1)),
        (POSTS, [*TOLD, (9.0, "u", "n")], 4, Faults(wrong=1)),
        (POSTS, TOLD, 5, Faults(notes=["1 calls of the model too many"])),
        (
            POSTS,
            [told(FIRST, 0.5), *TOLD[1:]],
            4,
            Faults(notes=["1 acknowledged before they were answered"]),
        ),
        (
            [(8.0, *FIRST.post), *POSTS[1:]],
            TOLD,
            4,
            Faults(notes=["1 sessions answered out of order"]),
        ),
    ],
)
def test_each_fault_is_found(
    posts: list[Post], acknowledged: list[Acknowledgement], calls: int, faults: Faults
) -> None:
    found = check_answers(NOTIFICATIONS, posts, acknowledged, calls)
    assert found == faults
    assert found.any
