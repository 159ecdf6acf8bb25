"""Tables in a terminal and in a notebook: the same cells, grouped by layer, escaped."""

import re
from html.parser import HTMLParser

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

import jaxrel
from jaxrel import rulesets
from jaxrel._plan.table import Row, Table
from jaxrel._show.tables import Group, Sheet
from jaxrel.rules import Epsilon


class Page(HTMLParser):
    """What a browser makes of a fragment: rows of cells, and tags that all close."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.rows: list[list[str]] = []
        self.summaries: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        assert not any(name.startswith("on") for name, _ in attrs)
        self.open.append(tag)
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data
        if self.open and self.open[-1] == "summary":
            self.summaries.append(data)


class Network(nn.Module):
    """Two norms, one in a loop, and steps of no layer."""

    @nn.compact
    def __call__(self, x):
        """Applies it."""
        body = nn.scan(
            lambda layer, h, _: (layer(h), None), variable_axes={"params": 0},
            split_rngs={"params": True}, length=2,
        )  # fmt: skip
        x = x + nn.LayerNorm(name="norm")(x)
        return body(nn.LayerNorm(name="stacked"), x, None)[0] * 2


@pytest.fixture(scope="module")
def table() -> Table:
    x = jnp.ones((2, 3))
    network = Network()
    variables = network.init(jax.random.key(0), x)
    return jaxrel.summary(lambda x: network.apply(variables, x))(x)


def test_steps_of_a_layer_stand_under_one_heading(table):
    lines = str(table).splitlines()[2:]
    norm = [row for row in table.rows if row.path == "norm"]
    where = next(k for k, line in enumerate(lines) if line.startswith("norm "))
    assert len(norm) > 5 and re.search(rf"^norm +{len(norm)} steps", lines[where])
    assert sum("norm" in line.split() for line in lines) == 1
    for row, line in zip(norm, lines[where + 1 :], strict=False):
        assert line.startswith("  ") and line.split()[0] == row.kind and line.endswith(row.rule)
    assert all(rule in lines[where] for rule in {row.rule for row in norm})


def test_in_a_notebook_a_norm_is_one_line_that_opens(table):
    page = Page(table._repr_html_())
    assert page.summaries[0].startswith("norm  ") and "details" in page.tags
    assert sum(summary.split()[0] == "norm" for summary in page.summaries) == 1
    assert [cell for cell in page.rows[0]] == ["path", "kind", "operation", "shapes", "rule"]
    shown = [row[1:] for row in page.rows[1:] if len(row) == 5]
    assert shown == [list(row[1:5]) for row in table.rows]


def row(path: str, depth: int = 0, kind: str = "linear") -> Row:
    return Row(path, kind, "mul", "f32[] -> f32[]", "Gradient()", depth)


@pytest.mark.parametrize(
    ("rows", "paths"),
    [
        ([row("a")], ["a"]),
        ([row("a"), row("b"), row("a")], ["a", "b", "a"]),
        ([row("a"), row("a"), row("b")], ["a", "", "", "b"]),
        ([row(""), row("")], ["-", "-"]),  # of no layer: nothing holds them together
        ([row("a", 0), row("a", 1), row("a", 1)], ["a", "  a", "", ""]),  # a loop and its body
        ([], []),
    ],
)
def test_only_neighbours_of_one_layer_and_depth_are_grouped(rows, paths):
    lines = str(Table(tuple(rows))).splitlines()[2:]
    width = max([4, *map(len, paths)])
    assert [line[:width].rstrip() for line in lines] == paths
    assert len(Table(tuple(rows))) == len(rows)


def test_columns_are_aligned_and_numbers_end_at_the_right():
    sheet = Sheet(("name", "n"), [("a", "10"), ("long name", "5")], ("total", "15"), words=1)
    assert sheet.text().splitlines() == [
        "name        n",
        "---------  --",
        "a          10",
        "long name   5",
        "---------  --",
        "total      15",
    ]
    assert Page(sheet.html()).rows == [
        ["name", "n"],
        ["a", "10"],
        ["long name", "5"],
        ["total", "15"],
    ]


HOSTILE = '<script>alert("&amp;")</script>'


@pytest.mark.parametrize(
    "html",
    [
        Table((row(HOSTILE),))._repr_html_(),
        Table((row(HOSTILE), row(HOSTILE)))._repr_html_(),
        (rulesets.slope() | {HOSTILE: Epsilon()})._repr_html_(),
        Sheet((HOSTILE, ""), [Group((HOSTILE, "2"), [("", HOSTILE)])], (HOSTILE, "")).html(),
    ],
    ids=["row", "group", "override", "everywhere"],
)
def test_what_users_named_is_escaped(html):
    page = Page(html)
    assert "script" not in page.tags
    assert any(HOSTILE in text for row in [page.summaries, *page.rows] for text in row)


def test_an_audit_shows_the_same_numbers_in_a_notebook():
    w = jnp.arange(6.0).reshape(3, 2)
    audit = jaxrel.audit(lambda x: jnp.tanh(x @ w) + 1, "epsilon")(jnp.ones((1, 3)))
    cells = [cell for row in Page(audit._repr_html_()).rows for cell in row if cell]
    dashes = str(audit).splitlines()[1]
    printed = str(audit).replace(dashes, "")
    assert cells == [cell for cell in re.split(r"\s{2,}|\n", printed) if cell]


def test_a_rule_set_shows_the_same_rules_in_a_notebook():
    rules = rulesets.epsilon_plus_flat()
    rows = Page(rules._repr_html_()).rows
    assert rows == [re.split("  +", line) for line in str(rules).splitlines()]
