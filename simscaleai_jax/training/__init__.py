"""Supervised training: `trainer` (TrainConfig, Trainer) and `data` (data sets and loaders).

Nothing is imported here: the loaders' worker processes import `training.data` and have no use for JAX.
"""
