"""RASP programs compiled to transformers: what they compute is known, and so is what matters to it.

programs     the programs, by what they need of attention, and their counterfactuals
explained    how each method explains one
"""
