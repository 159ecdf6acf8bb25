"""Which rule a step gets: rule sets, what their rules are matched by, and the presets.

    rules = rulesets.slope() | {Kind("conv"): Epsilon(1e-3), First(): Gradient(), "silu": Ignore()}

The presets are functions of their hyper-parameters; where jaxrel takes a rule set, a preset's name
means its defaults.

    ruleset     what a rule set is
    matching    what overrides are matched by, and which wins
    presets     the rule sets of the literature
    assign      the rule of every step of a plan
"""

import typing

from .. import errors
from . import presets as presets
from .matching import First as First
from .matching import Kind as Kind
from .presets import *  # noqa: F403 - the presets, and nothing else
from .ruleset import RuleSet as RuleSet

__all__ = ["First", "Kind", "RuleSet"]
__all__ += presets.__all__


def __dir__() -> list[str]:
    return sorted(__all__)


if not typing.TYPE_CHECKING:  # to a type checker every name would be known

    def __getattr__(name: str) -> object:
        raise errors.no_attribute(__name__, name)
