"""Skills: what an agent may be told to do, and whether each is on, on this machine.

Gating is pure: skills and a `Host` in, the same skills switched on or off out, each with its
reason. What a SKILL.md looks like is `clasper_worker.prompt.workspace.skill_file`'s business.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from dotenv import dotenv_values


@dataclass(frozen=True, slots=True)
class Skill:
    """One skill: what its file says, and whether it is on here.

    Attributes:
        name: what it is called in the catalogue and in ``metadata.forceIncludeSkills``.
        description: one line for the catalogue: what it does and when to use it.
        instructions: the Markdown below the front matter.
        file: path inside the workspace.
        os: platforms it works on (``sys.platform`` names); empty: all.
        always: on even where ``requires`` is not met, and its instructions always in the prompt.
        off_reason: why it is off here; None when it is on.
        doubts: what its file says in a form that had to be guessed: lines and problems.
    """

    name: str
    description: str
    instructions: str = field(repr=False)
    file: str
    emoji: str | None = None
    requires_env: tuple[str, ...] = ()
    requires_bins: tuple[str, ...] = ()
    requires_any_bins: tuple[str, ...] = ()
    os: tuple[str, ...] = ()
    always: bool = False
    off_reason: str | None = None
    doubts: tuple[tuple[int, str], ...] = ()

    @property
    def enabled(self) -> bool:
        """Whether the agent is told of it."""
        return self.off_reason is None


@dataclass(frozen=True, slots=True)
class Host:
    """What gating asks of the machine. Holds names of variables, never their values."""

    platform: str
    variables: frozenset[str]
    which: Callable[[str], str | None]


def this_host(environ: Mapping[str, str] | None = None) -> Host:
    """This machine, as the worker sees it.

    Args:
        environ: the variables that count as set; by default the process's and those of ``.env``
            in the working directory, where our settings come from too.
    """
    if environ is None:
        environ = {
            k: v for k, v in dotenv_values(".env", encoding="utf-8-sig").items() if v
        } | dict(os.environ)
    search_path = environ.get("PATH", os.defpath)
    return Host(
        platform=sys.platform,
        variables=frozenset(name for name, value in environ.items() if value),
        which=lambda binary: shutil.which(binary, path=search_path),
    )


def gate(skills: Sequence[Skill], host: Host) -> tuple[Skill, ...]:
    """Switch each skill on or off for ``host``; the order stays."""
    remembering = replace(host, which=lru_cache(maxsize=None)(host.which))
    return tuple(_with_reason(skill, _off_reason(skill, remembering)) for skill in skills)


def _with_reason(skill: Skill, reason: str | None) -> Skill:
    return skill if skill.off_reason == reason else replace(skill, off_reason=reason)


def _off_reason(skill: Skill, host: Host) -> str | None:
    # As in OpenClaw: `always` overrides what is required, never the platform.
    if skill.os and host.platform not in skill.os:
        return f"works on {', '.join(skill.os)}; this is {host.platform}"
    if skill.always:
        return None
    if missing := [name for name in skill.requires_env if name not in host.variables]:
        return f"environment variable not set: {', '.join(missing)}"
    if missing := [name for name in skill.requires_bins if host.which(name) is None]:
        return f"program not on PATH: {', '.join(missing)}"
    alternatives = skill.requires_any_bins
    if alternatives and all(host.which(name) is None for name in alternatives):
        return f"none of these programs on PATH: {', '.join(alternatives)}"
    return None
