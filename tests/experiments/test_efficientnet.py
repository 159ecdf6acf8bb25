"""EfficientNet-Lite0: the port's numbers, its preprocessing and its class names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data.imagenet import class_names, preprocess
from experiments.networks.efficientnet import ConvNorm, EfficientNetLite0, load_variables

# The first logits that the torch implementation `efficientnet-lite-pytorch` 0.1.0 computes in
# float64, with the same weights, from the image of `pattern`.
TORCH_LOGITS = [-1.060424, 0.332831, -1.197367, -1.920364, -1.665232, -0.180091]


@pytest.fixture(scope="module")
def variables():
    """The trained weights."""
    return load_variables()


@pytest.fixture(scope="module")
def classify(variables):
    """The compiled network."""
    return jax.jit(lambda images: EfficientNetLite0().apply(variables, images))


def pattern() -> np.ndarray:
    """Return one (1, 224, 224, 3) image whose values float32 holds exactly."""
    values = (np.arange(224 * 224 * 3) * 37 % 255 - 127) / 128
    return values.astype(np.float32).reshape(1, 224, 224, 3)


def test_logits_agree_with_the_torch_implementation(classify):
    logits = classify(pattern())
    assert logits.shape == (1, 1000) and logits.dtype == jnp.float32
    np.testing.assert_allclose(logits[0, : len(TORCH_LOGITS)], TORCH_LOGITS, atol=1e-4)
    assert int(logits.argmax()) == 556


def test_the_bundled_cat_is_a_cat(classify):
    from skimage import data

    picture = data.chelsea()
    top = int(classify(preprocess(picture)[None]).argmax())
    assert "cat" in class_names()[top].replace(",", "").split()


def test_variables_have_the_published_size(variables):
    assert set(variables) == {"params", "batch_stats"}
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == 4_652_008
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


def test_other_sizes_and_class_counts_are_possible():
    images = jax.ShapeDtypeStruct((2, 99, 65, 3), jnp.float32)
    logits, _ = jax.eval_shape(
        EfficientNetLite0(classes=7).init_with_output, jax.random.key(0), images
    )
    assert logits.shape == (2, 7)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
def test_depthwise_convolutions_as_sums_are_the_same_function(kernel, stride):
    x = jax.random.normal(jax.random.key(0), (2, 11, 8, 6))
    usual, sums = (ConvNorm(6, kernel, stride, True, shifts=shifts) for shifts in (False, True))
    variables = usual.init(jax.random.key(1), x)
    assert jax.tree.map(jnp.shape, sums.init(jax.random.key(1), x)) == (
        jax.tree.map(jnp.shape, variables)
    )
    np.testing.assert_allclose(sums.apply(variables, x), usual.apply(variables, x), atol=1e-5)


def test_the_checkpoint_of_another_network_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "experiments.networks.efficientnet.read_state_dict", lambda path: {"fc": np.ones(3)}
    )
    with pytest.raises(ValueError, match="not a checkpoint of EfficientNet-Lite0"):
        load_variables(tmp_path)
