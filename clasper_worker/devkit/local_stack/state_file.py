"""What a running stack tells other commands, and that only one runs in a folder.

``stack.json`` in the state folder is what :func:`clasper_worker.config.settings.read_running_stack`
reads: it appears when the stack is ready and goes when it stops. It holds development secrets, so
only its owner may read it. That one stack runs in a folder is kept by a lock on another file,
which the system lets go of however the process ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from clasper_worker.config.settings import STACK_FILE, read_running_stack
from clasper_worker.errors import StackError

LOCK_FILE = "up.lock"


def prepare_state_dir(state_dir: Path) -> None:
    """Make the state folder, private and never committed to the repository it lies in.

    Raises:
        StackError: it cannot be made or written.
    """
    try:
        if not state_dir.exists():
            state_dir.mkdir(mode=0o700, parents=True)
            (state_dir / ".gitignore").write_text("*\n", "utf-8")
    except OSError as exc:
        raise StackError(
            f"The state folder {state_dir} cannot be written ({exc.strerror}). "
            f"Choose another with CLASPER_STATE_DIR.",
            {"state_dir": str(state_dir)},
        ) from exc


@contextlib.contextmanager
def only_stack(state_dir: Path) -> Iterator[None]:
    """Hold the folder for this process's stack; a file left by a killed one is removed.

    Raises:
        StackError: a stack runs here already; names its process and addresses.
    """
    with (state_dir / LOCK_FILE).open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise _already_running(state_dir, lock.read().strip()) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        remove_stack_file(state_dir)
        try:
            yield
        finally:
            remove_stack_file(state_dir)


def write_stack_file(
    state_dir: Path, *, environment: Mapping[str, str], urls: Mapping[str, str]
) -> None:
    """Tell other commands that this process's stack is ready.

    Args:
        state_dir: the state folder.
        environment: the settings by which they reach it; may hold development secrets.
        urls: its addresses by name, for people and programs; no secrets.
    """
    stack = {"pid": os.getpid(), "environment": dict(environment), "urls": dict(urls)}
    write_private(state_dir / STACK_FILE, json.dumps(stack, indent=2) + "\n")


def remove_stack_file(state_dir: Path) -> None:
    """The stack is no longer ready."""
    (state_dir / STACK_FILE).unlink(missing_ok=True)


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step; readable by its owner alone (0600), never half written."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _already_running(state_dir: Path, pid: str) -> StackError:
    stack = read_running_stack(state_dir)
    urls = stack["urls"] if stack else {}
    where = "".join(f"\n  {name:<8} {url}" for name, url in urls.items())
    return StackError(
        f"A stack runs in this folder already (process {pid}"
        f"{'' if stack else ', still starting'}).{where}\n"
        f"Stop it with Ctrl-C in its terminal or `kill {pid}`, or start another one apart from it "
        f"with CLASPER_STATE_DIR=FOLDER.",
        {"pid": pid, "urls": urls},
    )


SECRETS_FILE = "secrets.json"


@dataclass(frozen=True, slots=True)
class LocalSecrets:
    """What signs and guards the calls between a local worker and a local backend."""

    agent_jwt_secret: str = field(repr=False)
    internal_api_token: str = field(repr=False)


def local_secrets(data_dir: Path) -> LocalSecrets:
    """The secrets kept in this folder, made on first use; the file is its owner's alone (0600).

    Raises:
        StackError: the file is there but is not ours.
    """
    path = data_dir / SECRETS_FILE
    if path.exists():
        try:
            stored = json.loads(path.read_text("utf-8"))
            return LocalSecrets(str(stored["AGENT_JWT_SECRET"]), str(stored["INTERNAL_API_TOKEN"]))
        except (OSError, ValueError, KeyError, TypeError):
            raise StackError(
                f"{path} cannot be read. Remove it; new development secrets are made then.",
                {"path": str(path)},
            ) from None
    made = LocalSecrets(secrets.token_hex(32), secrets.token_hex(32))
    write_private(
        path,
        json.dumps(
            {
                "AGENT_JWT_SECRET": made.agent_jwt_secret,
                "INTERNAL_API_TOKEN": made.internal_api_token,
            }
        ),
    )
    return made
