"""Words coloured by relevance: what they show where, and what is refused."""

import re
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib import image

from jaxrel import plot
from jaxrel.plot import colors
from jaxrel.plot.tokens import Tokens

WORDS = ["a", "gen", "##er", "##ous", "<p>&"]
R = np.array([0.5, 1.0, -3.0, 0.25, 4.0])


def plain(text: str) -> str:
    """What a terminal shows of a text, without its colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def painted(text: str) -> list[tuple[str, tuple[int, ...]]]:
    """The coloured stretches of a text and their backgrounds."""
    found = re.findall(r"\x1b\[48;2;(\d+);(\d+);(\d+);38;2;[\d;]+m(.*?)\x1b\[0m", text)
    return [(word, tuple(map(int, back))) for *back, word in found]


def test_relevance_of_pieces_is_added():
    (row,) = plot.tokens(WORDS, R).rows
    assert row.words == ("a", "generous", "<p>&") and row.relevance == (0.5, -1.75, 4.0)
    assert row.limit == 4.0 and row.name == ""
    (row,) = plot.tokens(WORDS, R, join=False).rows
    assert row.words == tuple(WORDS) and row.relevance == tuple(R)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64", "int8"])
def test_features_are_summed_in_any_real_dtype(dtype):
    values = jnp.array([[100, 100], [-3, 1]], dtype)
    for array in (values, np.asarray(values), values.tolist()):
        assert plot.tokens(["a", "b"], array).rows[0].relevance == (200, -2)
    large = np.full((1, 4), 6e4, np.float16)
    assert plot.tokens(["a"], large).rows[0].relevance == (4 * float(large[0, 0]),)


def test_a_row_for_each_rule_set_has_its_own_scale():
    rows = plot.tokens(WORDS, {"slope": R, "lrp": jnp.asarray(100 * R[:, None])}).rows
    assert [(row.name, row.limit) for row in rows] == [("slope", 4), ("lrp", 400)]
    assert rows[0].colors() == rows[1].colors()
    shared = plot.tokens(WORDS, {"slope": R, "lrp": 100 * R}, limit=8).rows
    assert [row.limit for row in shared] == [8, 8]
    assert shared[0].colors()[-1] == colors.color(0.5)
    assert shared[1].colors()[-1] == colors.color(1.0)


def test_the_scale_is_symmetric_and_zero_is_white():
    (row,) = plot.tokens(["a", "b", "c"], [-2.0, 0.0, 1.0]).rows
    assert row.colors() == [colors.color(-1), colors.color(0), colors.color(0.5)]
    (row,) = plot.tokens(["a", "b"], [0.0, 0.0]).rows
    assert row.limit > 0 and row.colors() == [colors.color(0)] * 2
    (row,) = plot.tokens(["a", "b"], [1e-300, -1e-300]).rows
    assert row.colors() == [colors.color(1), colors.color(-1)]


def test_in_a_terminal(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "14")
    shown = plot.tokens(WORDS, {"slope": R}, unit="logits")
    print(shown)
    text = capsys.readouterr().out
    assert text == f"{shown!r}\n"
    heading, *lines = text.splitlines()
    assert re.fullmatch(r"slope  -4 +\+4 logits, sum \+2.8", plain(heading))
    assert [plain(line) for line in lines] == ["a generous", "<p>&"]
    row = shown.rows[0]
    assert [cell for line in lines for cell in painted(line)] == list(
        zip(row.words, row.colors(), strict=True)
    )
    scale = [back for _, back in painted(heading)]
    assert scale[0] == colors.color(-1) and scale[-1] == colors.color(1) and len(set(scale)) > 9


def test_lines_are_no_wider_than_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "10")
    words = ["ab", "x" * 25, "今天天气很好啊", "e\u0301", "12345678"]
    _, *lines = str(plot.tokens(words, np.arange(5.0))).splitlines()
    assert [plain(line) for line in lines] == [
        "ab", "x" * 10, "x" * 10, "xxxxx", "今天天气很", "好啊 e\u0301", "12345678",
    ]  # fmt: skip
    assert len({back for line in lines[1:4] for _, back in painted(line)}) == 1


@pytest.mark.parametrize("word", ["\n", "a\x1b[2Jb", "\x07", "\u2028", "\ud800", "\r\t"])
def test_a_word_cannot_command_a_terminal_or_break_a_line(word, tmp_path):
    shown = plot.tokens([word, "b"], {word: [1.0, 2.0]}, unit=word)
    text = plain(str(shown))
    assert len(text.splitlines()) == 2 and (text.replace("\n", "") + "b").isprintable()
    shown.save(tmp_path / "x.html")
    page = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert all(letter.isprintable() for letter in page.replace("\n", ""))
    assert page.count("\n") == 11
    shown.save(tmp_path / "x.png")


def test_in_a_notebook():
    html = plot.tokens(WORDS, {"<i>": R}, unit="<u>")._repr_html_()
    assert "<script" not in html and "<p>&" not in html and "<i>" not in html and "<u>" not in html
    spans = re.findall(r'<span title="([^"]+)" style="([^"]+)">([^<]*)</span>', html)
    assert [word for _, _, word in spans] == ["a", "generous", "&lt;p&gt;&amp;"]
    assert [float(title) for title, _, _ in spans] == [0.5, -1.75, 4.0]
    for (_, style, _), back in zip(spans, plot.tokens(WORDS, R).rows[0].colors(), strict=True):
        assert f"background: {colors.hexadecimal(back)}" in style
        assert f"color: {colors.hexadecimal(colors.ink(back))}" in style
    assert "-4 " in html and "+4 &lt;u&gt;" in html and "&lt;i&gt;" in html


def test_a_page_is_that_of_the_notebook(tmp_path):
    shown = plot.tokens(["naïve", "今", "</body>"], [1, 2, 3])
    shown.save(str(tmp_path / "x.html"))
    page = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>") and '<meta charset="utf-8">' in page
    assert shown._repr_html_() in page and page.count("</body>") == 1


def has(picture: np.ndarray, color: tuple[int, ...]) -> bool:
    return bool((np.abs(picture - color).max(-1) < 1).any())


def test_a_picture_has_the_colours_of_the_words(tmp_path):
    shown = plot.tokens(["$x^2$", "b", "$"], {"slope": [1.0, -0.37, 0.23]})
    shown.save(tmp_path / "x.PNG")
    picture = 255 * image.imread(tmp_path / "x.PNG")[..., :3]
    assert all(has(picture, back) for back in shown.rows[0].colors())
    assert not has(picture, colors.color(-0.69))
    assert (picture[[0, -1]] == 255).all() and (picture[:, [0, -1]] == 255).all()


def test_a_picture_grows_with_what_is_in_it(tmp_path):
    def size(count: int, name: str = "") -> tuple[int, ...]:
        plot.tokens(["word"] * count, {name: np.ones(count)}).save(tmp_path / "x.png")
        return image.imread(tmp_path / "x.png").shape[:2]

    short, long, longer = size(16), size(64), size(256)
    assert longer[0] > 2 * long[0] > 2.5 * short[0] and longer[1] == long[1]
    assert size(16, "a name " * 20)[1] > long[1]


def test_nothing_is_written_under_another_suffix(tmp_path):
    shown = plot.tokens(["a"], [1.0])
    for name in ("x.pdf", "x", "html"):
        with pytest.raises(ValueError, match=rf"ends in .html or .png, got '.*{name}'"):
            shown.save(tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("draw", "error", "message"),
    [
        (lambda: plot.tokens(["a"], R), ValueError, r"5 tokens for 1 words, in shape \(5,\)\.$"),
        (lambda: plot.tokens(WORDS, R[None]), ValueError, "1 tokens for 5 words.* one by one"),
        (lambda: plot.tokens(WORDS, R[None, :, None]), ValueError, "got shape .* one by one"),
        (lambda: plot.tokens(WORDS, 1.0), ValueError, r"got shape \(\)"),
        (lambda: plot.tokens(WORDS, np.ones((5, 0))), ValueError, r"got shape \(5, 0\)"),
        (lambda: plot.tokens([], []), ValueError, "words: there is none"),
        (lambda: plot.tokens(WORDS, {}), ValueError, "relevance: there is none"),
        (lambda: plot.tokens(WORDS, R * np.nan), ValueError, "5 of 5 numbers are NaN or infinite"),
        (lambda: plot.tokens(["a"], {"lrp": [jnp.inf]}), ValueError, r"relevance\['lrp'\]: 1 of 1"),
        (
            lambda: plot.tokens(["a"], {"x": [1], "y": [1, 2]}),
            ValueError,
            r"\['y'\]: 2 tokens for 1",
        ),
        (lambda: plot.tokens(["a"], [1j]), TypeError, "real numbers, got complex128"),
        (lambda: plot.tokens(["a"], np.tanh), TypeError, "got a function; draw what it returns"),
        (lambda: plot.tokens("a b", [1, 2, 3]), TypeError, r"words.split\(\) are its words"),
        (lambda: plot.tokens([101, 7], [1, 2]), TypeError, "got int; .*convert_ids_to_tokens"),
        (lambda: plot.tokens([b"a"], [1]), TypeError, "expected strings, got bytes"),
        (lambda: plot.tokens(None, [1]), TypeError, "sequence of strings, got NoneType"),
        (lambda: plot.tokens(["a"], [1], limit=0), ValueError, "a positive number, got 0"),
        (lambda: plot.tokens(["a"], [1], limit=np.nan), ValueError, "a positive number, got nan"),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw, error, message):
    with pytest.raises(error, match=message):
        draw()


def test_strings_of_numpy_are_words():
    assert plot.tokens(np.array(["a", "b"]), [1, 2]).rows[0].words == ("a", "b")


def test_they_are_values():
    assert plot.tokens(["a"], [1.0]) == Tokens(
        plot.tokens(["a"], [1.0]).rows, "in units of the value"
    )
    assert hash(plot.tokens(["a"], [1.0])) != hash(plot.tokens(["a"], [2.0]))


def test_matplotlib_is_needed_for_a_picture_only():
    code = (
        "import sys; from jaxrel import plot; t = plot.tokens(['a'], [1.0]); str(t)\n"
        "t._repr_html_(); assert 'matplotlib' not in sys.modules\n"
        "sys.modules['matplotlib.figure'] = None\n"
        "try: t.save('never.png')\n"
        "except ImportError as error: assert 'jaxrel[plot]' in str(error)\n"
        "else: raise SystemExit('drawn')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
