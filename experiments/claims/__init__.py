"""The consistency claims of the source text, measured in float64.

`python -m experiments.consistency` prints and draws them.
"""
