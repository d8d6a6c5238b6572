"""The parts that methods are made of: rewards, credit, losses, reductions, plans, prompts."""
