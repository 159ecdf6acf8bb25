"""Every claim as a number beside what it should be."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from experiments.claims import forms, maximum, scaling
from experiments.claims.tables import Table

ROUNDING = 1e-10  # relative; equalities hold to this in float64


class Finding(NamedTuple):
    """A claim held against its number.

    Attributes:
        claim: Its letter, as the modules of `experiments.claims` have them.
        case: What is measured.
        number: What came out.
        relation: `"<="` where two things should be equal; `">="` where they should differ.
        bound: What the number is compared to.
        verdict: What that means for the source text: `"confirmed"`; `"refuted"`, the text supposes
            the opposite; `"qualified"`, the text is right about less than it says; `"new"`, it does
            not say.
    """

    claim: str
    case: str
    number: float
    relation: str
    bound: float
    verdict: str

    @property
    def holds(self) -> bool:
        """Whether the number is on its side of the bound; a NaN is on none."""
        return self.number <= self.bound if self.relation == "<=" else self.number >= self.bound


@dataclasses.dataclass(frozen=True)
class Measured:
    """All that the claims are judged and drawn by; see the functions that make it."""

    levels: list[forms.Level]
    forms: dict[str, np.ndarray]
    sizes: np.ndarray
    tiny: dict[str, np.ndarray]
    zeros: tuple[float, float]
    written: Table
    scaled: Table
    maxima: dict[str, Table]
    shares: dict[str, np.ndarray]
    ways: dict[str, np.ndarray]
    betas: np.ndarray
    hardening: dict[str, np.ndarray]
    orders: np.ndarray
    relu: float
    blips: np.ndarray
    limits: dict[str, np.ndarray]


def measure(seed: int, count: int) -> Measured:
    """Measures everything.

    Args:
        seed: Of networks, inputs and values.
        count: How many inputs of each network; of pairs of values there are ten times as many.
    """
    sizes, betas, blips = np.logspace(0, -12, 13), np.logspace(-1, 2, 61), np.logspace(-12, 0, 25)
    return Measured(
        forms.conservation(seed),
        forms.forms(seed, count),
        sizes,
        forms.tiny_units(seed, sizes),
        forms.of_zeros(seed),
        scaling.scaling_as_written(),
        scaling.scaling(),
        maximum.maximum_as_nonlinearity(),
        maximum.shares(-1.0),
        maximum.two_ways(seed, 10 * count),
        betas,
        maximum.hardening(betas),
        maximum.order_of_pairs(seed, 10 * count),
        forms.relu_networks(seed, count),
        blips,
        forms.towards_slope(seed, count, blips),
    )


def judge(m: Measured) -> list[Finding]:
    """Holds every claim against its number."""
    return [
        *_conservation(m),
        *_forms(m),
        *_scaling(m),
        *_constants(m),
        *_two_ways(m),
        *_limits(m),
    ]


def _equal(claim: str, case: str, number: float, verdict: str = "confirmed") -> Finding:
    return Finding(claim, case, float(number), "<=", ROUNDING, verdict)


def _differ(claim: str, case: str, number: float, bound: float, verdict: str) -> Finding:
    return Finding(claim, case, float(number), ">=", bound, verdict)


def _conservation(m: Measured) -> Iterator[Finding]:
    for setting in forms.SETTINGS:
        rows = [row for row in m.levels if row.setting == setting]
        kept = max(abs(row.relevance + row.ones - row.value) / row.scale for row in rows)
        apart = max(abs(row.relevance - row.multiplier) / row.scale for row in rows)
        if "gradient" in setting:
            case = "no biases, nonlinearities by the gradient: sum x m is not conserved"
            yield _differ("a", case, apart, 1e-3, "confirmed")
            continue
        yield _equal("a", f"{setting}: sum R the same at every layer", kept)
        yield _equal("a", f"{setting}: sum R = sum x m at every layer", apart)


def _forms(m: Measured) -> Iterator[Finding]:
    for case, amounts in m.forms.items():
        if case == "softplus against slope":
            text = "ignoring softplus, f(0) != 0, is not the slope: f(0) is a bias"
            yield _differ("b", text, float(np.min(amounts)), 0.01, "confirmed")
        else:
            verdict = "new" if "Pass" in case else "confirmed"
            yield _equal("b", f"lrp naively = multiplier form, {case}", amounts.max(), verdict)
    for case, amounts in m.tiny.items():
        growth = float(amounts[-1] / amounts[0])
        text = f"sum |R| where |z| is {m.sizes[-1]:.0e} over where it is 1, {case}"
        if case == "biases left out":
            yield _differ("b", text, growth, 1e6, "confirmed")
        else:
            yield Finding("b", text, growth, "<=", 2.0, "qualified")
    yield _differ("b", "share of NaNs at an input of zeros, naively", m.zeros[0], 1.0, "confirmed")
    yield _equal("b", "share of NaNs at an input of zeros, multiplier form", m.zeros[1])


def _scaling(m: Measured) -> Iterator[Finding]:
    said = {("Gradient", "Gradient"), ("Gradient", "Slope"), ("Normalized(0)", "Ignore")}
    for row, cells in m.written.items():
        for column, number in cells.items():
            case = f"x -> c x, as written: matrix {row}, nonlinearity {column}"
            if (row, column) in said:
                yield _equal("c", case, number)
            elif (row, column) == ("Gradient", "Repeat"):
                yield _equal("c", case, number, "new")
            else:
                yield _differ("c", case, number, 0.1, "confirmed")
    matrices, nonlinearities = agreeing(m.scaled)
    inside, outside = [], []
    for row, cells in m.scaled.items():
        for column, number in cells.items():
            same = row in matrices and column in nonlinearities
            (inside if same else outside).append(number)
    case = f"jaxrel: {len(matrices)} matrix x {len(nonlinearities)} nonlinearity rules agree"
    yield _equal("c", f"{case}, at worst", max(inside), "new")
    case = f"jaxrel: the other {len(outside)} pairs do not, at least"
    yield _differ("c", case, min(outside), 0.1, "new")


def agreeing(table: Table) -> tuple[list[str], list[str]]:
    """The matrix and nonlinearity rules that agree with each other on scaling."""
    anchor = table["Gradient"]
    columns = [column for column, number in anchor.items() if number <= ROUNDING]
    return [row for row, cells in table.items() if cells["Gradient"] <= ROUNDING], columns


def _constants(m: Measured) -> Iterator[Finding]:
    negative = []
    for title, table in m.maxima.items():
        if "baseline" in title:
            worst = max(number for cells in table.values() for number in cells.values())
            yield _equal("d", f"{title}: any complete rule = slope, at worst", worst, "new")
            continue
        case = f"{title}: Gradient as maximum = as nonlinearity"
        yield _equal("d", case, table["Gradient"]["Gradient"])
        radial, case = table["Radial"]["Slope"], f"{title}: Radial maximum and Slope nonlinearity"
        if title == "max(x, 0)":
            yield _equal("d", f"{case}, equal for relu alone", radial, "qualified")
        else:
            yield _differ("d", f"{case}, as relevance", radial, 0.5, "refuted")
            negative += [cells["Slope"] for cells in table.values()]
    case = "constants < 0: every maximum rule differs from Slope, at least"
    yield _differ("d", case, min(negative), 0.3, "confirmed")
    radial, slope = m.shares["Radial"], m.shares["slope, as a share"]
    below = maximum.GRID < 0
    case = "max(x, -1), shares: Radial against f(x) / x where x < 0, largest gap (at x = -1)"
    yield _differ("d", case, np.abs(radial - slope)[below].max(), 0.49, "refuted")
    yield _equal("d", "the same where x > 0", np.abs(radial - slope)[~below].max(), "qualified")
    p, q = -2.0, -1.0
    wanted = max(p, q) / p + max(q, p) / q
    yield _differ("d", "shares that slope wants of max(-2, -1): their sum", wanted, 1.5, "refuted")


def _two_ways(m: Measured) -> Iterator[Finding]:
    x, x0 = m.ways["x"], m.ways["x0"]
    rise = x.max(-1) - x0.max(-1)
    for way in ("|a - b|", "softmax limit"):
        lack = np.abs(m.ways[way].sum(-1) - rise).max()
        yield _equal("e", f"max(a, b) by {way}: sum R = f(x) - f(x0)", lack)
    changed = (x[:, 0] > x[:, 1]) != (x0[:, 0] > x0[:, 1])

    def gap(one: str, other: str) -> np.ndarray:
        return np.abs(m.ways[one] - m.ways[other]).max(-1)

    ways = gap("|a - b|", "softmax limit")
    yield _differ("e", "(3, 1) against (0, 2): the two ways differ by", ways[0], 0.5, "confirmed")
    text = "they differ where the order changes, median"
    yield _differ("e", text, float(np.median(ways[changed])), 0.1, "confirmed")
    yield _equal("e", "where the order is the same they agree", ways[~changed].max(), "qualified")
    for one in ("|a - b|", "softmax"):
        parts = gap(one, f"{one}, by parts").max()
        yield _equal("e", f"{one}: the rule = composing it by parts", parts)
    whole = gap("|a - b|", "softmax as a whole")[changed]
    text = "log-sum-exp taken as a whole becomes |a - b|: median gap, order changed"
    yield _equal("e", text, np.median(whole), "qualified")
    moved = float((m.orders > 0.01).mean())
    text = "max of three by |a - b|: share where the order of pairs matters (> 1 %)"
    yield _differ("e", text, moved, 0.2, "new")


def _limits(m: Measured) -> Iterator[Finding]:
    yield _equal("f", "relu network: slope = gradient", m.relu)
    for title, gaps in m.limits.items():
        middle = np.median(gaps, 1)
        line = slice(4, 15)  # blips from 1e-10 to 1e-5
        order = np.polyfit(np.log(m.blips[line]), np.log(middle[line]), 1)[0]
        text = f"lrp -> slope, {title}: order of convergence in the blip, distance from 1"
        yield Finding("f", text, abs(float(order) - 1), "<=", 0.02, "confirmed")
        text = f"lrp -> slope, {title}: largest difference at blip {m.blips[0]:.0e}"
        yield Finding("f", text, float(gaps[0].max()), "<=", 1e-6, "confirmed")
