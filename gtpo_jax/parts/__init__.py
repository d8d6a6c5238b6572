"""The parts that methods are made of: one room for each slot of a method, one idea a file."""

from gtpo_jax.parts import credit, facts, losses, plans, prompts, reductions, rewards

__all__ = ["credit", "facts", "losses", "plans", "prompts", "reductions", "rewards"]
