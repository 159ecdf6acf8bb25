"""jaxrel: why a JAX function gave its answer, as a functional transformation.

import jax, jaxrel

explain = jax.jit(jaxrel.relevance(lambda x: model.apply(variables, x)[:, 281], "slope"))
heatmap = explain(images).sum(-1)
"""

import importlib
from typing import TYPE_CHECKING, Any

from . import rules as rules
from . import rulesets as rulesets
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
from .errors import RuleError as RuleError
from .errors import UnsupportedPrimitive as UnsupportedPrimitive
from .errors import UnusedMatchWarning as UnusedMatchWarning
from .matching import First as First
from .matching import Kind as Kind
from .numerics import Stabilizer as Stabilizer
from .ruleset import RuleSet as RuleSet

if TYPE_CHECKING:
    from . import plot as plot

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Imports ``jaxrel.plot`` when it is first asked for: most programs draw nothing."""
    if name == "plot":
        return importlib.import_module(".plot", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
