"""The plan: a jaxpr read into steps, each of a kind that a rule set has a row for.

No arithmetic happens here; ``plan`` imports neither rules nor the executor. See
:mod:`jaxrel._plan.steps` for the data, :mod:`jaxrel._plan.build` for how it is made.
"""

from .build import build_plan as build_plan
from .steps import Plan as Plan
from .steps import Step as Step
