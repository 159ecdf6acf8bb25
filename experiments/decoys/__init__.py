"""Digits with a patch that tells the class: what `experiments.decoy_digits` is made of."""
