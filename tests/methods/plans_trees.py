"""Rows of the suite of plans: those that fork what they have sampled."""

from gtpo_jax import methods
from tests.methods.plan_relatives import SIZE, Row, on_grpo

ROWS: dict[str, Row] = {
    "remax": Row(methods.remax, rewritten=True),
    "arpo": Row(on_grpo(methods.arpo(trunks=2)), neutral=on_grpo(methods.arpo(trunks=SIZE))),
    "arpo beam": Row(on_grpo(methods.arpo(beam=4, probability=0.9)), size=6),
    "vine": Row(lambda: methods.vine(rollouts=2)),
    "latr": Row(on_grpo(methods.latr())),
}
