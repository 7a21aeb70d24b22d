"""What the shim answers, as its OpenAPI document describes it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from clasper_worker.turn.compact import CompactResult
from clasper_worker.turn.llm_task import LlmTaskResult
from clasper_worker.turn.models import TurnResult


class FieldProblem(BaseModel):
    """One field of a request that cannot be used."""

    field: str = Field(description="Its name, with those of the fields around it before it.")
    problem: str = Field(description="What is wrong with it.")
    fix: str | None = Field(default=None, description="What to send instead.")


class ProblemDetails(BaseModel):
    """More of an error, for programs; which of it there is depends on the code."""

    model_config = ConfigDict(extra="allow")

    fields: list[FieldProblem] | None = Field(
        default=None, description="With `invalid_request`: the fields that cannot be used."
    )
    more: int | None = Field(default=None, description="How many further fields there are.")


class Problem(BaseModel):
    """An error."""

    error: str = Field(description="What is wrong and what to do, for people.")
    code: str = Field(description="The same for programs.", examples=["invalid_request"])
    details: ProblemDetails


class FailedTurn(Problem):
    """A turn that was waited for and failed."""

    status: Literal["failed"]
    job_id: str
    turn_id: str


class Queued(BaseModel):
    """A turn that was enqueued and has not ended."""

    status: Literal["queued"]
    job_id: str = Field(description="Names this job: follow it or cancel it by this id.")
    turn_id: str = Field(description="Names the turn; the same for all jobs of one key.")
    status_url: str
    events_url: str
    warnings: list[str] | None = Field(
        default=None, description="With CLASPER_LENIENT: fields that were left out."
    )


class Job(BaseModel):
    """How a job is doing."""

    job_id: str
    status: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    state: str = Field(description="Celery's word for it.", examples=["STARTED"])
    turn_id: str | None = Field(default=None, description="The turn that it asks for, if known.")
    result: TurnResult | CompactResult | LlmTaskResult | dict[str, Any] | None = Field(
        default=None, description="With `succeeded`: a turn's result, or another task's."
    )
    error: Problem | None = Field(default=None, description="With `failed` and `cancelled`.")


class SkillRequirements(BaseModel):
    """What a skill needs of the machine."""

    env: list[str]
    bins: list[str]
    anyBins: list[str]  # noqa: N815 - as skills spell it


class SkillMetadata(BaseModel):
    """What a skill's file says of it."""

    file: str
    emoji: str | None
    always: bool
    os: list[str]
    requires: SkillRequirements


class SkillItem(BaseModel):
    """One skill."""

    name: str
    description: str
    enabled: bool
    metadata: SkillMetadata
    reason: str | None = Field(default=None, description="Why it is off.")


class SkillWarning(BaseModel):
    """What a skill's author should mend."""

    file: str
    line: int | None
    problem: str


class Skills(BaseModel):
    """A workspace's skills."""

    enabled: int
    total: int
    skills: list[SkillItem]
    warnings: list[SkillWarning]


class ContextFile(BaseModel):
    """A file of a workspace, and how much of it is told."""

    name: str
    exists: bool
    rawChars: int  # noqa: N815 - the contract's spelling
    injectedChars: int  # noqa: N815 - the contract's spelling
    truncated: bool
    estimatedTokens: int  # noqa: N815 - the contract's spelling


class Context(BaseModel):
    """What a role is told before any message."""

    workspacePath: str  # noqa: N815 - the contract's spelling
    maxCharsPerFile: int  # noqa: N815 - the contract's spelling
    files: list[ContextFile]
    totalBootstrapChars: int  # noqa: N815 - the contract's spelling
    systemPromptChars: int  # noqa: N815 - the contract's spelling
    estimatedSystemPromptTokens: int  # noqa: N815 - the contract's spelling


class BootState(BaseModel):
    """What is to be done once at first start."""

    hasBoot: bool  # noqa: N815 - the contract's spelling
    isComplete: bool  # noqa: N815 - the contract's spelling
    content: str | None


class Done(BaseModel):
    """It was done."""

    status: Literal["ok"]


class HealthChecks(BaseModel):
    """Whether what the shim depends on answers."""

    redis: bool
    backend: bool


class HealthWorkspace(BaseModel):
    """The workspace, as this machine sees it."""

    path: str
    status: Literal["ok", "missing"]
    maxCharsPerFile: int  # noqa: N815 - the contract's spelling


class HealthBackend(BaseModel):
    """The backend."""

    url: str | None
    status: Literal["ok", "error", "unchecked"]


class HealthConfig(BaseModel):
    """What the shim was configured with."""

    port: int
    defaultTask: str | None  # noqa: N815 - the contract's spelling
    model: str
    fallbackModel: str | None  # noqa: N815 - the contract's spelling


class Health(BaseModel):
    """Whether the shim is alive; without the key no more than status and version."""

    status: Literal["ok", "degraded"]
    version: str
    checks: HealthChecks | None = Field(default=None, description="With `deep` only.")
    workspace: HealthWorkspace | None = None
    backend: HealthBackend | None = None
    config: HealthConfig | None = None


class Ready(BaseModel):
    """Turns that are sent now will be run."""

    status: Literal["ready"]
    version: str


class Usage(BaseModel):
    """What was used of models since a day."""

    requestCount: int = Field(description="Jobs that a model answered.")  # noqa: N815 - the contract's spelling
    totalInputTokens: int  # noqa: N815 - the contract's spelling
    totalOutputTokens: int  # noqa: N815 - the contract's spelling
    totalTokens: int  # noqa: N815 - the contract's spelling
    totalCost: float | None = Field(description="Null where nothing of it has a known price.")  # noqa: N815 - the contract's spelling
    currency: str
    unpricedCalls: int = Field(description="Model calls that `totalCost` leaves out.")  # noqa: N815 - the contract's spelling
    since: str = Field(description="The first moment that is counted, ISO 8601 in UTC.")


class Version(BaseModel):
    """What this is."""

    name: str
    version: str
    contract_version: str
    contract_versions: list[str] = Field(description="Of backends that it works with.")
    features: dict[str, bool]


class Compatibility(BaseModel):
    """Whether the backend fits."""

    status: Literal["ok", "incompatible", "unknown"]
    compatible: bool | None = Field(description="Null where the backend gave no answer.")
    contract_version: str | None = Field(description="The backend's.")
    supported_versions: list[str]
    features: dict[str, bool]
    problem: str | None = Field(description="What is wrong, and what to do.")


class ContextStats(BaseModel):
    """What smart context chooses from."""

    indexedChunks: int  # noqa: N815 - the contract's spelling
    indexedSkills: int  # noqa: N815 - the contract's spelling
    indexedMemoryChunks: int  # noqa: N815 - the contract's spelling
    lastIndexedAt: str | None  # noqa: N815 - the contract's spelling
    embeddingProvider: str  # noqa: N815 - the contract's spelling
