"""Spreads: how the advantage of a turn is divided among its tokens. One idea per file."""

from gtpo_jax.parts.spreads.spread import Spread, Written, evenly, written_tokens

__all__ = ["Spread", "Written", "evenly", "written_tokens"]
