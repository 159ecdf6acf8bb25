"""jaxrel: why a JAX function gave its answer, as a functional transformation.

import jax, jaxrel

explain = jax.jit(jaxrel.relevance(lambda x: model.apply(variables, x)[:, 281], "slope"))
heatmap = explain(images).sum(-1)
"""

import importlib
from typing import TYPE_CHECKING, Any

from . import errors
from . import rules as rules
from . import rulesets as rulesets
from ._call.multipliers import with_multipliers as with_multipliers
from ._call.progress import progress as progress
from .api import relevance as relevance
from .api import relevance_vjp as relevance_vjp
from .api import rewrite as rewrite
from .api import summary as summary
from .api import value_and_relevance as value_and_relevance
from .around import expected as expected
from .around import integrated as integrated
from .around import smooth as smooth
from .audit import Audit as Audit
from .audit import audit as audit
from .errors import LargeRelevanceWarning as LargeRelevanceWarning
from .errors import RuleError as RuleError
from .errors import UnsupportedPrimitive as UnsupportedPrimitive
from .errors import UnusedMatchWarning as UnusedMatchWarning
from .inside import Graph as Graph
from .inside import capture as capture
from .inside import graph as graph
from .inside import linear_map as linear_map
from .rules.numerics import Stabilizer as Stabilizer
from .rulesets import First as First
from .rulesets import Kind as Kind
from .rulesets import RuleSet as RuleSet
from .verify import Verification as Verification
from .verify import verify as verify

if TYPE_CHECKING:
    from . import metrics as metrics
    from . import plot as plot
    from . import training as training

__version__ = "0.1.0"

__all__ = [
    "Audit",
    "First",
    "Graph",
    "Kind",
    "LargeRelevanceWarning",
    "RuleError",
    "RuleSet",
    "Stabilizer",
    "UnsupportedPrimitive",
    "UnusedMatchWarning",
    "Verification",
    "audit",
    "capture",
    "expected",
    "graph",
    "integrated",
    "linear_map",
    "metrics",
    "plot",
    "progress",
    "relevance",
    "relevance_vjp",
    "rewrite",
    "rules",
    "rulesets",
    "smooth",
    "summary",
    "training",
    "value_and_relevance",
    "verify",
    "with_multipliers",
    "__version__",
]

_LAZY = ("metrics", "plot", "training")
"""Imported when they are first asked for: most programs neither judge, nor draw, nor train."""


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return importlib.import_module(f".{name}", __name__)
    raise errors.no_attribute(__name__, name)


def __dir__() -> list[str]:
    return sorted(__all__)
