"""Coloured digits: what `experiments.spuco_mnist` and `experiments.coloured_mnist` are made of."""
