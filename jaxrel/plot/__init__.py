"""Pictures of relevance: heatmaps, overlays, grids of both, words, and where it goes by layer.

    jaxrel.plot.heatmap(relevance, percentile=99.5)                    # (H, W) or (H, W, C)
    jaxrel.plot.overlay(image, relevance)                              # on the grey picture
    jaxrel.plot.grid(images, {"lrp": r, "gradient": g}).savefig("maps.png")
    jaxrel.plot.tokens(pieces, {"lrp": r, "gradient": g}).save("words.html")  # coloured text
    jaxrel.plot.graph(graph)                                           # what places hand on
    jaxrel.plot.waterfall(audit)                                       # from the value to the sum

Colours mean the same everywhere: red is positive, blue negative, and zero is the colour map's
middle, for the limits are always symmetric. By default they are the largest magnitude; as a few
extreme pixels then make all others invisible, ``percentile`` lets the colours end earlier, and the
magnitudes beyond it look like the limit. Colour channels are added, never averaged: what is drawn
still sums to what was explained.

Relevance may be any real array, of JAX or numpy and of any precision; a NaN or an infinity raises
rather than leaves a hole. ``axes=None`` draws into pyplot's current axes where they are empty, and
into a new figure where they are not, so that nothing is drawn over. matplotlib is an extra,
imported by the first picture: ``pip install "jaxrel[plot]"``. Words need it for a PNG only.
"""

import typing

from .. import errors
from .graphs import graph as graph
from .images import grid as grid
from .images import heatmap as heatmap
from .images import overlay as overlay
from .tokens import Tokens as Tokens
from .tokens import tokens as tokens
from .waterfall import waterfall as waterfall

__all__ = [
    "graph",
    "Tokens",
    "grid",
    "heatmap",
    "overlay",
    "tokens",
    "waterfall",
]


def __dir__() -> list[str]:
    return sorted(__all__)


if not typing.TYPE_CHECKING:  # to a type checker every name would be known

    def __getattr__(name: str) -> object:
        raise errors.no_attribute(__name__, name)
