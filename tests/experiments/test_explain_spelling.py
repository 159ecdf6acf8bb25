"""`experiments.explain_spelling`: its network, its cases, and its command line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrel
from experiments import explain_spelling
from experiments.networks.pronouncer import PHONEMES, STOP, Pronouncer, load_variables, spell
from experiments.spelling import cases, judged

pytestmark = pytest.mark.usefixtures("default_precision")

# What the package's own numpy code says; "activationist" is its own example.
SAID = {
    "activationist": "AE2 K T IH0 V EY1 SH AH0 N IH0 S T",
    "knowledge": "N AA1 L IH0 JH",
    "fox": "F AA1 K S",
}


@pytest.fixture(scope="module")
def variables():
    return load_variables()


@pytest.fixture(scope="module")
def found(variables):
    return judged.read(variables, list(SAID))


def test_words_are_pronounced_as_by_the_package(found):
    assert [" ".join(judged.pronunciation(row)) for row in found.said] == list(SAID.values())
    assert found.words.shape == (3, 14) and found.said.shape == (3, 13)
    assert (found.said == STOP).any(1).all()


def test_padding_and_given_phonemes_change_nothing(variables, found):
    alone = Pronouncer().apply(variables, spell("fox"), jnp.asarray(found.spoken[2, :5]))
    padded = Pronouncer().apply(variables, found.words[2], jnp.asarray(found.spoken[2]))
    np.testing.assert_allclose(alone, padded[:5], atol=1e-5)
    np.testing.assert_array_equal(alone.argmax(1), found.said[2, :5])


def test_letters_phonemes_and_biases_add_up_to_the_logit(variables, found):
    def logit(word, spoken):
        return Pronouncer().apply(variables, word, spoken)[2, found.said[2, 2]]

    word, spoken = jnp.asarray(found.words[2, :4]), jnp.asarray(found.spoken[2, :5])
    places = ("letters", "phonemes")
    explain = jaxrel.value_and_relevance(logit, "slope", at=places, argnums=(), biases=True)
    value, (inside, biases) = jax.jit(explain)(word, spoken)
    parts = [float(r.sum()) for r in jax.tree.leaves((inside, biases))]
    assert set(inside) == set(places) and len(parts) > 8
    np.testing.assert_allclose(sum(parts), value, rtol=1e-4)


@pytest.mark.full
def test_against_unknown_letters_relevance_is_what_they_change(variables, found):
    word, spoken = jnp.asarray(found.words[0]), jnp.asarray(found.spoken[0])
    rules = judged.rule_set("compare_to_baseline", variables)
    multipliers = jax.nn.one_hot(found.said[0], len(PHONEMES)) * jnp.eye(13)[:, :, None]
    relevance = judged.explainer(variables, rules, "unknown")(word, spoken, multipliers)
    logits = [Pronouncer().apply(variables, w, spoken) for w in (word, judged.unknown(word))]
    steps = np.arange(13)
    changed = (logits[0] - logits[1])[steps, found.said[0]]
    assert relevance.shape == (13, 14)
    np.testing.assert_allclose(relevance.sum(1), changed, atol=1e-3)
    assert not relevance[:, 13:].any()  # the end mark is the same in both


def test_a_case_has_one_letter_and_no_rival():
    words = ["cat", "doll", "phi", "bad", "bed", "knock"]
    names = ("K AE1 T", "D AA1 L", "F AY1", "B AE1 D", "B EH1 D", "N AA1 K")
    said = np.full((6, 4), STOP)
    for row, spoken in zip(said, names, strict=True):
        indices = [PHONEMES.index(name) for name in spoken.split()]
        row[: len(indices)] = indices
    chosen = cases.cases(words, said, 10)
    made = {(words[w], PHONEMES[said[w, p]], words[w][k]) for w, p, k in zip(*chosen, strict=True)}
    # "cat" has a c and no k; "doll" two l's; "phi" no f; "knock" a second k, and a c
    assert made == {
        ("cat", "T", "t"), ("doll", "D", "d"), ("bad", "B", "b"), ("bad", "D", "d"),
        ("bed", "B", "b"), ("bed", "D", "d"), ("knock", "N", "n"),
    }  # fmt: skip
    assert len(cases.cases(words, said, 1).words) == 4
    unfinished = np.where(said == STOP, PHONEMES.index("AH0"), said)
    assert not len(cases.cases(words, unfinished, 10).words)


def test_there_are_words_enough():
    words = cases.words()
    assert words == sorted(words) and len(set(words)) == len(words) > 2000
    assert {"absent", "goldfish"} < set(words)
    for word in words:
        spell(word, 15)


def test_a_preset_is_judged(variables, found):
    chosen = cases.cases(list(SAID), found.said, 10)
    row = judged.judge(variables, found, chosen, "slope", "unknown")
    assert row is not None and row.logit == row.logit_end == 1
    assert judged.judge(variables, found, chosen, "compare_to_baseline", "zero") is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--words", "naïve"], "'naïve': expected the letters a to z"),
        (["--words", ","], "--words names nothing"),
        (["--rules", "magic"], "No preset is called 'magic'"),
        (["--rules", "deeplift_rescale", "--reference", "zero"], "baseline"),
        (["--output", "missing/folder"], "there is no such directory"),
    ],
)
def test_a_wrong_argument_ends_in_one_line(arguments, message, capsys, tmp_path):
    output = [] if "--output" in arguments else ["--output", str(tmp_path)]
    assert explain_spelling.main(["--words", "fox", *arguments, *output]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1 and not captured.out


def test_from_the_command_line(tmp_path, capsys):
    arguments = ["--words", "fox", "--rules", "slope", "--output", str(tmp_path)]
    assert explain_spelling.main(arguments) == 0
    assert "F(f)" in capsys.readouterr().out
    assert (tmp_path / "explain_spelling.png").exists()


def test_weights_that_are_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        load_variables(tmp_path / "none.npz")
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    with pytest.raises(ValueError, match="other.npz: not the network of g2p-en"):
        load_variables(tmp_path / "other.npz")
