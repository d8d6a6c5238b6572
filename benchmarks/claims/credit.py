"""Claims about rewards and credit."""

from __future__ import annotations

from benchmarks.claims.claim import END, Claim
from benchmarks.claims.claim import modifier as _modifier

CLAIMS: tuple[Claim, ...] = (
    # Class (a): shaping of rewards.
    _modifier("otc_po", "chain", "turns", lower=True),
    _modifier("e_grpo", "entities"),
    _modifier("tp_grpo", "recoverable"),
    _modifier("pta_grpo", "plans"),
    _modifier("ws_grpo", "fatal", END),
    _modifier("ps_grpo", "styles"),
    _modifier("multirole_r1", "styles", "entropy"),
    _modifier(
        "multi_objective scores=builtins:len weights=[1.0,0.2]", "chain", "turns", lower=True
    ),
    Claim(method="eapo", parent="grpo", world="chain", measure="turns", lower=True),
    _modifier("conciser longest=24", "lengths", "tokens", lower=True),
    _modifier("length_curriculum start=24 every=30", "lengths", "tokens", lower=True),
    _modifier("grpo_care", "styles"),
    _modifier("grpo_lead shortest=0", "lengths", "tokens", lower=True),
    _modifier("unlikeliness", "styles", "entropy"),
    Claim(method="step_grpo + progress", parent="grpo + progress", world="recurring"),
    _modifier("m_grpo", "agents"),
    _modifier("craft_gui judge=builtins:len", "chain"),
    Claim(
        method="open_rs longest=24", parent="grpo", world="lengths", measure="tokens", lower=True
    ),
    Claim(method="wireless_math", parent="grpo", world="chain", measure="violations", lower=True),
    Claim(
        method="grpo + craft_gui judge=builtins:len weight=0.5 + tempsamp",
        parent="grpo + craft_gui judge=builtins:len weight=0.5",
        world="chain",
    ),
    # Class (b): advantages and baselines.
    Claim(method="gigpo", parent="grpo divide_by_std=false", world="recurring"),
    _modifier("salt", "recurring"),
    Claim(method="flow_grpo", parent="grpo", world="chain"),
    Claim(method="gtpo_conflicts entropy_limit=9", parent="dr_grpo", world="lengths"),
    Claim(method="spo", parent="reinforce_pp", world="difficulty"),
    _modifier("seed_grpo", "styles"),
    _modifier("edge_grpo", "difficulty"),
    _modifier("dr_irl", "chain"),
    Claim(method="rank_grpo", parent="grpo", world="verification"),
    Claim(method="rank_grpo + turn_scores", parent="grpo + turn_scores", world="stopping"),
    Claim(method="brpo", parent="grpo", world="verification"),
    _modifier("egpo", "styles", "entropy"),
    # What users ask for beside them.
    Claim(method="igpo", parent="grpo", world="verification"),
    Claim(method="turn_ppo", parent="grpo", world="recurring"),
    _modifier("progress", "fatal", END),
    Claim(
        method="gtpo silence_equal=false + decoupled weights='{\"format\":0.1}'",
        parent="gtpo silence_equal=false",
        world="chain",
    ),
    _modifier("aepo_entropy", "styles"),
    _modifier("aem", "recoverable"),
    Claim(method="gtpo_tokens", parent="grpo", world="lengths"),
    Claim(method="grpo_s", parent="grpo", world="lengths"),
    Claim(method="gtpo", parent="gtpo silence_equal=false", world="chain"),
    Claim(
        method="gtpo silence_equal=false + silenced",
        parent="gtpo silence_equal=false",
        world="noisy",
    ),
    # The older methods of the table.
    Claim(method="gtpo", parent="grpo", world="chain", measure="turns", lower=True),
    Claim(method="gtpo shaping=0.5", parent="gtpo shaping=0", world="resembling"),
    Claim(method="rloo", parent="reinforce_pp", world="chain"),
    Claim(method="dr_grpo", parent="grpo", world="noisy", measure=END),
    Claim(method="mt_grpo", parent="grpo", world="recoverable"),
    Claim(method="reinforce_pp_baseline", parent="reinforce_pp", world="chain"),
)
"""The claims; `gcpo` has none, since no world samples answers again."""
