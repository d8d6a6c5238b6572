"""Samplers, worlds and methods of `benchmarks.staleness`, and the rule that chooses among them.

The rule and its grid are committed before any corrected method runs; it sees plain methods alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from gtpo_jax.lab.learning import Settings
from gtpo_jax.lab.statistics import Interval

PLAIN = ("grpo", "gtpo")
"""Methods whose ratio is to the sampler, and which do not correct for it."""

OLD = 16
"""Steps by which the stalest sampler is old."""

LONG = 1_000_000
"""Versions for which noise lasts that stays for the whole run."""

LOST = 0.1
"""Share of the success on policy that plain methods must lose in a setting that is chosen."""

LEARNED = 0.9
"""Success on policy that plain methods must reach in a setting that is chosen."""

WORLDS = ("chain needed=3 turns=6", "difficulty", "noisy")
RATES = (0.05, 0.15)
NOISES = (0.5, 1.0, 2.0)
LASTING = (1, LONG)


def grid(updates: int) -> list[Settings]:
    """The samplers that the search tries in every world, those on policy first for each rate."""
    points = []
    for rate in RATES:
        base = Settings(updates=updates, learning_rate=rate)
        points.append(base)
        points += [
            dataclasses.replace(base, staleness=OLD, noise=noise, noise_lasts=lasts)
            for lasts in LASTING
            for noise in NOISES
        ]
    return points


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tried:
    """A plain method at a point of the search."""

    world: str
    method: str
    settings: Settings
    on_policy: float  # success at the end, sampled by the policy itself
    kept: Interval  # the share of it that is left


def choose(tried: Sequence[Tried]) -> tuple[str, Settings] | None:
    """The world and sampler for the methods; None if no setting is hard enough.

    A setting is hard enough if in it every plain method keeps less than `1 − LOST` of its success
    on policy, by the whole interval, and reaches `LEARNED` on policy. Among those it is the one
    with the lowest learning rate, then the least noise, then noise of one version before noise that
    lasts, then the world that comes first.
    """
    by_setting: dict[tuple[str, Settings], list[Tried]] = {}
    for one in tried:
        by_setting.setdefault((one.world, one.settings), []).append(one)
    hard = [
        key
        for key, members in by_setting.items()
        if all(x.on_policy >= LEARNED and x.kept.high < 1.0 - LOST for x in members)
    ]
    return min(hard, key=_order) if hard else None


def _order(setting: tuple[str, Settings]) -> tuple:
    world, settings = setting
    place = WORLDS.index(world) if world in WORLDS else len(WORLDS)
    return settings.learning_rate, settings.noise, settings.noise_lasts, place


def compared(chosen: Settings) -> dict[str, Settings]:
    """Name → the samplers that methods are compared with."""
    points = {
        f"{steps} old, noise {noise:g}": dataclasses.replace(chosen, staleness=steps, noise=noise)
        for noise in (0.0, chosen.noise)
        for steps in (0, 1, 4, OLD)
    }
    more, other = 2.0 * chosen.noise, LONG if chosen.noise_lasts == 1 else 1
    points[f"{OLD} old, noise {more:g}"] = dataclasses.replace(chosen, noise=more)
    kind = "that stays" if other == LONG else "of a version"
    points[f"{OLD} old, noise {chosen.noise:g} {kind}"] = dataclasses.replace(
        chosen, noise_lasts=other
    )
    return points


CORRECTED: Mapping[str, tuple[str, ...]] = {
    "grpo": (
        "grpo + recompute + score_centering",
        "grpo + importance + score_centering",
        "grpo + dppo",
        "grpo + icepop",
        "grpo + importance",
        "grpo + kpop",
        "grpo + rejection unit=sequence",
        "grpo + rejection unit=turn",
        "grpo + importance unit=sequence",
        "grpo + decoupled_ppo",
    ),
    "gtpo": (
        "gtpo + recompute + score_centering",
        "gtpo + dppo",
        "gtpo + icepop",
        "gtpo + importance",
    ),
}
"""Plain method → the corrections that are held to the bar."""

OTHERS: Mapping[str, tuple[str, ...]] = {
    "grpo": ("grpo + recompute", "grpo + recompute + score_centering count=2")
}
"""Plain method → arms for comparison, without a bar: no correction at all, and centering from the
two likeliest actions alone."""
