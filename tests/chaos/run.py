"""One row from its beginning to its result."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

from tests.chaos.options import Options
from tests.chaos.results import RowResult, judge
from tests.chaos.rows import Row
from tests.chaos.scene import open_scene
from tests.chaos.workers import Nursery


def run_row(row: Row, options: Options, nursery: Nursery, folder: Path) -> RowResult:
    """Play a row, wait for its turns, check what was recorded; the record stays in the folder."""
    seed = options.seed ^ zlib.crc32(row.name.encode())
    folder.mkdir(parents=True)
    slow = row.slow_seconds(options)
    with open_scene(
        options,
        seed,
        nursery,
        folder,
        latency=row.latency,
        slow=slow,
        pause=row.pause,
        with_rabbitmq=row.with_rabbitmq,
    ) as scene:
        row.play(scene)
        scene.settle()
        record = scene.record(row.name)
    (folder / "record.json").write_text(json.dumps(record.as_json()), "utf-8")
    limit = row.limit(options)
    return judge(record, row.title, allowed=row.allowed, recovery_limit=limit)
