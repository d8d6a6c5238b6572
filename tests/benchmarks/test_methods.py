"""Claims of relatives: all of them can run, every relative has one, and cells decide."""

import dataclasses

import pytest

from benchmarks import lab, methods
from benchmarks.claims import CLAIMS, Claim
from configs.methods import make_method, split
from configs.worlds import make_world
from gtpo_jax import methods as known
from gtpo_jax.lab import suite

OLDER = {
    *("clip", "dual_clip", "two_sided_clip", "weight_clip", "unit_ratio", "recompute"),
    *("importance", "kl", "entropy_bonus", "overlong", "reward", "reduce", "dynamic_sampling"),
    *("cispo", "dapo", "gspo"),
}
"""Methods and modifiers of tokens and prompts, which claim nothing about credit."""

BASELINES = {"grpo", "reinforce_pp"}
WITHOUT_WORLD = {
    "gcpo",
    *("remax", "arpo", "vine", "latr", "aepo_arbitrary", "scaf_grpo", "igrpo", "multi_layer_grpo"),
    *("guided_correction", "gcpo_contrastive", "sapo_swarm", "training_free_grpo"),
    *("gdpo", "cj_grpo"),
}
"""Methods that need what the laboratory does not simulate: the text of a model, plans (hints alone
have a simulation, `benchmarks.hints`), and denoising."""


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.method)
def test_claim_can_be_tried(claim):
    world = make_world(split(claim.world))
    for text in (claim.method, claim.parent):
        assert not suite.missing_facts(make_method(split(text)), world), text


def test_every_relative_has_a_claim():
    tried = set().union(*(methods.names(claim.method) for claim in CLAIMS))
    assert {*known.METHODS, *known.MODIFIERS} - OLDER - WITHOUT_WORLD <= tried | BASELINES


def make_cell(level, first=0.1):
    return suite.Cell(
        method="",
        world="",
        updates=2,
        budgets=(),
        measures={key: [level, level + 0.01] for key in ("solved", "learned", "turns")},
        curve=[first, level],
        seconds=0.0,
    )


def test_a_claim_holds_where_intervals_part():
    claim = Claim(method="m", parent="p", world="w", measure="solved")
    better = methods.Result(
        claim=claim, own=make_cell(0.8), parent=make_cell(0.5), flipped=make_cell(0.05)
    )
    assert better.holds and better.learns and better.flipped_does_not
    tie = dataclasses.replace(better, parent=make_cell(0.805))
    fewer = dataclasses.replace(
        better, claim=dataclasses.replace(claim, measure="turns", lower=True)
    )
    assert not tie.holds and not fewer.holds
    assert dataclasses.replace(fewer, parent=make_cell(0.9)).holds
    worse = dataclasses.replace(better, own=make_cell(0.1), flipped=make_cell(0.4))
    assert not worse.learns and not worse.flipped_does_not


def test_page_has_a_row_for_each_claim():
    claim = Claim(method="m", parent="p", world="w", measure="turns", lower=True)
    result = methods.Result(
        claim=claim, own=make_cell(0.4), parent=make_cell(0.5), flipped=make_cell(0.05)
    )
    text = methods.page([result, result], {"grpo": "finite"}, "")
    row = (
        "| `m` | `p` | w | turns, lower | 0.405 [0.400, 0.410] | 0.505 [0.500, 0.510] | yes | yes |"
    )
    assert text.count(row) == 2 and text.endswith("| `grpo` | finite |\n")
    assert methods.page([], {}, "") == methods.HEAD + "\n"
    again = methods.page([result], {}, before=text)
    assert again.count(row) == 1 and again.endswith("| `grpo` | finite |\n")


@pytest.mark.long
def test_laboratory_is_exact_and_timed():
    figures, notes = lab.measure(
        lab.LabArguments(methods=("rloo",), seeds=2, updates=12, make_lab=False)
    )
    assert figures["audit_gap_gradient"].holds and figures["audit_gap_update_gtpo"].holds
    assert figures["make_lab_seconds"].value is None and len(notes) == 1
