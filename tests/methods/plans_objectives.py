"""Rows of the suite of plans: rollouts at other temperatures."""

from gtpo_jax import methods
from tests.methods.plan_relatives import Row, on_grpo

ROWS: dict[str, Row] = {
    "aepo_arbitrary": Row(
        on_grpo(methods.aepo_arbitrary(share=0.5)),
        neutral=on_grpo(methods.aepo_arbitrary(share=0.0)),
    ),
}
