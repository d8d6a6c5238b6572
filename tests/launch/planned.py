"""Configs of small runs for tests of the planner."""

from __future__ import annotations

from configs.presets import PRESETS
from launch.planning import search

TINY = PRESETS["tiny"]
SMALL = search.apply(
    TINY,
    {
        **{"model.width": 32, "model.mlp_width": 48, "model.head_dim": 8, "model.layers": 3},
        **{"rollout.slots": 8, "rollout.context": 64, "rollout.first_cache": 64},
        **{"train.rows": 8, "train.prompts": 4, "train.group_size": 8},
    },
)
