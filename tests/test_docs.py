"""The code in `docs/` runs, and does what is said."""

import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrel import relevance
from tests.checks import needs

DOCS = pathlib.Path(__file__).parent.parent / "docs"


def run(name: str) -> dict[str, Any]:
    """What the blocks of a page define, run one after the other."""
    made: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", (DOCS / name).read_text(), flags=re.DOTALL):
        exec(compile(block, name, "exec"), made)
    return made


@pytest.mark.usefixtures("default_precision")
def test_recipes():
    made = run("recipes.md")
    fun, images = made["fun"], made["images"]
    value = fun(images).sum()

    biases = sum(m.sum() for m in made["maps"].values())
    head = made["variables"]["params"]["layers_5"]["bias"][3] * len(images)
    np.testing.assert_allclose(made["of_input"].sum() + biases + head, value, rtol=1e-4)
    assert made["saliency"].shape == (4, 16, 16)
    account = sum(map(jnp.sum, jax.tree.leaves((made["whole"], made["ledger"]))))
    np.testing.assert_allclose(account, value, rtol=1e-4)
    np.testing.assert_allclose(
        made["maps"]["layers_0"].sum((0, 1, 2)), made["ledger"]["layers_0"], rtol=1e-3, atol=1e-5
    )

    kernel = made["of_parameters"]["params"]["layers_5"]["kernel"]  # of a last layer: all it makes
    np.testing.assert_allclose(kernel.sum(), value - head, rtol=1e-4)
    whole = made["jaxrel"].relevance(fun, "epsilon_plus")(images)
    np.testing.assert_allclose(made["concepts"].sum(0), whole, rtol=1e-3, atol=1e-4)
    change = fun(images) - fun(made["corrupted"])
    np.testing.assert_allclose(made["exact"].sum((1, 2, 3)), change, rtol=1e-3, atol=1e-5)
    assert set(made["patching"]) == {"layers_0", "layers_2", "layers_5"}


def by_hand(leaves: Any, tokens: jax.Array) -> jax.Array:
    """Relevance of the tokens of the page's network, split behind its table."""
    parameters: dict[int, jax.Array] = {}
    for leaf in map(jnp.asarray, leaves):
        order = sorted(leaf.shape, reverse=True)  # equinox has weights the other way round
        parameters[leaf.size] = leaf if leaf.shape == tuple(order) else leaf.T
    table, hidden, head = (parameters[size] for size in (80, 48, 12))
    b, c = parameters[6], parameters[2]

    def rest(h: jax.Array) -> jax.Array:
        return (jnp.tanh(h @ hidden + b).mean(1) @ head + c)[:, 0]

    return relevance(rest, "slope")(table[tokens]).sum(-1)


@needs("keras")
@pytest.mark.usefixtures("default_precision")
def test_the_same_lines_explain_a_token_model_of_every_library():
    made = run("token_models.md")
    leaves = {
        "linen": jax.tree.leaves(made["learned"]),
        "nnx": jax.tree.leaves(made["in_nnx"]),
        "equinox": jax.tree.leaves(made["in_equinox"]),
        "haiku": jax.tree.leaves(made["weights"]),
        "keras": [variable.value for variable in made["in_keras"].variables],
    }
    assert set(made["of_words"]) == set(leaves)
    for library, found in made["of_words"].items():
        want = by_hand(leaves[library], made["tokens"])
        assert found.shape == made["tokens"].shape
        np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-6, err_msg=library)


@pytest.mark.usefixtures("default_precision")
def test_metrics():
    made = run("metrics.md")
    assert made["morf"].shape == (6, 33) and made["regions"].shape == (6, 11)
    np.testing.assert_allclose(made["morf"][:, -1], made["lerf"][:, -1], rtol=1e-4, atol=1e-6)
    assert made["scores"]["sensitivity-n"].shape == (6, 3)
    np.testing.assert_allclose(made["scores"]["cascading"][0], 1, rtol=1e-5)
    np.testing.assert_allclose(made["curve"][-1], 1, rtol=1e-4)
    first = np.moveaxis(made["attributions"], 1, -1)
    np.testing.assert_allclose(first, made["heatmaps"], rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("default_precision")
def test_a_rule_in_ten_lines():
    made = run("CONTRIBUTING.md")
    x = made["x"]
    np.testing.assert_allclose(made["clipped"], x * np.minimum(np.sinh(x) / x, 1.2), rtol=1e-6)
