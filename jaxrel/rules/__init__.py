"""The mathematics: how each kind of step sends a multiplier back.

Every rule is in one file of its kind, 3 to 12 lines; :mod:`jaxrel.rules.base` tells what a rule is.
"""

from .base import Detach as Detach
from .base import Gradient as Gradient
from .base import Rule as Rule
from .base import RuleFunction as RuleFunction
from .base import View as View
from .base import rule as rule
from .matmul import Epsilon as Epsilon
from .matmul import Normalized as Normalized
from .maximum import AbsoluteValue as AbsoluteValue
from .maximum import Radial as Radial
from .maximum import Shapley as Shapley
from .maximum import SoftmaxLimit as SoftmaxLimit
from .nonlinearity import GuidedRelu as GuidedRelu
from .nonlinearity import Ignore as Ignore
from .nonlinearity import Repeat as Repeat
from .nonlinearity import Slope as Slope
from .product import First as First
from .product import Half as Half
from .product import Second as Second
