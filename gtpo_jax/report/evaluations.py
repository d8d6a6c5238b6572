"""Shows held-out evaluations as bars on a page, and splits the gain between two by cause."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from gtpo_jax.results import gains
from gtpo_jax.results.evaluation import RIGHT, Outcome

SAMPLED, GREEDY = "sampled", "greedy"
"""Modes of decoding that a comparison needs."""

WAYS = (RIGHT, *reversed(gains.FAILURES))
"""Parts of a bar, in order."""

DIGITS = 5
"""Decimal places of shares on a page."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeldOut:
    """An evaluation of a policy on held-out problems."""

    name: str  # folder in RUN/evaluation
    outcomes: Mapping[str, Sequence[Outcome]]  # by mode
    texts: Mapping[str, tuple[str, str]]  # problem id → question and answer


def section(runs: Mapping[str, Sequence[HeldOut]]) -> dict:
    """The data of a page for the evaluations of each run, earliest policy first.

    A bar is an evaluation in one mode; its shares are in the order of `ways`. The first evaluation
    of a run is compared with each later one.
    """
    made = [
        {
            "run": run,
            "bars": [
                _bar(held_out.name, mode, outcomes)
                for held_out in evaluations
                for mode, outcomes in held_out.outcomes.items()
            ],
            "comparisons": [_comparison(evaluations[0], later) for later in evaluations[1:]],
        }
        for run, evaluations in runs.items()
        if evaluations
    ]
    return {"ways": list(WAYS), "several": len(runs) > 1, "runs": made}


def _bar(name: str, mode: str, outcomes: Sequence[Outcome]) -> dict:
    known = [outcome for outcome in outcomes if outcome.included]
    return {
        "name": name,
        "mode": mode,
        "problems": len({outcome.problem for outcome in known}),
        "samples": len(known),
        "excluded": len(outcomes) - len(known),
        "shares": _shares(gains.shares(known)),
    }


def _comparison(before: HeldOut, after: HeldOut) -> dict:
    """Compares two evaluations on the problems with the same question and answer in both."""
    same = {id for id, text in before.texts.items() if after.texts.get(id) == text}

    def among(held_out: HeldOut, mode: str) -> list[Outcome]:
        return [outcome for outcome in held_out.outcomes.get(mode, ()) if outcome.problem in same]

    compared = gains.compare(among(before, GREEDY), among(before, SAMPLED), among(after, SAMPLED))
    problems = before.texts.keys() | after.texts.keys()
    return {
        "names": [before.name, after.name],
        "problems": compared.problems,
        "left_out": len(problems) - compared.problems,
        "gain": round(compared.gain, DIGITS),
        "error": round(compared.error, DIGITS),
        "before": _shares(compared.before),
        "after": _shares(compared.after),
        "parts": [
            {
                "solved": name == RIGHT,
                "problems": part.problems,
                "before": round(part.before, DIGITS),
                "after": round(part.after, DIGITS),
                "gain": round(part.gain, DIGITS),
            }
            for name, part in compared.parts.items()
        ],
    }


def _shares(shares: Mapping[str, float]) -> list[float]:
    return [round(shares[way], DIGITS) for way in WAYS]
