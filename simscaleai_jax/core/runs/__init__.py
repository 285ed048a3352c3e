"""A run's folder: one run at a time in it, its whole configuration, and where it goes on (see `folder`)."""
