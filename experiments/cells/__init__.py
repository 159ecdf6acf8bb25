"""Digits of which cells are missing, networks at home with that, and what they lose by a cell.

networks     three networks, trained on digits with a cell of 4 x 4 set to 0
explained    how each preset explains them
references   how comparisons with the pictures' own parts do
learned      how rules do whose numbers are learned
"""
