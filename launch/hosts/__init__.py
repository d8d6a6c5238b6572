"""`launch.train` on TPU pods, under Slurm and on Kubernetes: docs/scaling.md."""
