"""Services of the host that plans ask for: texts of a dialogue, files, and other runs."""

from gtpo_jax.rollout.services.dialogue import of_dialogue, turn_text
from gtpo_jax.rollout.services.experiences import ExperienceFile
from gtpo_jax.rollout.services.shared_groups import SharedGroups
from gtpo_jax.rollout.services.stores import FolderStore, HttpStore, Store

__all__ = [
    "ExperienceFile",
    "FolderStore",
    "HttpStore",
    "SharedGroups",
    "Store",
    "of_dialogue",
    "turn_text",
]
