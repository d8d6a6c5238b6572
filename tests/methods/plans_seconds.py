"""Rows of the suite of plans: those that need no other run."""

from gtpo_jax import methods
from tests.methods.plan_relatives import Row, by_chance, on_grpo


def mostly_wrong(request, draw):
    """Plain samples fail; those with more in front of them succeed at times."""
    plain = request.question is None and not request.script and not request.opening
    return "W" if plain else by_chance(request, draw)


def handing_over(request, draw):
    return "D" if draw > 0.6 else by_chance(request, draw / 0.6)


ROWS: dict[str, Row] = {
    "scaf_grpo": Row(
        on_grpo(methods.scaf_grpo(exempt=0)),
        neutral=on_grpo(methods.scaf_grpo(exempt=61)),
        verdict=mostly_wrong,
    ),
    "igrpo": Row(on_grpo(methods.igrpo(drafts=3))),
    "multi_layer_grpo": Row(on_grpo(methods.multi_layer_grpo(corrections=2))),
    "multi_layer_grpo parent": Row(
        on_grpo(methods.multi_layer_grpo(corrections=2, baseline="parent", weight=0.5))
    ),
    "guided_correction": Row(on_grpo(methods.guided_correction())),
    "tempsamp": Row(on_grpo(methods.tempsamp()), rewritten=True),
    "tempsamp anchor": Row(
        on_grpo(methods.tempsamp(shaping="anchor", gold="solution")), rewritten=True
    ),
    "gcpo_contrastive": Row(
        on_grpo(methods.gcpo_contrastive()), verdict=mostly_wrong, rewritten=True
    ),
    "pta_grpo": Row(
        on_grpo(methods.pta_grpo(solutions=3)),
        size=6,
        neutral=on_grpo(methods.pta_grpo(solutions=1)),
    ),
    "m_grpo": Row(on_grpo(methods.m_grpo(subs=2)), verdict=handing_over, rewritten=True),
}
