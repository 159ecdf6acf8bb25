"""What the tests of the invariants share: above all, what "the same" means.

The invariants (`test_invariants_*.py`) are those that hold on *every* program: values are left
alone, the rule set of gradients is `jax.grad`, relevance is conserved, derivatives of relevance are
true, transformations commute with it, nothing becomes NaN.
"""

from collections.abc import Callable
from importlib import metadata
from typing import Any

import jax
import numpy as np
import pytest


def needs(package: str) -> Any:
    """A mark for tests of a package that is not installed with the others: it asks for too much."""
    there = any(found.name == package for found in metadata.distributions())
    return pytest.mark.skipif(not there, reason=f"pip install --no-deps {package}")


def optimized(fun: Callable) -> Callable:
    """`jax.jit` with the optimisations that users get, and this test run does without."""
    options: dict[str, Any] = {"xla_backend_optimization_level": 3}
    if jax.__version_info__ < (0, 11):
        options["xla_cpu_use_fusion_emitters"] = True
    return jax.jit(fun, compiler_options=options)


def largest(tree: Any) -> float:
    """The largest magnitude in a tree of arrays."""
    return max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(tree))


def is_finite(tree: Any) -> bool:
    """Whether a tree of arrays has neither NaN nor inf."""
    # numpy's isfinite does not know bfloat16
    return all(bool(jax.numpy.isfinite(leaf).all()) for leaf in jax.tree.leaves(tree))


def assert_same_type(got: Any, expected: Any) -> None:
    """The same tree, and leaf by leaf the same shape and dtype."""
    types = [jax.tree.map(lambda a: (a.shape, a.dtype), tree) for tree in (got, expected)]
    assert types[0] == types[1]


def assert_same_bits(got: Any, expected: Any) -> None:
    """The same numbers, bit for bit: signs of zeros included."""
    assert_same_type(got, expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        differ = np.asarray(a).view(np.uint8) != np.asarray(b).view(np.uint8)
        assert not differ.any(), f"{differ.sum()} bytes of {differ.size} differ"


def assert_close(got: Any, expected: Any, tolerance: float = 1e-12) -> None:
    """The same to rounding: differences are in units of the largest value of the tree."""
    assert_same_type(got, expected)
    difference = jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), got, expected)
    assert largest(expected) > 0, "zeros prove nothing"
    assert largest(difference) <= tolerance * largest(expected)
