from __future__ import annotations

import asyncio
import gc
import sqlite3
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

from clasper_worker.devkit.reference_backend import store as store_module
from clasper_worker.devkit.reference_backend.records import TOOL_REQUESTS, get
from clasper_worker.devkit.reference_backend.store import Store, Transaction
from clasper_worker.errors import ConfigurationError


def agents(store: Store) -> list[str]:
    return store.read(
        lambda connection: [row[0] for row in connection.execute("SELECT user_id FROM agents")]
    )


def add(user_id: str):  # type: ignore[no-untyped-def]  # noqa: ANN201 - a transaction's work
    return lambda transaction: transaction.execute(
        "INSERT INTO agents (user_id, agent_role) VALUES (?, 'x')", (user_id,)
    )


async def test_a_transaction_that_fails_leaves_nothing() -> None:
    """Neither rows nor events, and nobody is woken."""
    woken: list[frozenset[str]] = []
    store = Store(on_change=woken.append)

    def work(transaction: Transaction) -> None:
        add("u1")(transaction)
        transaction.emit("u1", "task", "created", {})
        raise ValueError("the work failed")

    with pytest.raises(ValueError, match="the work failed"):
        await store.write(work)
    assert agents(store) == []
    assert store.read(lambda c: c.execute("SELECT count(*) FROM events").fetchone()[0]) == 0
    assert woken == []
    await store.write(add("u2"))
    assert agents(store) == ["u2"]
    store.close()


async def test_those_who_wait_are_woken_after_the_write_is_stored() -> None:
    """Else they would look too early."""
    seen: list[tuple[frozenset[str], list[str]]] = []
    store = Store(on_change=lambda users: seen.append((users, agents(store))))

    def work(transaction: Transaction) -> None:
        add("u1")(transaction)
        transaction.emit("u1", "task", "created", {})
        transaction.emit("u2", "task", "created", {})

    await store.write(work)
    assert seen == [(frozenset({"u1", "u2"}), ["u1"])]
    store.close()


async def test_events_are_bounded() -> None:
    """The newest stay."""
    store = Store(events_kept=10)

    def work(transaction: Transaction) -> None:
        for _ in range(600):
            transaction.emit("u1", "task", "created", {})

    await store.write(work)
    seqs = store.read(lambda c: [row[0] for row in c.execute("SELECT seq FROM events")])
    assert seqs[-1] == 600
    assert 10 <= len(seqs) <= 10 + 256
    store.close()


def test_data_outlives_a_killed_process(tmp_path: Path) -> None:
    """What was answered is stored, even if the process dies at once."""
    path = tmp_path / "b.db"
    program = (
        "import asyncio, os, sys\n"
        "from clasper_worker.devkit.reference_backend.store import Store\n"
        "store = Store(sys.argv[1])\n"
        "asyncio.run(store.write(lambda tx: tx.execute(\n"
        "    \"INSERT INTO agents (user_id, agent_role) VALUES ('u1', 'x')\")))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=False, timeout=60)
    assert done.returncode == -9
    store = Store(str(path))
    assert agents(store) == ["u1"]
    store.close()


async def test_waits_for_another_process_without_blocking_the_loop(tmp_path: Path) -> None:
    """While one holds the file, the other's event loop goes on."""
    store = Store(str(tmp_path / "b.db"))
    other = sqlite3.connect(tmp_path / "b.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writing = asyncio.create_task(store.write(add("u1")))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not writing.done()
    assert agents(store) == []  # reading is not held up
    other.execute("COMMIT")
    other.close()
    await asyncio.wait_for(writing, 10)
    assert agents(store) == ["u1"]
    store.close()


async def test_gives_up_on_a_lock_that_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With SQLite's own error, and the store stays usable."""
    monkeypatch.setattr(store_module, "_LOCK_SECONDS", 0.05)
    store = Store(str(tmp_path / "b.db"))
    other = sqlite3.connect(tmp_path / "b.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        await store.write(add("u1"))
    other.execute("ROLLBACK")
    other.close()
    await store.write(add("u2"))
    assert agents(store) == ["u2"]
    store.close()


def test_an_abandoned_store_closes_its_file() -> None:
    """In-process tests make apps and forget them."""
    store = Store()
    connection = store._connection
    gone = weakref.ref(store)
    del store
    gc.collect()
    assert gone() is None
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")


def test_closing_twice_is_once() -> None:
    """A server closes it, and so may a test."""
    store = Store()
    store.close()
    store.close()


def test_refuses_a_path_that_cannot_be_opened(tmp_path: Path) -> None:
    """It names the path."""
    path = str(tmp_path / "missing" / "b.db")
    with pytest.raises(ConfigurationError, match="missing"):
        Store(path)


def test_refuses_a_file_that_is_no_database(tmp_path: Path) -> None:
    """And leaves it as it is."""
    path = tmp_path / "letter.txt"
    path.write_text("Dear all, " * 100)
    with pytest.raises(ConfigurationError, match=r"letter\.txt"):
        Store(str(path))
    assert path.read_text() == "Dear all, " * 100


@pytest.mark.parametrize("change", ["CREATE TABLE tasks (x)", "PRAGMA user_version = 7"])
def test_refuses_another_applications_database(tmp_path: Path, change: str) -> None:
    """And one of another version of ours; nothing is written to either."""
    path = tmp_path / "b.db"
    if change.startswith("PRAGMA"):
        Store(str(path)).close()
    other = sqlite3.connect(path)
    other.execute(change)
    other.close()
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="not made by this version"):
        Store(str(path))
    assert path.read_bytes() == before


def test_a_file_of_the_version_before_is_taken_over_with_what_is_in_it(tmp_path: Path) -> None:
    """Its tool requests had other names."""
    path = tmp_path / "b.db"
    Store(str(path)).close()
    old = sqlite3.connect(path)
    old.executescript(
        """
        DROP TABLE tool_requests;
        CREATE TABLE tool_requests (
          seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, user_id TEXT NOT NULL,
          tool_name TEXT NOT NULL, arguments TEXT NOT NULL, reason TEXT, task_id TEXT, turn_id TEXT,
          session_key TEXT, agent_role TEXT NOT NULL, status TEXT NOT NULL,
          created_at TEXT NOT NULL, decided_at TEXT, decided_by TEXT, decision_note TEXT
        );
        INSERT INTO tool_requests (id, user_id, tool_name, arguments, agent_role, status,
          created_at, decided_by, decision_note)
        VALUES ('r1', 'u1', 'mail', '{"a": 1}', 'w', 'approved', 'now', 'ann', 'fine');
        PRAGMA user_version = 1;
        """
    )
    old.close()
    for _ in range(2):  # and it is taken over once
        store = Store(str(path))
        item = store.read(lambda connection: get(connection, TOOL_REQUESTS, "u1", "r1"))
        store.close()
        assert (item["tool"], item["by"], item["decision_reason"]) == ("mail", "ann", "fine")
        assert item["arguments"] == {"a": 1}
