"""jaxrel: why a JAX function gave its answer, as a functional transformation.

import jax, jaxrel

explain = jax.jit(jaxrel.relevance(lambda x: model.apply(variables, x)[:, 281], "slope"))
heatmap = explain(images).sum(-1)
"""

from . import rules as rules
from . import rulesets as rulesets
from .api import relevance as relevance
from .api import relevance_vjp as relevance_vjp
from .api import rewrite as rewrite
from .api import summary as summary
from .api import value_and_relevance as value_and_relevance
from .audit import Audit as Audit
from .audit import audit as audit
from .errors import RuleError as RuleError
from .errors import UnsupportedPrimitive as UnsupportedPrimitive
from .errors import UnusedMatchWarning as UnusedMatchWarning
from .matching import First as First
from .matching import Kind as Kind
from .numerics import Stabilizer as Stabilizer
from .ruleset import RuleSet as RuleSet

__version__ = "0.1.0"
