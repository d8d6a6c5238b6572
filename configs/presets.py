"""Named runs."""

from __future__ import annotations

import dataclasses

from configs.schema import EvalConfig, RunConfig, SftConfig, TaskConfig, TrainConfig
from gtpo_jax.rollout import RolloutLimits
from models import presets

TINY = RunConfig(model=presets.TINY)
"""What `make demo` runs: a 200k-parameter model learns generated tool problems from scratch."""

PRESETS: dict[str, RunConfig] = {"tiny": TINY}
