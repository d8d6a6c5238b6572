"""gtpo_jax: Group Turn Policy Optimization for tool-using language models, in functional JAX."""

__version__ = "0.1.0"
