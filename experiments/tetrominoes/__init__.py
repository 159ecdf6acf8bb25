"""Tetrominoes in noise, of which it is known which pixels tell the class (Clark et al. 2024).

pictures     four scenarios, two kinds of noise, and the truth
networks     an MLP and a CNN that learn them
maps         how presets, filters and chance explain them, and how well
"""
