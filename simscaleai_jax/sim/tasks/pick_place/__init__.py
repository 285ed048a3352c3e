"""Pick and place: the task, its settings, its stages and its curriculum."""
