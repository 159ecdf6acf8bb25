"""Experiments around `jaxrel` that need trained networks, pictures or plots.

Nothing in the library imports this package; `pip install 'jaxrel[experiments]'` brings what it
needs. Every module that can be run says so in its own docstring.
"""
