"""The results of a run: evaluations, gains, metrics, records of trajectories."""
