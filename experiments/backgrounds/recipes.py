"""The ways of training that are compared: rows of the table.

A recipe is a loss for a batch, what it needs to know (`information`), and the weights that are
tried. `none` is the pictures and labels; `masks` the training pictures' masks besides, and nothing
else; `masks+backgrounds` fresh empty backgrounds of every kind too; `oracle` pictures without the
confounding.

The references of the relevance recipes come from the training pictures and masks:

    swap      the same animal on the background of a picture of the other class, whose animal is
              removed (`jaxrel.training.swap_background`); swap_mean fills it with the mean
    any       the same, of any other picture: what is trained on alone, with no relevance
    another   simply another training picture, of the other class: no compositing
    near      the same, one of the sixteen whose animals overlap most: no compositing
    blank, blur, noise, mean   of `jaxrel.training.references`

Without compositing, what may be relevant is what either of the two animals covers, less the other's
border if it is trimmed: where that lies over the picture's own background, a network finds it.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.backgrounds import inside, masks
from experiments.backgrounds.network import apply
from experiments.backgrounds.pictures import Data
from jaxrel import RuleSet, rulesets, training
from jaxrel.rules import ZPlus

Arrays = Mapping[str, jax.Array]
Loss = Callable[[Any, jax.Array, jax.Array, Arrays, jax.Array], jax.Array]

RULES: dict[str, RuleSet] = {
    "gradient": rulesets.gradient(),
    "slope": rulesets.slope(),
    "epsilon": rulesets.epsilon(1e-2),
    "zplus": RuleSet(matmul=ZPlus()),
    "baseline": rulesets.compare_to_baseline(),
}
"""Rule sets by the names in the table; `gradient` means the gradient, not times the input."""

PENALTIES: dict[str, training.loss.Penalty] = {
    f.__name__: f
    for f in (
        training.outside_share,
        training.outside_absolute,
        training.outside_absolute_squared,
        training.energy,
        training.isnet,
        training.right_reasons,
        training.outside_sum_absolute,
        training.outside_sum_squared,
    )
}

_OF_SUMS = ("outside_sum_absolute", "outside_sum_squared")
_NEAREST = 16


class Recipe(NamedTuple):
    """A row of the table.

    Attributes:
        name: Column `recipe`; unique.
        information: Column `information`.
        rules: A name in `RULES`, or empty.
        penalty: A name in `PENALTIES`, or in `inside.WAYS`, or `pairing`, or empty.
        reference: What is compared with, or empty.
        weights: The lambdas that are tried.
        counterfactual: Weight of the task loss without the background's relevance.
        masks: Which masks it is given; see `experiments.backgrounds.masks`.
        proposes: Whether it makes masks of its own of these.
        tolerances: The ranges of pixels that are tried: how far a mask is eroded, by chance, before
            it makes a reference and a penalty.
        doubt: How many pixels the masks may be off, at most.
        trimmed: How many pixels the other animal's mask is eroded by, without compositing.
        correlation: Of class and background in its training pictures.
        patience: How many times as many epochs it is trained for.
        dtype: What the network computes in while it is trained; its parameters are float32.
    """

    name: str
    information: str
    rules: str = ""
    penalty: str = ""
    reference: str = ""
    weights: tuple[float, ...] = (0.0,)
    counterfactual: float = 0.0
    masks: str | float = "true"
    proposes: bool = False
    tolerances: tuple[tuple[int, int], ...] = ((0, 0),)
    doubt: int = 0
    trimmed: int = 0
    correlation: float = 1.0
    patience: int = 1
    dtype: str = "float32"


BEST = Recipe(
    "compare+counterfactual",
    "masks",
    "baseline",
    "outside_sum_squared",
    "swap",
    (0.01, 0.1, 1.0),
    1.0,
)
"""The recommended recipe; which it is was settled on pilots."""

NEAR = Recipe("compare-near", "masks", "baseline", "outside_sum_squared", "near", (0.3, 1.0, 3.0))

NO_COMPOSITING = NEAR._replace(
    name="compare-near+counterfactual:trimmed", counterfactual=1.0, trimmed=1
)
"""The recommended recipe without compositing; pilots settled the trimming."""

GAMED = Recipe(
    "zplus:outside_share:patient", "masks", "zplus", "outside_share", "", (10.0,), patience=3
)
"""The essay's failure, given time."""


def arrays(recipe: Recipe, data: Data, seed: int) -> dict[str, jax.Array]:
    """Collect what a recipe's loss may look at; its `information` says how much that is.

    Args:
        recipe: The recipe.
        data: The pictures.
        seed: Of the choice of masks, and of the oracle's backgrounds.
    """
    rng = np.random.default_rng([seed, 2])
    train = data.train
    count = len(train.labels)
    found = {"images": train.images, "labels": train.labels}
    if recipe.information == "oracle":
        chosen = rng.integers(0, 2, count)
        found["images"] = data.alternatives[chosen, np.arange(count)]
    if recipe.information == "masks+backgrounds":
        found["alternatives"] = data.alternatives
    if recipe.information != "none":
        made = known_masks(recipe, data, seed)
        found["masks"] = made.train
        if made.known is not None:
            found["known"] = made.known
    if recipe.reference == "near":
        found["near"] = nearest(found["masks"], train.labels)
    return {name: jnp.asarray(array) for name, array in found.items()}


def known_masks(recipe: Recipe, data: Data, seed: int) -> masks.Masks:
    """The masks a recipe works with: those it is given, or those it makes of them."""
    key = (id(data.train.images), recipe.masks, recipe.proposes, seed)
    if key not in _MADE:
        if len(_MADE) > 3:
            _MADE.clear()
        made = masks.given(recipe.masks, data, seed)
        if recipe.proposes:
            made = masks.proposed(recipe.masks, made, data, seed)
        _MADE[key] = data, made
    return _MADE[key][1]


_MADE: dict[tuple, tuple[Data, masks.Masks]] = {}
"""The last few: to propose masks takes as long as to train a network. Data so that its id lasts."""


def nearest(masks: np.ndarray, labels: np.ndarray, count: int = _NEAREST) -> np.ndarray:
    """For each picture those of the other class whose animals overlap most with its own."""
    flat = masks.reshape(len(masks), -1)
    shared, areas = flat @ flat.T, flat.sum(1)
    overlap = shared / (areas[:, None] + areas - shared)
    overlap[labels[:, None] == labels] = -1
    return np.argpartition(-overlap, count, axis=1)[:, :count].astype(np.int32)


def anonymous(recipe: Recipe) -> Recipe:
    """A recipe less what its loss does not depend on: equal ones are compiled once."""
    same = {"name": "", "weights": (), "correlation": 1.0, "patience": 1}
    return recipe._replace(**same, masks="", proposes=False, doubt=0)


Swap = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]
"""From a key, pictures, masks and labels to the same objects with another nuisance."""


@functools.lru_cache(maxsize=2)
def loss(
    recipe: Recipe,
    network: Callable[[Any, jax.Array], jax.Array] = apply,
    swap: Swap = training.swap_background,
) -> Loss:
    """Build a recipe's loss of a batch. The same function for the same arguments.

    Args:
        recipe: What to minimise.
        network: From parameters and pictures to logits.
        swap: How composites are made.

    Returns:
        A function of parameters, a random key, the (N,) indices of the batch, `arrays`, and lambda.
    """
    if recipe.dtype != "float32":
        network = _computed_in(recipe.dtype, network)
    if recipe.rules:
        return _relevance(recipe, network, swap)
    if recipe.penalty in inside.WAYS:
        return _inside(inside.WAYS[recipe.penalty])

    def plain(params: Any, key: jax.Array, batch: jax.Array, given: Arrays, weight: jax.Array):
        x, labels = given["images"][batch], given["labels"][batch]
        other = x
        if recipe.information == "masks+backgrounds":
            background = jax.random.randint(key, labels.shape, 0, 2)
            if recipe.penalty:
                background = 1 - labels
            other = given["alternatives"][background, batch]
        elif recipe.information == "masks":
            key, mask = _tolerant(recipe, key, given["masks"][batch])
            groups = jnp.arange(len(x)) if recipe.reference == "any" else labels
            other = swap(key, x, mask, groups)
        alone = recipe.information == "masks+backgrounds" and not recipe.penalty
        if other is x or alone or recipe.reference == "any":
            return _cross_entropy(network(params, other), labels)
        logits, others = network(params, x), network(params, other)
        if recipe.penalty:
            change = training.margin(logits, labels) - training.margin(others, labels)
            return _cross_entropy(logits, labels) + weight * (change**2).mean()
        return (_cross_entropy(logits, labels) + _cross_entropy(others, labels)) / 2

    return plain


def _computed_in(dtype: str, network: Callable[[Any, jax.Array], jax.Array]) -> Callable:
    """The network computed in another dtype, its logits in float32."""

    def apply(params: Any, x: jax.Array) -> jax.Array:
        params, x = jax.tree.map(lambda leaf: leaf.astype(dtype), (params, x))
        return network(params, x).astype(jnp.float32)

    return apply


def _inside(way: inside.Way) -> Loss:
    """The loss of a recipe that looks inside `Network()`."""

    def penalised(params: Any, key: jax.Array, batch: jax.Array, given: Arrays, weight: jax.Array):
        x, masks, labels = (given[name][batch] for name in ("images", "masks", "labels"))
        logits, penalty = way(params, key, x, masks, labels)
        return _cross_entropy(logits, labels) + weight * penalty.mean()

    return penalised


def _relevance(recipe: Recipe, network: Callable, swap: Swap) -> Loss:
    """The loss of a recipe with a penalty on relevance."""
    cut_out = recipe.reference.startswith("swap")  # by masks of 0 and 1: all kinds of them are
    outside_only = cut_out and recipe.rules == "baseline" and recipe.penalty in _OF_SUMS

    def relevant(params: Any, key: jax.Array, batch: jax.Array, given: Arrays, weight: jax.Array):
        unknown = 0.0
        if "known" in given:  # the task on this batch, relevance on one of the pictures with masks
            unknown = _cross_entropy(
                network(params, given["images"][batch]), given["labels"][batch]
            )
            key, choose = jax.random.split(key)
            batch = jax.random.choice(choose, given["known"], batch.shape)
        x, labels, mask = (given[name][batch] for name in ("images", "labels", "masks"))
        key, mask = _tolerant(recipe, key, mask)
        reference, mask = _reference(recipe, key, batch, given, mask, swap)
        total, _ = training.relevance_loss(
            network,
            RULES[recipe.rules],
            PENALTIES[recipe.penalty],
            weight=weight,
            counterfactual=recipe.counterfactual,
            of="multiplier" if recipe.rules == "gradient" else "relevance",
            outside_only=outside_only,
        )(params, x, labels, mask, baseline=reference)
        return total + unknown

    return relevant


def _tolerant(recipe: Recipe, key: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Masks as far as they can be trusted; a key."""
    ((low, high),) = recipe.tolerances
    if (low, high) == (0, 0):
        return key, mask
    key, draw = jax.random.split(key)
    return key, training.erode_at_random(draw, mask, low, high)


def _reference(
    recipe: Recipe, key: jax.Array, batch: jax.Array, given: Arrays, mask: jax.Array, swap: Swap
) -> tuple[jax.Array | None, jax.Array]:
    """What a batch is compared with, and the mask of what may be relevant then."""
    kind, x, labels = recipe.reference, given["images"][batch], given["labels"][batch]
    if not kind:
        return None, mask
    if kind in ("another", "near"):
        if kind == "another":
            chosen = batch[training.another(key, labels)]
        else:
            row = jax.random.randint(key, batch.shape, 0, _NEAREST)
            chosen = given["near"][batch, row]
        others = training.erode(given["masks"][chosen], recipe.trimmed)
        return given["images"][chosen], jnp.maximum(mask, others)
    if kind == "swap_mean":
        return training.swap_background(key, x, mask, labels, _mean_fill), mask
    references = {
        "swap": lambda: swap(key, x, mask, labels),
        "blank": lambda: training.blank(x, 0.5),
        "blur": lambda: training.blur(x, 3.0),
        "noise": lambda: training.noise(key, x, 0.2),
        "mean": lambda: training.mean(x),
    }
    return references[kind](), mask


def _mean_fill(x: jax.Array, mask: jax.Array) -> jax.Array:
    return training.fill_background(x, mask, "mean")


def _cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
