"""Plans: which episodes a problem gets, and which follow them. One idea per file."""

from gtpo_jax.parts.plans.budgeted import budgeted
from gtpo_jax.parts.plans.corrected import corrected
from gtpo_jax.parts.plans.delegated import delegated
from gtpo_jax.parts.plans.experienced import experienced
from gtpo_jax.parts.plans.gold import with_gold
from gtpo_jax.parts.plans.greedy_twin import greedy_twin
from gtpo_jax.parts.plans.guided import guided
from gtpo_jax.parts.plans.hinted import hinted
from gtpo_jax.parts.plans.independent import independent
from gtpo_jax.parts.plans.lookahead import lookahead
from gtpo_jax.parts.plans.moment import HostedPlan, Moment, Need, Service, at_moment
from gtpo_jax.parts.plans.plan import Capacity, Episodes, EpisodesFn, Plan
from gtpo_jax.parts.plans.planned import planned
from gtpo_jax.parts.plans.refined import refined
from gtpo_jax.parts.plans.retempered import FACT as RESAMPLED
from gtpo_jax.parts.plans.retempered import Temperatures, retempered
from gtpo_jax.parts.plans.swarm import swarm
from gtpo_jax.parts.plans.tree import tree
from gtpo_jax.parts.plans.valued import valued

__all__ = [
    "RESAMPLED",
    "Capacity",
    "Episodes",
    "EpisodesFn",
    "HostedPlan",
    "Moment",
    "Need",
    "Plan",
    "Service",
    "Temperatures",
    "at_moment",
    "budgeted",
    "corrected",
    "delegated",
    "experienced",
    "greedy_twin",
    "guided",
    "hinted",
    "independent",
    "lookahead",
    "planned",
    "refined",
    "retempered",
    "swarm",
    "tree",
    "valued",
    "with_gold",
]
