"""The decode programs: prefill, segments of single tokens, sampling and stopping."""

from gtpo_jax.decoding.programs import DecodePrograms, make_programs, restrict_vocabulary
from gtpo_jax.decoding.state import Appended, DecodeState, Prompts, Segment

__all__ = [
    "Appended",
    "DecodePrograms",
    "DecodeState",
    "Prompts",
    "Segment",
    "make_programs",
    "restrict_vocabulary",
]
