"""Arrays in, arrays out: masks, turns, log-probs, similarity."""
