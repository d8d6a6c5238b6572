"""Presets: named configs of runs."""

from __future__ import annotations

import dataclasses

from configs.schema import (
    DialogueConfig,
    EvalConfig,
    MeshConfig,
    OptimizerConfig,
    RunConfig,
    SftConfig,
    TaskConfig,
    ToolConfig,
    TrainConfig,
)
from gtpo_jax.rollout import RolloutLimits
from models import presets

TINY = RunConfig(
    model=presets.TINY,
    sft=SftConfig(optimizer=dataclasses.replace(SftConfig.optimizer, final_fraction=0.02)),
    tool=ToolConfig(preload=()),
    rollout=RolloutLimits(lockstep=True),
)
"""The run of `make demo`: a model of 200k parameters learns generated tool problems from scratch.
"""

WORD_PROBLEMS = RunConfig(
    model=dataclasses.replace(
        presets.TINY, vocab_size=1024, width=128, mlp_width=384, residual_init=1.0
    ),
    task=TaskConfig(other_numbers=0.9, other_words=0.9),
    sft=SftConfig(steps=4500, rows=8, row_tokens=320, demonstrations=30_000, checkpoint_every=500),
    train=TrainConfig(
        steps=60,
        prompts=32,
        minibatches=4,
        optimizer=OptimizerConfig(learning_rate=2.5e-4, final_fraction=0.1),
        eval_every=0,
    ),
    rollout=RolloutLimits(context=320, prompt_tokens=240, slots=64, lockstep=True),
    evaluation=EvalConfig(problems=700, samples=8),
)
"""Word problems from JSON lines, given as `task.train_file`, `task.eval_file` and `tokenizer`."""

CHAT = RunConfig(
    model=dataclasses.replace(presets.TINY, compute_dtype="bfloat16", remat="full"),
    dialogue=DialogueConfig(protocol="fenced"),
    # The model already forms calls, and reads better than it would learn from errors.
    task=TaskConfig(skip_tool=0.0, unclosed_call=0.0, slip=0.0),
    sft=SftConfig(
        steps=200,
        rows=16,
        row_tokens=4096,
        demonstrations=2_000,
        checkpoint_every=50,
        logprob_chunk=256,
        optimizer=OptimizerConfig(learning_rate=1e-5, warmup_steps=10, final_fraction=0.1, b2=0.95),
    ),
    train=TrainConfig(
        prompts=32,
        optimizer=OptimizerConfig(learning_rate=1e-6, b2=0.95),
        gate=0.0,
        logprob_chunk=256,
    ),
    rollout=RolloutLimits(
        slots=128,
        parked=16,
        context=4096,
        prompt_tokens=1024,
        turn_tokens=1024,
        observation_tokens=512,
        extend_width=128,
    ),
)
"""An instruction-tuned model, imported into the run by `launch.convert import`."""

QWEN2_5_7B_GTPO = dataclasses.replace(
    CHAT,
    model=dataclasses.replace(presets.QWEN2_5_7B, remat="full"),
    mesh=MeshConfig(data=1, fsdp=-1, tensor=4),
    sft=dataclasses.replace(CHAT.sft, rows=64, row_tokens=8192),
    train=dataclasses.replace(
        CHAT.train,
        steps=500,
        prompts=64,
        group_size=16,
        method=("gtpo", "discount=0.9", "shaping=0.5", "format_penalty=0.1", "silence_equal=false"),
        rows=64,
        logprob_chunk=512,
    ),
    rollout=dataclasses.replace(
        CHAT.rollout, context=8192, turn_tokens=2048, observation_tokens=1024, max_turns=6
    ),
)
"""GTPO as published, on a model of 7 billion parameters, for 64 chips of a pod or a machine of 8
GPUs.

The paper gives the discount .9, the largest partial credit .5 and the format penalty .1 (see
`docs/algorithms.md`), and makes no exception for groups of equal outcome. Everything else is our
choice: the paper's batch, group, lengths, learning rate, clip range and base model are not known to
us."""

DIFFUSION = RunConfig(
    model=presets.TINY_DIFFUSION,
    task=TaskConfig(families=("sum",), skip_tool=0.0, unclosed_call=0.0),
    sft=SftConfig(
        steps=1500,
        rows=64,
        row_tokens=16,
        demonstrations=20_000,
        checkpoint_every=250,
        optimizer=dataclasses.replace(SftConfig.optimizer, final_fraction=0.02),
    ),
    train=TrainConfig(
        steps=40,
        method=("cj_grpo",),
        rows=128,
        minibatches=1,
        gate=0.0,
        optimizer=OptimizerConfig(learning_rate=6e-4, final_fraction=0.1),
    ),
    rollout=RolloutLimits(context=16, prompt_tokens=8),
    tool=ToolConfig(preload=(), factory="gtpo_jax.tools.absent:make_tool"),
)
"""A diffusion model of 165k parameters learns to add from scratch, without tools."""

PRESETS: dict[str, RunConfig] = {
    "tiny": TINY,
    "diffusion": DIFFUSION,
    "word-problems": WORD_PROBLEMS,
    "chat": CHAT,
    "qwen2.5-7b-gtpo": QWEN2_5_7B_GTPO,
}
