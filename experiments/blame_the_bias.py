"""How much of a decision is bias, on trained digit networks, layer by layer and rule by rule.

    python -m experiments.blame_the_bias
    python -m experiments.blame_the_bias --networks mlp --seeds 0 1 2 3 4
    python -m experiments.blame_the_bias --quick

Two multilayer perceptrons (relu, softplus) and a convolutional network learn MNIST digits. On
digits they have not seen, the logit of the predicted digit, and its lead over the runner-up, are
split into what goes to pixels, to the ones that stand for each layer's biases, into the blip's
place, or to the value at a baseline. Then the blow-up: how large relevance becomes when biases are
left out of the denominators and the blip shrinks. Explanations are float64.

Into the folder go `blame_the_bias.csv` (shares), `blame_the_bias_blowup.csv` (sizes by blip), a
picture of each, a picture of heatmaps for each network, and `blame_the_bias.json` (how they were
made).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from matplotlib import pyplot
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

import jaxrel
from experiments import command
from experiments.claims.shares_of_bias import (
    FAMILIES,
    Share,
    Size,
    Subject,
    heatmaps,
    shares,
    sizes,
)
from experiments.claims.shares_of_bias import subject as prepare
from experiments.data import records
from experiments.networks.digits import NETWORKS, Digits, load_digits, train

COLORS = {
    "normalized, biases left out": "#cc4455",
    "lrp, biases as ones": "#ccaa33",
    "slope, ones": "#4477aa",
}
QUANTILES = (5, 50, 95, 100)


def _parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = command.parser("blame_the_bias", __doc__)
    command.add_folder(parser, "blame_the_bias")
    parser.add_argument(
        "--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS), help="which"
    )
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[0, 1, 2], help="of trainings (default: 0 1 2)"
    )
    parser.add_argument(
        "--digits",
        type=int,
        default=300,
        help="unseen digits to explain, up to 1000 (default: %(default)s)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="500 digits, one epoch, four blips: to see it run"
    )
    return parser


def _run(options: argparse.Namespace) -> None:
    """Do what the command line asks; an error if it asks the impossible."""
    _check(options)
    output = records.folder(options.output)
    train_digits, test = load_digits(0)
    if options.quick:
        train_digits = Digits(*(part[:500] for part in train_digits))
    blips = [10.0**k for k in range(-9, 1, 3 if options.quick else 1)]
    found: list[Share] = []
    measured: list[Size] = []
    accuracies: dict[str, list[float]] = {}
    with jax.enable_x64(True):
        for name in options.networks:
            for seed in options.seeds:
                on = _trained(name, seed, train_digits, test, options)
                accuracies.setdefault(name, []).append(on.accuracy)
                print(f"{name}, seed {seed}: {on.accuracy:.1%} of unseen digits", flush=True)
                found += shares(on)
                measured += sizes(on, blips)
                if seed == options.seeds[0]:
                    _save(draw_heatmaps(on), output / f"blame_the_bias_{name}.png")
    print(share_table(found))
    print(size_table(measured))
    names, rows = size_rows(measured)
    records.write_table(output / "blame_the_bias.csv", Share._fields, found)
    records.write_table(output / "blame_the_bias_blowup.csv", names, rows)
    _save(draw_shares(found), output / "blame_the_bias_shares.png")
    _save(draw_sizes(measured), output / "blame_the_bias_blowup.png")
    records.write_origin(
        output / "blame_the_bias.json",
        _command(options),
        ("flax", "optax", "mlxtend", "matplotlib"),
        seeds=options.seeds,
        digits=options.digits,
        accuracies={name: [round(a, 4) for a in values] for name, values in accuracies.items()},
    )
    print(f"results in {output}")


def _check(options: argparse.Namespace) -> None:
    if min(options.seeds) < 0 or len(set(options.seeds)) < len(options.seeds):
        raise ValueError(f"--seeds: expected different numbers >= 0, got {options.seeds}")
    if not 10 <= options.digits <= 1000:
        raise ValueError(f"--digits: expected 10 to 1000, got {options.digits}")


def _command(options: argparse.Namespace) -> str:
    parts = ["python -m experiments.blame_the_bias --networks", *options.networks, "--seeds"]
    parts += [*map(str, options.seeds), "--digits", str(options.digits)]
    return " ".join([*parts, "--quick"] if options.quick else parts)


def _trained(
    name: str, seed: int, digits: Digits, test: Digits, options: argparse.Namespace
) -> Subject:
    """Train a network and prepare its explanation."""
    network, epochs = NETWORKS[name]
    variables = train(network, digits, 1 if options.quick else epochs, seed)
    predicted = np.asarray(jax.jit(network.apply)(variables, test.images)).argmax(-1)
    accuracy = float((predicted == test.labels).mean())
    images = test.images[: options.digits]
    return prepare(name, seed, network, variables, images, digits.images.mean(0), accuracy)


def share_table(found: Sequence[Share]) -> str:
    """Format shares: over the digits of all seeds, and how much the seeds differ."""
    lines = [
        f"{'network':13s} {'target':6s} {'rule':20s} {'part':11s} "
        "share of the value, ± seeds | of a digit: mean ± spread, median"
    ]
    for key, group in _grouped(found).items():
        whole = np.array([share.whole for share in group])
        mean, spread, median = (
            np.mean([getattr(share, k) for share in group]) for k in ("mean", "spread", "median")
        )
        network, target, rule, part = key
        here = f"{network:13s} {target:6s} {rule:20s} {part:11s}"
        own = f"{mean:+.1%} ± {spread:.1%}, {median:+.1%}"
        seeds = "" if len(whole) < 2 else f" ± {whole.std():.1%}"
        lines.append(f"{here} {whole.mean():+8.1%}{seeds} | {own}")
    return "\n".join(lines)


def _grouped(found: Sequence[Share]) -> dict[tuple[str, str, str, str], list[Share]]:
    groups: dict[tuple[str, str, str, str], list[Share]] = {}
    for share in found:
        key = share.network, share.target, share.rule, share.part
        groups.setdefault(key, []).append(share)
    return groups


def size_rows(measured: Sequence[Size]) -> tuple[tuple[str, ...], list[tuple]]:
    """Names of columns, and for each network, rule and blip quantiles over digits and seeds."""
    groups: dict[tuple[str, str, float], list[Size]] = {}
    for size in measured:
        groups.setdefault((size.network, size.rule, size.blip), []).append(size)
    rows = []
    for key, group in groups.items():
        ratios, growth, lost = (
            np.concatenate([getattr(size, k) for size in group])
            for k in ("ratios", "growth", "lost")
        )
        numbers = [np.percentile(ratios, QUANTILES), np.percentile(growth, QUANTILES)]
        numbers.append(np.percentile(lost, QUANTILES[:3]))
        rows.append((*key, *map(float, np.concatenate(numbers))))
    names = [f"{name} {q}%" for name in ("sum|R|/|f|", "sum|R|/slope's") for q in QUANTILES]
    names += [f"lost {q}%" for q in QUANTILES[:3]]
    return ("network", "rule", "blip", *names), rows


def size_table(measured: Sequence[Size]) -> str:
    """Format sizes."""
    _, rows = size_rows(measured)
    lines = [
        f"{'network':13s} {'rule':28s} {'blip':>8s}  sum |R| / |f(x)|: median, 95 %, largest | "
        "over slope's: the same | into the blip's place, median"
    ]
    for network, rule, blip, *numbers in rows:
        ratios, growth = (" ".join(f"{v:8.3g}" for v in numbers[k : k + 3]) for k in (1, 5))
        lines.append(
            f"{network:13s} {rule:28s} {blip:8.0e}  {ratios} | {growth} | {numbers[9]:+.1%}"
        )
    return "\n".join(lines)


def draw_shares(found: Sequence[Share]) -> Figure:
    """What part of the value goes where: a point for all digits, a line for most of them."""
    networks = list(dict.fromkeys(share.network for share in found))
    size = (4.2 * len(networks) + 0.8, 6.4)
    figure, panels = pyplot.subplots(
        1, len(networks), figsize=size, layout="constrained", squeeze=False
    )
    for axes, network in zip(panels[0], networks, strict=True):
        groups = _grouped([share for share in found if share.network == network])
        rows = list(dict.fromkeys(key[2:] for key in groups))
        for (_, target, rule, part), group in groups.items():
            y = rows.index((rule, part)) + (0.17 if target == "lead" else -0.17)
            whole, low, high = (
                np.mean([getattr(share, k) for share in group]) for k in ("whole", "low", "high")
            )
            color = "#4477aa" if target == "logit" else "#cc4455"
            axes.plot([low, high], [y, y], color=color, linewidth=1, alpha=0.6)
            seeds = records.spread([share.whole for share in group])
            axes.errorbar(whole, y, xerr=seeds, color=color, fmt="o", markersize=4, capsize=3)
        axes.axvline(0, color="0.45", linewidth=0.8)
        axes.axvline(1, color="0.45", linewidth=0.8, linestyle=":")
        for k, (rule, _) in enumerate(rows):
            if k and rule != rows[k - 1][0]:
                axes.axhline(k - 0.5, color="0.85", linewidth=0.8)
        axes.set_yticks(range(len(rows)), [_row_name(rows, k) for k in range(len(rows))])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xscale("symlog", linthresh=0.01)
        axes.set_xlim(-3, 3)
        axes.set_xticks(
            [-1, -0.1, -0.01, 0, 0.01, 0.1, 1], ["−1", "", "−1%", "0", "1%", "10%", "1"]
        )
        axes.set_xlabel("share of the value")
        axes.set_title(network)
        axes.spines[["top", "right"]].set_visible(False)
    handles = [Line2D([], [], color=c, marker="o") for c in ("#4477aa", "#cc4455")]
    labels = ["the logit", "the lead over the runner-up"]
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def _row_name(rows: Sequence[tuple[str, str]], k: int) -> str:
    """A part, after the name of its rule where that is new."""
    rule, part = rows[k]
    return part if k and rows[k - 1][0] == rule else f"{rule}:  {part}"


def draw_sizes(measured: Sequence[Size]) -> Figure:
    """Sum |R| against the blip, over |f(x)| and over slope's, and what the blip swallows."""
    networks = list(dict.fromkeys(size.network for size in measured))
    figure, panels = pyplot.subplots(
        3,
        len(networks),
        figsize=(3.9 * len(networks) + 0.4, 7.6),
        layout="constrained",
        squeeze=False,
        sharex=True,
        sharey="row",
    )
    _, rows = size_rows(measured)
    for column, network in zip(panels.T, networks, strict=True):
        for rule in FAMILIES:
            table = np.array([row[2:] for row in rows if row[:2] == (network, rule)], float)
            blip, groups = table[:, 0], (table[:, 1:5], table[:, 5:9], table[:, 9:])
            for axes, numbers in zip(column, groups, strict=True):
                style = {"color": COLORS[rule]}
                axes.plot(blip, numbers[:, 1], **style)
                axes.fill_between(blip, numbers[:, 0], numbers[:, 2], alpha=0.2, **style)
                axes.plot(blip, numbers[:, 3:], linestyle=":", **style)
        (slope,) = [row for row in rows if row[:2] == (network, "slope, ones")]
        for value, line in ((slope[4], "--"), (slope[6], ":")):
            column[0].axhline(value, color=COLORS["slope, ones"], linestyle=line)
        column[1].axhline(1, color=COLORS["slope, ones"], linestyle="--")
        column[2].axhline(0, color=COLORS["slope, ones"], linestyle="--")
        column[0].set_title(network)
        column[2].set_xlabel("blip")
        for axes in column:
            axes.set_xscale("log")
            axes.spines[["top", "right"]].set_visible(False)
        for axes in column[:2]:
            axes.set_yscale("log")
    panels[2, 0].set_ylim(-0.3, 0.8)
    labels = ("sum |R| / |f(x)|", "sum |R| / that of slope", "share of f(x) in the blip's place")
    for axes, label in zip(panels[:, 0], labels, strict=True):
        axes.set_ylabel(label)
    handles = [Line2D([], [], color=color) for color in COLORS.values()]
    handles.append(Line2D([], [], color="0.3", linestyle=":"))
    figure.legend(handles, [*COLORS, "worst digit"], loc="outside lower center", ncols=4)
    return figure


def draw_heatmaps(on: Subject) -> Figure:
    """Four digits by all rules; below each the magnitude at which its colours end.

    The last is the one whose relevance grows the most where biases are left out.
    """
    predicted = on.weights["logit"].argmax(-1)
    worst, _ = sizes(on, [1e-9], families=["normalized, biases left out"])
    rows = [int(np.flatnonzero(predicted == digit)[0]) for digit in np.unique(predicted)[:3]]
    rows.append(int(worst.growth.argmax()))
    captions = [f"seen as {predicted[row]}" for row in rows]
    captions[-1] += ", worst"
    return jaxrel.plot.grid(on.images[rows], heatmaps(on, rows), captions=captions)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


main = command.main(_parser, _run)

if __name__ == "__main__":
    sys.exit(main())
