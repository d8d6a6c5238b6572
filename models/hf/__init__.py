"""Hugging Face checkpoints: import, export and adapters."""
