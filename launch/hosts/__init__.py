"""Launchers of `launch.train` for TPU pods, Slurm and Kubernetes: see docs/scaling.md."""
