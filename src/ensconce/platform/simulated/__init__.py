"""The simulated platform: it replaces the CPU and nothing else."""
