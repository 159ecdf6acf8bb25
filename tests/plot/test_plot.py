"""Pictures of relevance: what they show and what they refuse."""

import dataclasses
import re
import subprocess
import sys

import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest

import jaxrel
from jaxrel import plot, rulesets
from jaxrel.rules import Epsilon, Ignore

matplotlib.use("Agg")

from matplotlib import pyplot  # noqa: E402  (no display is asked for)


@pytest.fixture(autouse=True)
def figures():
    """Every test begins and ends without figures."""
    pyplot.close("all")
    yield
    pyplot.close("all")


@pytest.fixture
def relevance(rng) -> np.ndarray:
    """Relevance of a picture of 5 x 7 pixels, (5, 7, 3)."""
    return rng.normal(size=(5, 7, 3))


@dataclasses.dataclass
class Layer:
    """A stand-in for one layer's account."""

    path: str
    bias: float = 0.0
    stabilizer: float = 0.0
    rule: float = 0.0


@dataclasses.dataclass
class Books:
    """A stand-in for an audit."""

    value: float
    explained: float
    accounts: list[Layer]

    def layers(self) -> list[Layer]:
        return self.accounts


BOOKS = Books(
    10.0,
    4.0,
    [
        Layer("stem/conv", bias=2.0, rule=-1.0),
        Layer("block/a", bias=1.0, stabilizer=0.5),
        Layer("block/b", bias=-0.5),
        Layer("", bias=4.0),
    ],
)


def pixels(axes) -> np.ndarray:
    """What the uppermost picture shows."""
    return np.asarray(axes.images[-1].get_array())


def bars(axes) -> list[tuple[float, float]]:
    """Start and end of each bar that is not empty, from top to bottom."""
    drawn = [bar for group in axes.containers for bar in group if bar.get_width()]
    drawn.sort(key=lambda bar: bar.get_y())
    return [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in drawn]


def test_a_heatmap_adds_the_channels_and_is_symmetric(relevance):
    axes = plot.heatmap(relevance)
    np.testing.assert_allclose(pixels(axes), relevance.sum(-1))
    limit = np.abs(relevance.sum(-1)).max()
    assert axes.images[0].get_clim() == (-limit, limit)
    assert axes is pyplot.gca()


def test_positive_is_red_negative_blue_and_zero_white():
    drawn = plot.heatmap([[1.0, 0.0, -1.0]]).images[0]
    red, white, blue = drawn.to_rgba(drawn.get_array())[0, :, :3]
    assert red[0] > 2 * red[2] and blue[2] > 2 * blue[0] and white.min() > 0.95


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64", "int8"])
def test_any_real_dtype_of_jax_or_numpy(dtype):
    values = jnp.array([[[100, 100], [-3, 1]]], dtype)
    for array in (values, np.asarray(values)):
        np.testing.assert_array_equal(pixels(plot.heatmap(array)), [[200, -2]])


def test_colours_end_at_a_percentile_or_a_limit():
    values = np.append(np.arange(100), -1e6).reshape(1, -1)
    assert plot.heatmap(values, percentile=99).images[-1].get_clim() == (-99, 99)
    assert plot.heatmap(values, limit=7).images[-1].get_clim() == (-7, 7)
    assert plot.heatmap(values, percentile=100).images[-1].get_clim() == (-1e6, 1e6)


def test_maps_of_mostly_zeros_have_a_scale():
    assert plot.heatmap(np.zeros((3, 3))).images[-1].get_clim() == (-1, 1)
    sparse = np.zeros((30, 30))
    sparse[3, 4] = -2e-30
    assert plot.heatmap(sparse, percentile=90).images[-1].get_clim() == (-2e-30, 2e-30)


def test_a_grid_has_a_title():
    figure = plot.grid(np.zeros((1, 4, 4, 3)), {"lrp": np.ones((1, 4, 4))}, title="the whole")
    assert figure.get_suptitle() == "the whole"


def test_a_colour_bar_is_an_option(relevance):
    plot.heatmap(relevance)
    assert len(pyplot.gcf().axes) == 1
    plot.heatmap(relevance, limit=2, colorbar=True, title="mine")
    figure = pyplot.gcf()
    (bar,) = figure.axes[0].child_axes
    assert [tick.get_text() for tick in bar.get_yticklabels()] == ["-2", "0", "2"]
    figure.draw_without_rendering()
    assert 0.85 < bar.bbox.height / figure.axes[0].bbox.height <= 1  # and the points at its ends
    assert figure.axes[0].get_title() == "mine"
    figure.canvas.draw()


def test_an_overlay_is_transparent_where_nothing_is_relevant(rng):
    image = rng.integers(0, 256, (1, 3, 3), np.uint8)
    axes = plot.overlay(image, [[0.0, 4.0, -1.0]], opacity=0.8, colorbar=True)
    grey, drawn = axes.images
    np.testing.assert_allclose(drawn.get_alpha(), [[0, 0.8, 0.4]])
    np.testing.assert_allclose(grey.get_array(), image @ [0.299, 0.587, 0.114] / 255)
    pyplot.gcf().canvas.draw()


def test_a_grid_has_a_row_per_picture_and_a_column_per_rule_set(rng, relevance, tmp_path):
    images, maps = rng.uniform(size=(2, 5, 7, 3)), np.stack([relevance, -relevance])
    figure = plot.grid(images, {"lrp": maps, "slope": list(2 * maps)}, captions=["cat", "dog"])
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["cat", "lrp", "slope", "dog", "lrp", "slope", ""]
    np.testing.assert_allclose(pixels(figure.axes[0]), images[0])
    np.testing.assert_allclose(pixels(figure.axes[5]), -2 * relevance.sum(-1))
    limit = np.percentile(np.abs(relevance.sum(-1)), 99.5)
    assert figure.axes[1].get_xlabel() == f"±{limit:.2g}"
    figure.savefig(tmp_path / "grid.png")


@pytest.mark.parametrize(("columns", "shape"), [(2, (4, 2)), (3, (2, 3)), (9, (2, 3))])
def test_a_grid_continues_in_the_next_line(rng, relevance, columns, shape):
    images, maps = rng.uniform(size=(2, 5, 7)), {"a": [relevance] * 2, "b": [relevance] * 2}
    figure = plot.grid(images, maps, columns=columns, overlays=True)
    spec = figure.axes[0].get_subplotspec()
    assert spec is not None and spec.get_gridspec().get_geometry() == shape
    figure.canvas.draw()


def test_a_grid_of_pictures_alone(rng):
    assert len(plot.grid(rng.uniform(size=(2, 4, 4, 1)), {}).axes) == 2


@pytest.mark.parametrize("shape", [(6, 9), (6, 9, 1), (6, 9, 3)])
@pytest.mark.parametrize("overlays", [False, True])
def test_a_grid_of_one_picture(rng, shape, overlays):
    """As it is, without an axis in front."""
    image, one = rng.uniform(size=shape), rng.normal(size=(6, 9, 3))
    figure = plot.grid(image, {"lrp": one}, captions="cat", overlays=overlays)
    wrapped = plot.grid(image[None], {"lrp": one[None]}, captions=["cat"], overlays=overlays)
    assert tuple(figure.get_size_inches()) == tuple(wrapped.get_size_inches())
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [axes.get_title() for axes in wrapped.axes] == ["cat", "lrp", ""]
    for axes, other in zip(figure.axes[:2], wrapped.axes, strict=False):
        np.testing.assert_array_equal(pixels(axes), pixels(other))


def test_grey_pictures_in_an_array_are_several(rng):
    images, maps = rng.uniform(size=(2, 6, 9)), rng.normal(size=(2, 6, 9))
    assert len(plot.grid(images, {"lrp": maps}).axes) == 5
    assert len(plot.grid(list(images[:, :, :3]), {"lrp": maps[:, :, :3]}).axes) == 5


@pytest.mark.parametrize(
    "draw", [plot.heatmap, lambda one: plot.overlay(np.zeros(one.shape), one)], ids=["map", "over"]
)
@pytest.mark.parametrize("columns", [None, 2])
def test_nothing_is_drawn_over(rng, draw, columns):
    """After a grid, after another map, after something of the user's own."""
    maps = {name: rng.normal(size=(2, 6, 6)) for name in ("a", "b")}
    grid = plot.grid(rng.uniform(size=(2, 6, 6)), maps, columns=columns)
    pyplot.figure()
    pyplot.plot([0, 1])
    lines = pyplot.gca()
    for figure in (grid, lines.figure):
        before = [len(axes.get_children()) for axes in figure.axes]
        pyplot.figure(figure)
        first = draw(rng.normal(size=(6, 6)))
        second = draw(rng.normal(size=(6, 6)))
        assert len({first.figure, second.figure, figure}) == 3
        assert [len(axes.get_children()) for axes in figure.axes] == before


def test_current_axes_that_are_empty_are_taken():
    _, panels = pyplot.subplots(1, 2)
    for panel in panels:
        pyplot.sca(panel)
        assert plot.heatmap(np.ones((2, 2))) is panel


LONG = "Chesapeake Bay retriever on grass, seen from above (41 %)"


def boxes(figure):
    """Where the titles of a figure are, in pixels."""
    figure.canvas.draw()
    return [axes.title.get_window_extent() for axes in figure.axes if axes.get_title()]


@pytest.mark.parametrize(
    "name", ["compare_to_baseline", "epsilon_alpha2_beta1_flat", LONG, "W" * 40]
)
def test_long_titles_of_a_grid_take_lines_and_stay_in_the_picture(rng, name):
    images, maps = rng.uniform(size=(2, 8, 8)), {"lrp": rng.normal(size=(2, 8, 8))}
    maps[name] = maps["lrp"]
    figure = plot.grid(images, maps, captions=[LONG, "cat"])
    titles = boxes(figure)
    for k, one in enumerate(titles):
        assert one.x0 >= 0 and one.x1 <= figure.bbox.width and one.y1 <= figure.bbox.height + 1
        assert not any(one.overlaps(other) for other in titles[k + 1 :])
    shown = figure.axes[0].get_title()
    assert "\n" in shown and " ".join(shown.split()) == LONG
    assert figure.axes[1].get_title() == "lrp"


def test_a_long_title_of_one_map_among_others_takes_lines():
    figure, panels = pyplot.subplots(1, 3)
    for panel in panels:
        plot.heatmap(np.ones((4, 4)), panel, title=LONG)
    titles = boxes(figure)
    assert not any(a.overlaps(b) for a, b in zip(titles, titles[1:], strict=False))


def test_lines_of_a_title_are_kept():
    assert plot.heatmap(np.ones((4, 4)), title="a\n\nb").get_title() == "a\n\nb"


def test_a_waterfall_leads_from_the_value_to_the_explained():
    axes = plot.waterfall(BOOKS)
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["value", "(no layer)", "block/b", "block/a", "stem/conv", "explained"]
    expected = [(0, 10), (10, 6), (6, 6.5), (6.5, 5.5), (5.5, 5), (5, 3), (3, 4), (0, 4)]
    np.testing.assert_allclose(bars(axes), expected)
    low, high = axes.get_xlim()
    assert low < 0 and high > 10
    legend = axes.get_legend()
    assert legend is not None
    shown = [text.get_text() for text in legend.get_texts()]
    assert shown == ["to biases: +6.5", "to stabilisers: +0.5", "by rules: -1"]


def test_a_waterfall_adds_up_layers_of_one_path():
    axes = plot.waterfall(BOOKS, depth=1)
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["value", "(no layer)", "block", "stem", "explained"]
    expected = [(0, 10), (10, 6), (6, 5.5), (5.5, 5), (5, 3), (3, 4), (0, 4)]
    np.testing.assert_allclose(bars(axes), expected)


def test_a_waterfall_of_an_audit(rng):
    w, b = jnp.asarray(rng.normal(size=(4, 3))), jnp.asarray(rng.normal(size=3))
    audit = jaxrel.audit(lambda x: jnp.tanh(x @ w + b), "epsilon")(jnp.ones((2, 4)))
    axes = plot.waterfall(audit)
    value, *changes, explained = bars(axes)
    np.testing.assert_allclose([value[1], explained[1]], [audit.value, audit.explained])
    np.testing.assert_allclose(changes[-1][1], audit.explained)


def test_a_waterfall_and_the_table_of_an_audit_have_the_same_words_and_signs(rng):
    """Whatever the sign: biases that take, a stabiliser that takes, a rule that creates."""
    w, b = jnp.asarray(rng.normal(size=(4, 3))), jnp.asarray([1.0, 2.0, 3.0])
    rules = rulesets.RuleSet(matmul=Epsilon(0.5), nonlinearity=Ignore())
    audit = jaxrel.audit(lambda x: jnp.tanh(x @ w + b), rules)(jnp.ones((1, 4)))
    header, _, *_, total = str(audit).splitlines()
    columns = re.split("  +", header)
    assert len(set(columns)) == len(columns)
    amounts = dict(zip(columns[4:], map(float, total.split()[1:]), strict=True))
    legend = plot.waterfall(audit).get_legend()
    assert legend is not None
    for text in legend.get_texts():
        fate, amount = text.get_text().split(": ")
        assert amounts[fate] != 0
        np.testing.assert_allclose(float(amount), amounts[fate], rtol=1e-2)


def test_a_waterfall_without_layers():
    assert bars(plot.waterfall(Books(2.0, 2.0, []))) == [(0, 2), (0, 2)]


PICTURE, MAP = np.zeros((2, 2, 3)), np.ones((2, 2))


@pytest.mark.parametrize(
    ("draw", "error", "message"),
    [
        (lambda: plot.heatmap(MAP * np.nan), ValueError, "4 of 4 numbers are NaN or infinite"),
        (lambda: plot.heatmap(jnp.array([[jnp.inf, 0]])), ValueError, "1 of 2 numbers"),
        (lambda: plot.heatmap(np.ones(4)), ValueError, r"\(H, W, C\), got shape \(4,\)"),
        (lambda: plot.heatmap(np.ones((1, 2, 2, 3))), ValueError, "one by one, or by grid"),
        (lambda: plot.heatmap(np.ones((0, 2))), ValueError, r"got shape \(0, 2\)"),
        (lambda: plot.heatmap(MAP * 1j), TypeError, "real numbers, got complex128"),
        (lambda: plot.heatmap([["a"]]), TypeError, "real numbers"),
        (lambda: plot.heatmap(MAP, percentile=0), ValueError, r"in \(0, 100\], got 0"),
        (lambda: plot.heatmap(MAP, percentile=0.995), ValueError, r"did you mean 99\.5 percent\?"),
        (lambda: plot.heatmap(MAP, percentile=1), ValueError, "did you mean 100 percent"),
        (lambda: plot.heatmap(np.tanh), TypeError, "got a function; draw what it returns"),
        (lambda: plot.heatmap(MAP, limit=-1.0), ValueError, "a positive number, got -1.0"),
        (lambda: plot.heatmap(MAP, limit=1, percentile=99), ValueError, "not both"),
        (lambda: plot.overlay(PICTURE, np.ones((3, 2))), ValueError, r"\(2, 2\) and \(3, 2\)"),
        (lambda: plot.overlay(PICTURE - 1, MAP), ValueError, "values from -1 to -1"),
        (lambda: plot.overlay(PICTURE * np.nan, MAP), ValueError, "values from nan"),
        (lambda: plot.overlay(np.zeros((2, 2, 4)), MAP), ValueError, r"got shape \(2, 2, 4\)"),
        (lambda: plot.overlay(PICTURE, MAP, opacity=2), ValueError, r"in \[0, 1\], got 2"),
        (lambda: plot.grid([PICTURE], {"lrp": [MAP, MAP]}), ValueError, "lrp: 2 for 1 pictures"),
        (lambda: plot.grid([PICTURE], {}, captions="ab"), ValueError, "captions: 2 for 1"),
        (lambda: plot.grid([PICTURE], MAP), TypeError, "expected a mapping from titles to maps"),
        (lambda: plot.grid([PICTURE], [MAP]), TypeError, "{'lrp': relevance}; got list"),
        (lambda: plot.waterfall(np.tanh), TypeError, "expected what jaxrel.audit"),
        (lambda: plot.grid([], {}), ValueError, "there is none"),
        (lambda: plot.grid([PICTURE], {}, columns=0), ValueError, "at least 1, got 0"),
        (lambda: plot.waterfall(BOOKS, depth=0), ValueError, "at least 1, got 0"),
        (lambda: plot.waterfall(Books(np.nan, 0.0, [])), ValueError, "NaNs or infinities"),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw, error, message):
    with pytest.raises(error, match=message):
        draw()


def test_without_matplotlib_the_way_out_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r'pip install "jaxrel\[plot\]"'):
        plot.heatmap(MAP)


def test_jaxrel_imports_plot_on_demand_and_matplotlib_only_to_draw():
    code = (
        "import sys, jaxrel; assert 'jaxrel.plot' not in sys.modules\n"
        "jaxrel.plot; assert 'matplotlib' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'plots'"):
        _ = jaxrel.plots  # pyright: ignore[reportAttributeAccessIssue]
