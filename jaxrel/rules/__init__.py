"""The mathematics: how each kind of step sends a multiplier back.

Every rule is in one file of its kind, 3 to 12 lines; :mod:`jaxrel.rules.base` tells what a rule is,
:mod:`jaxrel.rules.view` what it sees.
"""

import typing

from .. import errors
from .base import Detach as Detach
from .base import Gradient as Gradient
from .base import Rule as Rule
from .base import RuleFunction as RuleFunction
from .base import Unit as Unit
from .base import rule as rule
from .general import PathIntegral as PathIntegral
from .matmul import Epsilon as Epsilon
from .matmul import Norm as Norm
from .matmul import Normalized as Normalized
from .matmul import Pass as Pass
from .maximum import AbsoluteValue as AbsoluteValue
from .maximum import CrossMax as CrossMax
from .maximum import Radial as Radial
from .maximum import Shapley as Shapley
from .maximum import SoftmaxLimit as SoftmaxLimit
from .nonlinearity import BetaSmooth as BetaSmooth
from .nonlinearity import GuidedRelu as GuidedRelu
from .nonlinearity import Ignore as Ignore
from .nonlinearity import Repeat as Repeat
from .nonlinearity import Rescale as Rescale
from .nonlinearity import RevealCancel as RevealCancel
from .nonlinearity import Slope as Slope
from .numerics import Stabilizer as Stabilizer
from .parts import Absolute as Absolute
from .parts import AlphaBeta as AlphaBeta
from .parts import Gamma as Gamma
from .parts import GeneralizedGamma as GeneralizedGamma
from .parts import PositiveWeights as PositiveWeights
from .parts import ZPlus as ZPlus
from .product import ByDegree as ByDegree
from .product import First as First
from .product import Half as Half
from .product import Midpoint as Midpoint
from .product import Second as Second
from .softmax import LogMean as LogMean
from .softmax import Tempered as Tempered
from .unit import Flat as Flat
from .unit import WSquare as WSquare
from .unit import ZBox as ZBox
from .view import View as View

__all__ = [
    "Absolute",
    "AbsoluteValue",
    "AlphaBeta",
    "BetaSmooth",
    "ByDegree",
    "CrossMax",
    "Detach",
    "Epsilon",
    "First",
    "Flat",
    "Gamma",
    "GeneralizedGamma",
    "Gradient",
    "GuidedRelu",
    "Half",
    "Ignore",
    "LogMean",
    "Midpoint",
    "Norm",
    "Normalized",
    "Pass",
    "PathIntegral",
    "PositiveWeights",
    "Radial",
    "Repeat",
    "Rescale",
    "RevealCancel",
    "Rule",
    "RuleFunction",
    "Second",
    "Shapley",
    "Slope",
    "SoftmaxLimit",
    "Stabilizer",
    "Tempered",
    "Unit",
    "View",
    "WSquare",
    "ZBox",
    "ZPlus",
    "rule",
]


def __dir__() -> list[str]:
    return sorted(__all__)


if not typing.TYPE_CHECKING:  # to a type checker every name would be known

    def __getattr__(name: str) -> object:
        raise errors.no_attribute(__name__, name)
