"""Named runs."""

from __future__ import annotations

from configs.schema import RunConfig
from models import presets

TINY = RunConfig(model=presets.TINY)
"""What `make demo` runs: a 200k-parameter model learns generated tool problems from scratch."""

PRESETS: dict[str, RunConfig] = {"tiny": TINY}
