"""What Quantus 0.6.0 and Captum 0.9.0 gave for three networks, in float64.

`tests/golden/metrics.json` lists the calls, `tests/golden/<peer>/<net>.npz` has weights, inputs
(channels first), relevances and results.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

GOLDEN = Path(__file__).parent.parent / "golden"
CONVOLUTIONS = {  # stride and padding of the two, and the width of the pool between them
    "cnn1": ((1, 0), (2, 1), 1),
    "cnn2": ((1, 1), (1, 1), 2),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One call of a peer.

    Attributes:
        net: `<peer>/<net>`.
        name: of the result.
        metric, hyper: in the peer's words.
        relevance: the name of the explanation that is judged; None: it is computed.
        extra: names of arrays that belong to it: draws, orders.
        rows: of a randomisation, the layers.
    """

    net: str
    name: str
    metric: str
    hyper: dict[str, Any]
    relevance: str | None = None
    extra: dict[str, str] = dataclasses.field(default_factory=dict)
    rows: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> np.ndarray:
        """An array of the network, or one that belongs to this case."""
        return arrays(self.net)[self.extra.get(name, name)]

    @property
    def result(self) -> np.ndarray:
        """What the peer gave; with a stable order where it ties."""
        return self["res_stable"] if "res_stable" in self.extra else self.unstable

    @property
    def unstable(self) -> np.ndarray:
        """What the peer gave, in whatever order it took ties."""
        return self[f"res/{self.name}"]


@functools.cache
def cases() -> list[Case]:
    """All calls that are right."""
    found = json.loads((GOLDEN / "metrics.json").read_text())
    return [Case(**{**case, "rows": tuple(case.get("rows", ()))}) for case in found]


@functools.cache
def arrays(net: str) -> dict[str, np.ndarray]:
    """Everything in a network's file."""
    peer, name = net.split("/")
    with np.load(GOLDEN / peer / f"{'metrics_' if peer == 'captum' else ''}{name}.npz") as file:
        return dict(file)


def params(net: str, group: str = "w") -> dict[str, dict[str, jax.Array]]:
    """Weights by layer: trained (`w`) or fresh (`rand`)."""
    found: dict[str, dict[str, jax.Array]] = {}
    for key, value in arrays(net).items():
        if key.startswith(f"{group}/"):
            layer, name = key.removeprefix(f"{group}/").split(".")
            found.setdefault(layer, {})[name] = jnp.asarray(value)
    return found


def logits(net: str, params: Any, x: jax.Array, hidden: bool = False) -> jax.Array:
    """The network's logits, or what its last nonlinearity gives."""
    name = net.split("/")[1]
    h = x
    if name in CONVOLUTIONS:
        first, second, pool = CONVOLUTIONS[name]
        h = jax.nn.relu(_convolution(params["conv1"], h, *first))
        shape = (1, 1, pool, pool)
        h = lax.reduce_window(h, 0.0, lax.add, shape, shape, "valid") / pool**2
        h = jax.nn.relu(_convolution(params["conv2"], h, *second))
        layers = ["fc1"]
    else:
        layers = ["fc1", "fc2", "fc3"]
    h = h.reshape(len(h), -1)
    for layer in layers[:-1]:
        h = jax.nn.relu(_dense(params[layer], h))
    return h if hidden else _dense(params[layers[-1]], h)


def target(case: Case) -> Callable[[jax.Array], jax.Array]:
    """The logit of each example's label, or its probability."""
    net, y, weights = case.net, jnp.asarray(case["y"]), params(case.net)

    def fun(x: jax.Array) -> jax.Array:
        out = logits(net, weights, x)
        out = jax.nn.softmax(out) if case.hyper.get("softmax") else out
        return jnp.take_along_axis(out, y[:, None], axis=1)[:, 0]

    return fun


def explain(case: Case) -> Callable[..., jax.Array]:
    """Gradient (`grad`), or gradient times input (`gxi`), of parameters, input and labels."""

    def explained(params: Any, x: jax.Array, labels: jax.Array) -> jax.Array:
        def total(x: jax.Array) -> jax.Array:
            return jnp.take_along_axis(logits(case.net, params, x), labels[:, None], 1).sum()

        gradient = jax.grad(total)(x)
        return gradient if case.hyper["explain"] == "grad" else x * gradient

    return explained


def _convolution(layer: Any, x: jax.Array, stride: int, padding: int) -> jax.Array:
    edges = [(padding, padding)] * 2
    z = lax.conv_general_dilated(x, layer["weight"], (stride, stride), edges)
    return z + layer["bias"][:, None, None]


def _dense(layer: Any, x: jax.Array) -> jax.Array:
    return x @ layer["weight"].T + layer["bias"]
