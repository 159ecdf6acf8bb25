"""`plot.graph`: what places hand on, drawn."""

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest

import jaxrel

matplotlib.use("Agg")


def _net(x):
    with jax.named_scope("a"):
        a = jnp.tanh(x @ jnp.array([[1.0, 2.0], [0.5, -1.0]]))
    with jax.named_scope("b"):
        b = jax.nn.relu(a @ jnp.array([[1.0, -1.0], [2.0, 1.0]]))
    return (a + b) @ jnp.array([1.0, 3.0])


def test_a_graph_has_its_nodes_and_edges():
    found = jaxrel.graph(_net, "slope", {"a": -1, "b": None})(jnp.array([[1.0, -0.5]]))
    axes = jaxrel.plot.graph(found, share=1.0)
    texts = [text.get_text() for text in axes.texts]
    assert [t.split("\n")[0] for t in texts if t] == ["x", "a[0]", "a[1]", "b", "output"]
    assert texts.count("") == np.count_nonzero(found.edges)
    heights = {t.get_text().split("\n")[0]: t.get_position()[1] for t in axes.texts if t.get_text()}
    assert heights["x"] < heights["a[0]"] == heights["a[1]"] < heights["b"] < heights["output"]
    fewer = jaxrel.plot.graph(found, share=0.3)
    assert [t.get_text() for t in fewer.texts].count("") < texts.count("")


def test_what_is_no_graph_is_told():
    with pytest.raises(TypeError, match="jaxrel.graph"):
        jaxrel.plot.graph(jnp.ones(3))
    found = jaxrel.graph(_net, "slope", "a")(jnp.array([[1.0, -0.5]]))
    with pytest.raises(ValueError, match="share"):
        jaxrel.plot.graph(found, share=2)


def test_a_graph_is_a_table_too():
    found = jaxrel.graph(_net, "slope", "a")(jnp.array([[1.0, -0.5]]))
    assert "from output" in str(found)
    assert found._repr_html_().startswith("<table")
