"""Settings of the whole test run, made before JAX is imported.

- `JAX_PLATFORMS=cpu` unless the caller names another platform: the tests are about mathematics.
- `KERAS_BACKEND=jax`, which is not its default.
- Eight virtual CPU devices, so that sharding is tested on a machine with one.
- LLVM does not optimise: most of the time goes into compiling programs that run once. An older XLA
  emits loops directly instead of by MLIR, in half the time (newer ones do not have the option).
- 64-bit types, because the oracle is float64. A test of the types that users have by default
  asks for the fixture `default_precision`.

`--full` runs every combination of rules, models and dtypes. Without it those marked `full` by
`tests.covering` are left out, and of a test with many cases a sixteenth runs, drawn once and for
all. A test that is to run on all of its cases has the mark `every_case`.
"""

import gc
import os
import zlib
from collections.abc import Iterator
from importlib import metadata

_DEVICES = "--xla_force_host_platform_device_count"

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["KERAS_BACKEND"] = "jax"
if _DEVICES not in os.environ.get("XLA_FLAGS", ""):
    flags = (os.environ.get("XLA_FLAGS", ""), f"{_DEVICES}=8", "--xla_backend_optimization_level=0")
    if metadata.version("jaxlib") < "0.11":
        flags += ("--xla_cpu_use_fusion_emitters=false",)
    os.environ["XLA_FLAGS"] = " ".join(filter(None, flags))

import jax  # noqa: E402  (the lines above must come first)
import numpy as np  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_enable_x64", True)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="every combination of rules and models")
    parser.addoption("--public", action="store_true", help="models of public packages as well")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--full"):
        return
    kept = _sample([item for item in items if not item.get_closest_marker("full")])
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]


def _sample(items: list[pytest.Item]) -> set[pytest.Item]:
    """A sample of the cases of each test, the same in every run."""
    tests: dict[str, list[pytest.Item]] = {}
    for item in items:
        tests.setdefault(item.nodeid.split("[")[0], []).append(item)
    kept: set[pytest.Item] = set()
    for cases in tests.values():
        whole = cases[0].get_closest_marker("every_case")
        count = len(cases) if whole else -(-len(cases) // 16)
        kept.update(sorted(cases, key=lambda item: zlib.crc32(item.nodeid.encode()))[:count])
    return kept


@pytest.fixture
def rng() -> np.random.Generator:
    """A random generator that is the same for every test, whatever ran before it."""
    return np.random.default_rng(0)


@pytest.fixture
def default_precision() -> Iterator[None]:
    """JAX as users have it by default: 32-bit types."""
    with jax.enable_x64(False):
        yield


@pytest.fixture
def little_garbage() -> Iterator[None]:
    """What earlier tests left is not looked through again: to collect garbage takes no time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
