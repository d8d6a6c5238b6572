"""The parts of methods: one room for each slot of a method, one idea per file."""

from gtpo_jax.parts import credit, facts, losses, plans, prompts, reductions, rewards

__all__ = ["credit", "facts", "losses", "plans", "prompts", "reductions", "rewards"]
