"""Text: tokenizers, the grammar of turns, chat templates, tool protocols, answers."""
