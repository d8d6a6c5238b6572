"""The metrics of a training step and their names.

Names are grouped by a slash. A run has the same names at every step, and no metric is ever NaN: a
metric of nothing is 0. `docs/evaluation.md` explains each of them.
"""

from __future__ import annotations

import pathlib
import resource
import sys
from collections import Counter
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from gtpo_jax.methods import TurnCredit
from gtpo_jax.results import evaluation
from gtpo_jax.rollout import CollectedGroups
from gtpo_jax.types import EpisodeBatch, ToolStatus, Trajectory, Verdict


def sampled(groups: CollectedGroups, seconds: float) -> dict[str, float]:
    """Metrics of the groups that a step sampled, and of the `seconds` that this took."""
    stats = groups.stats
    return rollout(groups.sampled) | {
        "rollout/rounds": groups.rounds,
        "rollout/groups_kept": groups.groups_kept,
        "rollout/groups_dropped": groups.groups_dropped,
        "rollout/largest_group": max(Counter(t.group for t in groups.sampled).values(), default=0),
        "rollout/busy_rows": stats.sampled_tokens / max(stats.row_steps, 1),
        "time/rollout_seconds": seconds,
        "time/tool_seconds": stats.tool_seconds,
        "time/tokens_per_second": stats.sampled_tokens / seconds,
    }


def rollout(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Metrics of the trajectories that a step sampled, including dropped groups."""
    summary = evaluation.evaluate_trajectories(trajectories)
    success = np.array([t.success for t in trajectories], np.float32)
    groups = np.array([t.group for t in trajectories])
    shares = np.array([success[groups == group].mean() for group in np.unique(groups)])
    turns = [turn for t in trajectories for turn in t.turns]
    entropies = np.concatenate([np.zeros(0), *(turn.entropies[turn.given :] for turn in turns)])
    verdicts = [t.verdict for t in trajectories]
    return {
        "rollout/success": summary.success,
        "rollout/violations": summary.violations,
        "rollout/turns": summary.turns,
        "rollout/calls": summary.tool_calls,
        "rollout/tool_errors": summary.tool_errors,
        "rollout/tokens": summary.tokens,
        "rollout/truncated": summary.truncated,
        "rollout/excluded": summary.excluded,
        "rollout/entropy": _mean(entropies),
        **{
            f"rollout/{verdict}": verdicts.count(verdict) / len(verdicts)
            for verdict in (Verdict.WRONG, Verdict.NO_ANSWER, Verdict.UNVERIFIABLE)
        },
        **lengths(trajectories),
        **tool(trajectories),
        # Judged by outcomes: with a discount, equal outcomes still give unequal returns.
        "credit/groups_without_signal": float(np.mean((shares == 0) | (shares == 1))),
    }


def lengths(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Numbers of tokens: of prompts, sampled by the policy, of tool outputs, and in total."""
    measured = {
        "prompt": [len(t.prompt) for t in trajectories],
        "response": [sum(turn.own_tokens for turn in t.turns) for t in trajectories],
        "observation": [sum(len(turn.observation) for turn in t.turns) for t in trajectories],
        "total": [t.length for t in trajectories],
    }
    return {
        f"length/{name}_{kind}": float(of(values))
        for name, values in measured.items()
        for kind, of in (("mean", np.mean), ("max", np.max))
    }


def tool(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Shares of all calls by how they ended, and how long calls took."""
    results = [r for t in trajectories for turn in t.turns for r in turn.results]
    statuses = [result.status for result in results]
    seconds = np.array([result.wall_seconds for result in results] or [0.0])
    share = {f"tool/{s}": statuses.count(s) / max(len(results), 1) for s in ToolStatus}
    return share | {
        "tool/latency_p50": float(np.percentile(seconds, 50)),
        "tool/latency_p95": float(np.percentile(seconds, 95)),
        "tool/latency_max": float(seconds.max()),
    }


def credit(episodes: EpisodeBatch, turn_credit: TurnCredit) -> dict[str, float]:
    """Metrics of the credit of the trajectories learned from; 0 if there are none.

    Rewards and their parts are sums over the turns of a trajectory; the return and other named
    values of the credit are those of first turns. `pushed_down` is the share of successes of
    several turns whose first turn has a negative advantage.
    """
    mask = np.asarray(episodes.turn_mask)
    right = np.asarray(episodes.success & episodes.included) & (mask.sum(axis=1) > 1)
    rewards, advantages, parts, links = jax.tree.map(np.asarray, turn_credit)
    sizes = np.abs(advantages)
    of_turn = {
        f"credit/advantage_turn_{turn}": _mean(sizes[:, turn][mask[:, turn]])
        for turn in range(mask.shape[1])
    }
    return {
        "credit/reward": _mean(rewards.sum(axis=1)),
        **{f"credit/{name}": _mean(part.sum(axis=1)) for name, part in parts.items()},
        **{f"credit/{name}": _mean(values[:, 0]) for name, values in links.items()},
        "credit/advantage_size": _mean(sizes[mask]),
        "credit/first_turn_of_right": _mean(advantages[right, 0]),
        "credit/pushed_down": _mean(advantages[right, 0] < 0),
        **of_turn,
    }


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else 0.0


def update(updates: Sequence[Mapping[str, np.ndarray]]) -> dict[str, float]:
    """Means over the updates of a step; of a metric that is a maximum, the maximum."""
    return {
        f"update/{name}": float(
            (np.max if name.endswith("_max") else np.mean)([metrics[name] for metrics in updates])
        )
        for name in updates[0]
    }


def memory() -> dict[str, float]:
    """Bytes of memory of this process, and of its fullest device if devices report them."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    named = {"memory/device_bytes": "bytes_in_use", "memory/device_peak_bytes": "peak_bytes_in_use"}
    return {"memory/host_bytes": float(_resident_bytes())} | {
        name: float(max(held[key] for held in stats))
        for name, key in named.items()
        if all(key in held for held in stats)
    }


def _resident_bytes() -> int:
    """Resident bytes of this process; their peak where the system does not report the current
    value.
    """
    try:
        pages = int(pathlib.Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * resource.getpagesize()
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
