"""The part of verl and TRL in `benchmarks.credit`, run by an interpreter that has them.

python credit_peers.py FACTS.npz THREADS

Prints the installed versions as one line of JSON. For each line of its input, the name of a peer,
it runs GRPO advantages, clipped loss and backward once, and prints the seconds taken and the loss.
It imports nothing from this repository.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import collections
import contextlib
import json
import sys
import time
import types
from collections.abc import Callable

import numpy as np
import torch

Runner = Callable[[], torch.Tensor]


class Config(dict):
    """Actor config of verl: keys are also attributes."""

    __getattr__ = dict.__getitem__


def verl_runner(facts: dict[str, torch.Tensor], low: float, high: float) -> Runner:
    """The vectorized one of verl's two GRPO estimators, which is faster."""
    from verl.trainer.ppo import core_algos

    # A dual clip too far out to bind, so that the loss is the others' loss.
    config = Config(
        clip_ratio=low,
        clip_ratio_low=low,
        clip_ratio_high=high,
        clip_ratio_c=1e9,
        global_batch_info={},
    )
    mask = facts["loss_mask"].float()
    index = facts["group_ids"].numpy()

    def run() -> torch.Tensor:
        policy = facts["policy_logprobs"].detach().requires_grad_()
        advantages, _ = core_algos.compute_grpo_vectorized_outcome_advantage(
            facts["token_rewards"], mask, index
        )
        loss, _ = core_algos.compute_policy_loss_vanilla(
            facts["behavior_logprobs"], policy, advantages, mask, "token-mean", config
        )
        loss.backward()
        return loss

    return run


def trl_runner(facts: dict[str, torch.Tensor], low: float, high: float) -> Runner:
    """`GRPOTrainer._compute_loss` on a trainer of plain attributes, with its token mean (`bnpo`).

    TRL computes the advantages inside another method of the trainer, so their formula is restated
    here.
    """
    from trl import GRPOTrainer

    accelerator = types.SimpleNamespace(
        num_processes=1, gather=lambda x: x, gather_for_metrics=lambda x: x, reduce=lambda x, **_: x
    )
    trainer = types.SimpleNamespace(
        accelerator=accelerator,
        args=types.SimpleNamespace(delta=None, steps_per_generation=1),
        aux_loss_enabled=False,
        beta=0.0,
        current_gradient_accumulation_steps=1,
        epsilon_low=low,
        epsilon_high=high,
        importance_sampling_level="token",
        loss_type="bnpo",
        model=types.SimpleNamespace(training=True),
        off_policy_mask_threshold=None,
        top_entropy_quantile=1.0,
        use_vllm=False,
        _entropy_bonus_enabled=False,
        _metrics={"train": collections.defaultdict(list)},
    )
    rows, length = facts["policy_logprobs"].shape
    size = int(torch.sum(facts["group_ids"] == 0))
    entropies = torch.zeros(rows, length)
    ids = torch.zeros(rows, length, dtype=torch.int64)
    inputs = {
        "prompt_ids": ids[:, :0],
        "prompt_mask": ids[:, :0],
        "completion_ids": ids,
        "completion_mask": torch.ones_like(ids),
        "tool_mask": facts["loss_mask"].long(),
        "old_per_token_logps": facts["behavior_logprobs"],
    }

    def run() -> torch.Tensor:
        policy = facts["policy_logprobs"].detach().requires_grad_()
        trainer._get_per_token_logps_and_entropies = lambda *_, **__: (policy, entropies, None)
        rewards = facts["token_rewards"].sum(dim=-1).view(-1, size)
        centered = rewards - rewards.mean(dim=1, keepdim=True)
        advantages = (centered / (rewards.std(dim=1, keepdim=True) + 1e-4)).view(-1)
        loss = GRPOTrainer._compute_loss(trainer, None, inputs | {"advantages": advantages})
        loss.backward()
        return loss

    return run


def main(path: str, threads: str) -> None:
    torch.set_num_threads(int(threads))
    data = np.load(path)
    low, high = data["clip"].tolist()
    facts = {name: torch.from_numpy(data[name]) for name in data.files if name != "clip"}
    runners: dict[str, Runner] = {}
    versions: dict[str, str] = {}
    answers = sys.stdout
    for peer, make in {"verl": verl_runner, "trl": trl_runner}.items():
        # The peers' own output is discarded; a peer that is not installed is left out.
        with contextlib.redirect_stdout(sys.stderr), contextlib.suppress(ImportError):
            runners[peer] = make(facts, low, high)
            versions[peer] = __import__(peer).__version__
    print(json.dumps(versions), file=answers, flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        with contextlib.redirect_stdout(sys.stderr):
            loss = runners[line.strip()]()
        seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "loss": loss.item()}), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
