"""Training with relevance: penalties, references, and a loss with one shared forward pass.

    loss = relevance_loss(fun, "compare_to_baseline", outside_sum_squared, weight=0.1)
    reference = swap_background(key, images, masks)
    (total, outcome), grads = jax.value_and_grad(loss, has_aux=True)(
        params, images, labels, masks, baseline=reference
    )

    penalties    what is wrong with a relevance, given a mask: one number for each example
    references   what to compare with: blank, blurred, noise, mean, another, another background
    tolerance    masks that are loose: erosion by a random number of pixels
    weak         better masks from loose ones and from boxes, by what pixels look like
    loss         task loss, penalty and metrics together; gradient accumulation

Judge the result by what the network does (swap the background and count the flips), never by the
relevance that was trained: without a reference, every penalty here can be satisfied by a network
that decides by the background. `h = relu(object - M background)` shows how: where it is alive its
relevance is the object's, and the background decides whether it is alive. Relevance against a
reference compares two states of that unit and finds the background. If the reference differs by
the background alone, the background's relevance adds up to the change of the output, so that its
square cannot be small while the background matters. Its absolute value can stay large even then,
because parts of it cancel, and so it punishes what does no harm.
"""

import typing

from .. import errors
from .loss import Outcome as Outcome
from .loss import accumulate as accumulate
from .loss import margin as margin
from .loss import relevance_loss as relevance_loss
from .penalties import energy as energy
from .penalties import in_mask_share as in_mask_share
from .penalties import in_range_foreground as in_range_foreground
from .penalties import isnet as isnet
from .penalties import outside_absolute as outside_absolute
from .penalties import outside_absolute_squared as outside_absolute_squared
from .penalties import outside_share as outside_share
from .penalties import outside_sum_absolute as outside_sum_absolute
from .penalties import outside_sum_squared as outside_sum_squared
from .penalties import ranked_background as ranked_background
from .penalties import right_reasons as right_reasons
from .references import another as another
from .references import blank as blank
from .references import blur as blur
from .references import fill_background as fill_background
from .references import mean as mean
from .references import noise as noise
from .references import on_background as on_background
from .references import swap_background as swap_background
from .tolerance import dilate as dilate
from .tolerance import erode as erode
from .tolerance import erode_at_random as erode_at_random
from .weak import Registration as Registration
from .weak import in_boxes as in_boxes
from .weak import register as register
from .weak import register_each as register_each

__all__ = [
    "Outcome",
    "Registration",
    "accumulate",
    "another",
    "blank",
    "blur",
    "dilate",
    "energy",
    "erode",
    "erode_at_random",
    "fill_background",
    "in_boxes",
    "in_mask_share",
    "in_range_foreground",
    "isnet",
    "margin",
    "mean",
    "noise",
    "on_background",
    "outside_absolute",
    "outside_absolute_squared",
    "outside_share",
    "outside_sum_absolute",
    "outside_sum_squared",
    "ranked_background",
    "register",
    "register_each",
    "relevance_loss",
    "right_reasons",
    "swap_background",
]


def __dir__() -> list[str]:
    return sorted(__all__)


if not typing.TYPE_CHECKING:  # to a type checker every name would be known

    def __getattr__(name: str) -> object:
        raise errors.no_attribute(__name__, name)
