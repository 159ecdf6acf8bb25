"""A network whose explanation is perfect and whose decision is the background.

    h_A = relu(object - M snow)      h_B = relu(object - M grass)      logits = +-(h_A - h_B)

On a picture with grass (snow = 0) h_A is the object's evidence and h_B, for a large M, is dead. So
the margin is h_A, which is a function of the object alone wherever it is alive: LRP by any rule of
the epsilon kind, slope, gradient times input, the gradient itself all find the object's pixels and
nothing else, and the relevances add up to the margin. But the sign of the margin is that of
(snow - grass): exchange the background and the answer changes, whatever the animal.

Against zero the explanation is true, and useless: it says where the value of a live unit comes
from and not what keeps the other unit dead. Against the same picture with the other background,
the change goes through the weights M, and the whole of it is found in the background.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxrel import relevance

STRENGTH = 100.0
"""M: how strongly a background kills the other's unit."""

SIDE = 12


def detectors() -> dict[str, jax.Array]:
    """The three linear detectors, (12, 12, 2) weights of an object and a background channel."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    inside = ((rows - 5.5) ** 2 + (columns - 5.5) ** 2 < 14).astype(np.float32)
    outside = 1 - inside
    zeros = np.zeros_like(inside)
    stack = {
        "object": np.stack([inside, zeros, zeros], -1) / inside.sum(),
        "grass": np.stack([zeros, outside, zeros], -1) / outside.sum(),
        "snow": np.stack([zeros, zeros, outside], -1) / outside.sum(),
    }
    return {name: jnp.asarray(weights) for name, weights in stack.items()}


def logits(x: jax.Array) -> jax.Array:
    """The network: (N, 12, 12, 3) pictures, of object, grass and snow, to (N, 2) logits."""
    found = {name: (x * weights).sum((1, 2, 3)) for name, weights in detectors().items()}
    h_a = jax.nn.relu(found["object"] - STRENGTH * found["snow"])
    h_b = jax.nn.relu(found["object"] - STRENGTH * found["grass"])
    return jnp.stack([h_a - h_b, h_b - h_a], axis=-1)


def scenes() -> tuple[jax.Array, jax.Array]:
    """One object on grass and on snow: (2, 12, 12, 3) pictures, (2, 12, 12, 1) masks."""
    mask = (detectors()["object"][..., :1] > 0).astype(jnp.float32)
    texture = jnp.asarray(np.random.default_rng(0).uniform(0.5, 1, (2, SIDE, SIDE)), jnp.float32)
    on = [
        jnp.concatenate(
            [mask, *(texture[k, ..., None] * (1 - mask) * (k == i) for k in (0, 1))], -1
        )
        for i in (0, 1)
    ]
    return jnp.stack(on), jnp.stack([mask, mask])


def explanations() -> dict[str, jax.Array]:
    """The first logit's relevance in both scenes, (2, 12, 12, 3), by zero and by a reference."""
    x, _ = scenes()

    def first(x: jax.Array) -> jax.Array:
        return logits(x)[:, 0]

    zero = {rules: relevance(first, rules)(x) for rules in ("gradient", "lrp", "slope")}
    return zero | {"compare_to_baseline": relevance(first, baseline=x[::-1])(x)}


def figure(path: Path) -> None:
    """Draw the two scenes and what is said about them."""
    from matplotlib.figure import Figure

    x, _ = scenes()
    answers, found = logits(x)[:, 0], explanations()
    picture = Figure(figsize=(11, 4.6), layout="constrained")
    axes = picture.subplots(2, 1 + len(found))
    for row, name in enumerate(("grass", "snow")):
        axes[row, 0].imshow(x[row] * jnp.array([1.0, 0.7, 1.0]))
        axes[row, 0].set_title(f"on {name}: logit {answers[row]:+.2f}", fontsize=9)
        for axis, (rules, relevances) in zip(axes[row, 1:], found.items(), strict=True):
            heat = np.asarray(relevances[row].sum(-1))
            limit = np.abs(heat).max()
            axis.imshow(heat, cmap="bwr", vmin=-limit, vmax=limit)
            inside = np.abs(heat[np.asarray(x[row, ..., 0]) > 0]).sum() / np.abs(heat).sum()
            axis.set_title(f"{rules}\n{inside:.0%} on the object", fontsize=9)
    for axis in axes.flat:
        axis.set_axis_off()
    picture.suptitle("relu(object - M snow) - relu(object - M grass)")
    picture.savefig(path, dpi=120)
