"""The loop, evaluation, checkpoints and the run folder."""
