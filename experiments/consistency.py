"""The source text's consistency claims, each as a number and a figure.

    python -m experiments.consistency
    python -m experiments.consistency --output results --seed 1

(a) What is conserved, layer by layer, in relevance form and in multiplier form. (b) lrp in
relevance form, interpreted naively, is slope in multiplier form. (c) Which rules for matrices and
nonlinearities agree on scaling by c. (d) max(x, constants <= 0) as a maximum and as a nonlinearity.
(e) Two ways to take a maximum against a baseline. (f) Slope, the gradient, and lrp on the way to
them. The arguments are in the modules of `experiments.claims`. Everything is float64.

Into the folder go `consistency.csv` (every claim with its number), `consistency_tables.csv` (all
pairs of rules), `consistency_levels.csv` (relevance by layer), four pictures, and
`consistency.json` (how they were made). The exit code is 1 if a claim does not hold.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import command
from experiments.claims import forms, maximum
from experiments.claims.judged import ROUNDING, Finding, Measured, judge, measure
from experiments.claims.tables import Table
from experiments.data import records

INK = {"blue": "#4477aa", "red": "#cc4455", "yellow": "#ccaa33", "green": "#228833", "grey": "0.45"}


def _parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = command.parser("consistency", __doc__)
    command.add_folder(parser, "consistency")
    parser.add_argument(
        "--seed", type=int, default=0, help="of networks and inputs (default: %(default)s)"
    )
    parser.add_argument(
        "--count", type=int, default=200, help="inputs of each network (default: %(default)s)"
    )
    return parser


def _run(options: argparse.Namespace) -> int:
    """Do what the command line asks; 1 if a claim does not hold."""
    if options.seed < 0:
        raise ValueError(f"--seed: expected a number >= 0, got {options.seed}")
    if options.count < 10:
        raise ValueError(f"--count: expected at least 10 inputs, got {options.count}")
    output = records.folder(options.output)
    with jax.enable_x64(True):
        measured = measure(options.seed, options.count)
    findings = judge(measured)
    print(table(findings))
    again = f"python -m experiments.consistency --seed {options.seed} --count {options.count}"
    write(output, measured, findings, again, options.seed, options.count)
    broken = [finding for finding in findings if not finding.holds]
    print(f"{len(findings) - len(broken)} of {len(findings)} hold; results in {output}")
    return 1 if broken else 0


def table(findings: Sequence[Finding]) -> str:
    """Format findings for a person, one a line."""
    width = max(len(finding.case) for finding in findings)
    lines = [f"   {'claim':<{width}}  {'measured':>9}      bound  holds  the text is"]
    for f in findings:
        numbers = f"{f.number:9.2e}  {f.relation} {f.bound:7.0e}"
        holds = "yes" if f.holds else "NO"
        lines.append(f"{f.claim}  {f.case:<{width}}  {numbers}  {holds:<5}  {f.verdict}")
    return "\n".join(lines)


def write(
    output: Path,
    measured: Measured,
    findings: Sequence[Finding],
    command: str,
    seed: int,
    count: int,
) -> None:
    """Write tables, pictures, and how they were made."""
    rows = [(*finding, finding.holds) for finding in findings]
    records.write_table(output / "consistency.csv", (*Finding._fields, "holds"), rows)
    records.write_table(output / "consistency_levels.csv", forms.Level._fields, measured.levels)
    tables = {"scaling, as written": measured.written, "scaling": measured.scaled}
    cells = [
        (title, row, column, number)
        for title, whole in (tables | measured.maxima).items()
        for row, numbers in whole.items()
        for column, number in numbers.items()
    ]
    names = ("function", "rule", "nonlinearity rule", "difference")
    records.write_table(output / "consistency_tables.csv", names, cells)
    pictures: dict[str, Callable[[Measured], Figure]] = {
        "conservation": draw_conservation,
        "scaling": draw_scaling,
        "maximum": draw_maximum,
        "limits": draw_limits,
    }
    for name, draw in pictures.items():
        figure = draw(measured)
        figure.savefig(output / f"consistency_{name}.png", dpi=110)
        pyplot.close(figure)
    holding = sum(finding.holds for finding in findings)
    records.write_origin(
        output / "consistency.json",
        command,
        ("matplotlib",),
        seed=seed,
        count=count,
        holding=f"{holding} of {len(findings)}",
    )


def draw_conservation(m: Measured) -> Figure:
    """Claim (a): sum R from the value (left) to the input (right), in both forms."""
    figure, panels = _panels(4, height=3.2, sharey=True)
    for axes, setting in zip(panels, forms.SETTINGS, strict=True):
        rows = [row for row in m.levels if row.setting == setting]
        places = np.arange(len(rows))
        sums = [np.array([getattr(row, k) for row in rows]) for k in ("relevance", "multiplier")]
        kept = np.array([row.ones for row in rows]) + sums[0]
        axes.axhline(rows[0].value, color=INK["grey"], linewidth=0.8, linestyle=":")
        axes.plot(places, sums[0], color=INK["blue"], linewidth=5, alpha=0.35, label="sum R")
        axes.plot(places, sums[1], "o-", color=INK["blue"], markersize=4, label="sum x m")
        if setting == "biases as ones":
            axes.plot(places, kept, "s--", color=INK["red"], markersize=4, label="with the ones")
        axes.set_xticks(places, [row.boundary for row in rows], rotation=60)
        axes.set_title(setting)
        axes.margins(y=0.15)
    panels[2].legend(*panels[1].get_legend_handles_labels(), fontsize="small", loc="upper right")
    panels[0].set_ylabel("relevance at this boundary")
    return figure


def draw_scaling(m: Measured) -> Figure:
    """Claim (c): all pairs of rules."""
    size = (10.5, 4.6)
    figure, panels = pyplot.subplots(1, 2, figsize=size, layout="constrained", width_ratios=(3, 5))
    titles = ("as written: on the number carried back", "jaxrel: on multipliers, x m compared")
    for axes, whole, title in zip(panels, (m.written, m.scaled), titles, strict=True):
        _draw_table(axes, whole)
        axes.set_title(title)
        axes.set_xlabel("x → c x as a nonlinearity")
    panels[0].set_ylabel("x → c x as a matrix")
    return figure


def _draw_table(axes: Axes, whole: Table) -> None:
    columns = list(next(iter(whole.values())))
    numbers = np.array([[cells[column] for column in columns] for cells in whole.values()])
    equal = numbers <= ROUNDING
    axes.imshow(np.where(equal, np.nan, numbers), cmap="Reds", vmin=0, vmax=2.2, aspect="auto")
    for row, column in np.ndindex(numbers.shape):
        text = "=" if equal[row, column] else f"{numbers[row, column]:.2f}"
        weight = "bold" if equal[row, column] else "normal"
        axes.text(column, row, text, ha="center", va="center", weight=weight)
    axes.set_xticks(range(len(columns)), columns, rotation=35, ha="right")
    axes.set_yticks(range(len(whole)), list(whole))
    axes.set_facecolor("#cce5cc")
    axes.tick_params(length=0)


def draw_maximum(m: Measured) -> Figure:
    """Claims (d) and (e): shares of a maximum with -1, and two ways against a baseline."""
    figure, (shares, hard, pairs) = _panels(3, height=3.8)
    styles: dict[str, dict[str, Any]] = {
        "Radial": {"color": INK["red"], "linewidth": 2.5},
        "Shapley": {"color": INK["yellow"]},
        "Gradient": {"color": INK["grey"]},
        "slope, as a share": {"color": INK["blue"], "linewidth": 2.5, "linestyle": "--"},
        "slope, as relevance": {"color": INK["blue"], "linestyle": ":"},
    }
    for name, style in styles.items():
        shares.plot(maximum.GRID, m.shares[name], label=name, **style)
    shares.axvline(-1, color=INK["grey"], linewidth=0.6)
    shares.set_xlabel("x")
    shares.set_ylabel("share of x in max(x, −1)")
    shares.legend(fontsize="small", loc="lower right")
    shares.set_title("Radial is not slope where x < 0")

    colors = {"exp, sum, log": INK["red"], "log-sum-exp": INK["blue"]}
    names = {"exp, sum, log": "exp, then sum, then log", "log-sum-exp": "log-sum-exp as a whole"}
    for name, curve in m.hardening.items():
        hard.semilogx(m.betas, curve[:, 0], color=colors[name], label=names[name])
    for level, text, name in ((1.5, "winner", "exp, sum, log"), (4 / 3, "|a − b|", "log-sum-exp")):
        hard.axhline(level, color=colors[name], linestyle=":", linewidth=1)
        hard.text(m.betas[0], level + 0.01, text, color=colors[name])
    hard.set_xlabel("hardness β")
    hard.set_ylabel("relevance of a")
    hard.set_title("max(a, b), (2, 1) against (0, ½)")
    hard.legend(fontsize="small", loc="lower right")

    x, x0 = m.ways["x"], m.ways["x0"]
    changed = (x[:, 0] > x[:, 1]) != (x0[:, 0] > x0[:, 1])
    for mask, color, text in ((changed, INK["red"], "order changes"),
                              (~changed, INK["blue"], "order stays")):  # fmt: skip
        ways = [m.ways[name][mask][:500, 0] for name in ("|a - b|", "softmax limit")]
        pairs.plot(*ways, ".", color=color, markersize=3, label=text)
    pairs.set_xlabel("relevance of a by |a − b|")
    pairs.set_ylabel("by the limit of the softmax")
    pairs.set_title("two ways, random pairs")
    pairs.legend(fontsize="small")
    return figure


def draw_limits(m: Measured) -> Figure:
    """Claims (b) and (f): the two forms, tiny units, and lrp on its way to slope."""
    figure, (same, tiny, limit) = _panels(3, height=3.6)
    bins = np.logspace(-17, 1, 55).tolist()
    for (case, amounts), color in zip(m.forms.items(), INK.values(), strict=True):
        amounts = np.maximum(amounts, bins[0])
        same.hist(amounts, list(bins), color=color, histtype="step", linewidth=1.5, label=case)
    same.set_xscale("log")
    same.set_xlabel("largest |R − x m| / largest |R|")
    same.set_ylabel("inputs")
    same.set_title("relevance form = multiplier form")
    same.legend(fontsize="small", loc="upper center")

    styles = {
        "no biases": {"color": INK["blue"], "linewidth": 4, "alpha": 0.4},
        "biases as ones": {"color": INK["green"], "linestyle": "--"},
        "biases left out": {"color": INK["red"]},
    }
    for case, amounts in m.tiny.items():
        tiny.loglog(m.sizes, amounts, label=case, **styles[case])
    tiny.invert_xaxis()
    tiny.set_xlabel("|z| of all units of a layer")
    tiny.set_ylabel("sum |R| at the input")
    tiny.set_title("what explodes is the left-out bias")
    tiny.legend(fontsize="small")

    for (title, gaps), color in zip(m.limits.items(), (INK["blue"], INK["red"]), strict=True):
        limit.loglog(m.blips, np.median(gaps, 1), color=color, label=title)
        limit.fill_between(m.blips, gaps.min(1), gaps.max(1), color=color, alpha=0.15)
    limit.set_xlabel("blip")
    limit.set_ylabel("largest |lrp − slope| / largest |slope|")
    limit.set_title("lrp → slope")
    limit.legend(fontsize="small", loc="lower right")
    return figure


def _panels(count: int, height: float, **options: Any) -> tuple[Figure, list[Axes]]:
    size = (3.7 * count, height)
    figure, axes = pyplot.subplots(1, count, figsize=size, layout="constrained", **options)
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
    return figure, list(axes)


main = command.main(_parser, _run)

if __name__ == "__main__":
    sys.exit(main())
