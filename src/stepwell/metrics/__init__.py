"""What a model is worth, with 95 % intervals: `by_task` has each task's metrics."""
