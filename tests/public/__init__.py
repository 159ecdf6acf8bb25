"""Models of public packages, unpatched: `pytest --public` (extra `public`)."""
