"""Settings of the whole test run, made before JAX is imported.

- `JAX_PLATFORMS=cpu` unless the caller names another platform: the tests are about mathematics.
- Eight virtual CPU devices, so that sharding is tested on a machine with one.
- LLVM does not optimise: most of the time goes into compiling programs that run once.
- 64-bit types, because the oracle is float64. A test of the types that users have by default
  asks for the fixture `default_precision`.
"""

import os
from collections.abc import Iterator

_DEVICES = "--xla_force_host_platform_device_count"

os.environ.setdefault("JAX_PLATFORMS", "cpu")
if _DEVICES not in os.environ.get("XLA_FLAGS", ""):
    flags = (os.environ.get("XLA_FLAGS", ""), f"{_DEVICES}=8", "--xla_backend_optimization_level=0")
    os.environ["XLA_FLAGS"] = " ".join(filter(None, flags))

import jax  # noqa: E402  (the lines above must come first)
import numpy as np  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_enable_x64", True)


@pytest.fixture
def rng() -> np.random.Generator:
    """A random generator that is the same for every test, whatever ran before it."""
    return np.random.default_rng(0)


@pytest.fixture
def default_precision() -> Iterator[None]:
    """JAX as users have it by default: 32-bit types."""
    with jax.enable_x64(False):
        yield
