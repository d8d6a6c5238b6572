"""Plans: which episodes a problem gets, and which follow them. One idea per file."""

from gtpo_jax.parts.plans.corrected import corrected
from gtpo_jax.parts.plans.delegated import delegated
from gtpo_jax.parts.plans.experienced import experienced
from gtpo_jax.parts.plans.gold import with_gold
from gtpo_jax.parts.plans.guided import guided
from gtpo_jax.parts.plans.hinted import hinted
from gtpo_jax.parts.plans.independent import independent
from gtpo_jax.parts.plans.moment import HostedPlan, Moment, Need, Service, at_moment
from gtpo_jax.parts.plans.plan import Capacity, Episodes, EpisodesFn, Plan
from gtpo_jax.parts.plans.planned import planned
from gtpo_jax.parts.plans.refined import refined
from gtpo_jax.parts.plans.swarm import swarm

__all__ = [
    "Capacity",
    "Episodes",
    "EpisodesFn",
    "HostedPlan",
    "Moment",
    "Need",
    "Plan",
    "Service",
    "at_moment",
    "corrected",
    "delegated",
    "experienced",
    "guided",
    "hinted",
    "independent",
    "planned",
    "refined",
    "swarm",
    "with_gold",
]
