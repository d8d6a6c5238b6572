"""Named runs."""

from __future__ import annotations

import dataclasses

from configs.schema import EvalConfig, RunConfig, SftConfig, ToolConfig, TrainConfig
from gtpo_jax.rollout import RolloutLimits
from models import presets

TINY = RunConfig(model=presets.TINY, tool=ToolConfig(preload=()))
"""What `make demo` runs: a 200k-parameter model learns generated tool problems from scratch."""

WORD_PROBLEMS = RunConfig(
    model=dataclasses.replace(presets.TINY, vocab_size=1024, width=128, mlp_width=384),
    sft=SftConfig(steps=1000, rows=8, row_tokens=320, demonstrations=12_000),
    train=TrainConfig(steps=40),
    rollout=RolloutLimits(context=320, prompt_tokens=192, slots=64),
    evaluation=EvalConfig(problems=700),
)
"""Word problems from JSON lines, given as `task.train_file`, `task.eval_file` and `tokenizer`."""

PRESETS: dict[str, RunConfig] = {"tiny": TINY, "word-problems": WORD_PROBLEMS}
