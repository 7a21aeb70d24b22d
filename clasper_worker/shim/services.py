"""What the shim's routes share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from clasper_worker.boot import BootRecord
from clasper_worker.broker.cancel import Canceller
from clasper_worker.client import ClasperClient
from clasper_worker.settings import Settings
from clasper_worker.shim.jobs import JobRegister
from clasper_worker.shim.results import JobResults
from clasper_worker.shim.workspaces import ShimWorkspaces
from clasper_worker.state import redis_client
from clasper_worker.turn.request import RequestLimits


@dataclass(frozen=True, slots=True)
class ShimServices:
    """The collaborators of one shim."""

    settings: Settings
    client: ClasperClient
    results: JobResults
    register: JobRegister
    limits: RequestLimits
    canceller: Canceller
    workspaces: ShimWorkspaces
    boots: BootRecord

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Make them for the broker and result backend that the settings name."""
        client = ClasperClient.from_settings(settings)
        state = redis_client(settings.redis_url, settings)
        return cls(
            settings,
            client,
            JobResults(client.app, settings.result_backend_url),
            JobRegister(state, ttl_seconds=settings.clasper_result_ttl_sec),
            RequestLimits.from_settings(settings),
            Canceller.from_settings(client.app, settings),
            ShimWorkspaces(settings),
            BootRecord(state),
        )

    async def close(self) -> None:
        """Close every connection."""
        await self.results.close()
        await self.register.close()
        self.canceller.close()
        self.client.close()
        self.workspaces.close()
