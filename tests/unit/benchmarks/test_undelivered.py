"""The benchmark's list of undelivered notifications."""

from undelivered import Undelivered

FOUR = [
    {"notification_id": name, "user_id": user}
    for user, name in (("u1", "a"), ("u2", "b"), ("u1", "c"), ("u3", "d"))
]


def names(undelivered: Undelivered, users: int, each: int) -> list[str]:
    return [item["notification_id"] for item in undelivered.page(users, each)]


def waiting() -> Undelivered:
    undelivered = Undelivered()
    undelivered.add(FOUR)
    return undelivered


def test_a_page_has_so_many_users_and_so_many_of_each_oldest_first() -> None:
    assert names(waiting(), 9, 9) == ["a", "c", "b", "d"]
    assert names(waiting(), 2, 1) == ["a", "b"]


def test_what_is_delivered_is_listed_no_more_and_may_be_delivered_again() -> None:
    undelivered = waiting()
    for _ in range(2):
        assert undelivered.deliver("a", "u1")
        assert undelivered.deliver("b", "u2")
        assert names(undelivered, 2, 9) == ["c", "d"]


def test_nobody_delivers_what_is_unknown_or_somebody_elses() -> None:
    undelivered = waiting()
    assert not undelivered.deliver("x", "u1")
    assert not undelivered.deliver("a", "u2")
    assert len(undelivered.page(9, 9)) == 4
