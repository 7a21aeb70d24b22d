"""Secrets of the local stack's own backend: made once, kept for the next start."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from clasper_worker.errors import StackError
from clasper_worker.local_stack.state_file import write_private

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
