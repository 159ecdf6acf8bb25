"""The rows of the tables of `experiments.dogs_and_wolves`."""

from experiments.backgrounds import inside
from experiments.backgrounds.recipes import BEST, GAMED, NEAR, NO_COMPOSITING, Recipe


def table() -> list[Recipe]:
    """All recipes of the full table."""
    rows = core()
    for penalty, weights in _COMPARED.items():
        rows.append(Recipe(f"baseline:{penalty}", "masks", "baseline", penalty, "swap", weights))
    for penalty, weights in _ZERO.items():
        for rules in ("gradient", "slope", "epsilon", "zplus"):
            rows.append(Recipe(f"{rules}:{penalty}", "masks", rules, penalty, "", weights))
    for kind in ("random", "shifted", "dilated", 0.1, 0.01):
        rows.append(BEST._replace(name=f"{BEST.name}:{kind} masks", masks=kind, weights=_UNSWEPT))
    squared = ("masks", "baseline", "outside_sum_squared")
    for reference in ("another", "swap_mean", "blank", "blur", "noise", "mean"):
        name = f"baseline:outside_sum_squared:{reference}"
        rows.append(Recipe(name, *squared, reference, _COMPARED["outside_sum_squared"]))
    for correlation in (0.9, 0.95, 0.98):
        for row in (Recipe("plain", "none"), BEST._replace(weights=_UNSWEPT)):
            name = f"{row.name}:correlation {correlation}"
            rows.append(row._replace(name=name, correlation=correlation))
    share = ("masks", "baseline", "outside_share")
    rows.append(Recipe("baseline:outside_share:another", *share, "another", (3.0, 10.0)))
    half = BEST._replace(name=f"{BEST.name}:bfloat16", dtype="bfloat16", weights=_UNSWEPT)
    rows += [half, Recipe("plain:bfloat16", "none", dtype="bfloat16")]
    near = NO_COMPOSITING._replace(name="compare-near+counterfactual", trimmed=0)
    rows += [near, near._replace(name=f"{near.name}:trimmed by 2", trimmed=2)]
    return rows


def loose() -> list[Recipe]:
    """Masks that are loose, few or boxes: with tolerance, proposals, and the data side beside."""
    rows = [Recipe("plain", "none"), Recipe("oracle", "oracle")]
    best = BEST._replace(weights=(0.1, 1.0))
    for way in (best, Recipe("composites", "masks")):
        rows.append(way)
        for kind in ("true", "dilated", "shifted"):
            name = f"{way.name}:{kind} masks + tolerance"
            rows.append(way._replace(name=name, masks=kind, tolerances=_TOLERANCES, doubt=4))
        for kind in ("true", "dilated", "shifted", "uneven"):
            name = f"{way.name}:{kind} masks + registration"
            rows.append(way._replace(name=name, masks=kind, proposes=True))
        rows.append(way._replace(name=f"{way.name}:uneven masks", masks="uneven"))
        for kind in ("boxes", 0.1, 0.01):
            name = f"{way.name}:{kind} masks"
            rows.append(way._replace(name=name, masks=kind))
            rows.append(way._replace(name=f"{name} + proposals", masks=kind, proposes=True))
    few = [row for row in rows if row.name.startswith("composites:0") and not row.proposes]
    return [row for row in rows if row not in few]  # composites need a mask of every picture


def without_compositing() -> list[Recipe]:
    """Comparisons with other pictures, and ways that look inside the network or at parts alone."""
    rows = [Recipe("plain", "none"), Recipe("oracle", "oracle"), NEAR, NO_COMPOSITING]
    return rows + [Recipe(way, "masks", penalty=way, weights=_WEIGHTS) for way in inside.WAYS]


_WEIGHTS = (0.01, 0.1, 1.0, 10.0)
_TOLERANCES = ((0, 0), (0, 3), (1, 3), (2, 4))


def core() -> list[Recipe]:
    """The recipes that the figures of the table are about: they get the most seeds."""
    return [
        Recipe("plain", "none"),
        Recipe("oracle", "oracle"),
        Recipe("random-background", "masks+backgrounds"),
        Recipe("pairing", "masks+backgrounds", penalty="pairing", weights=(0.01, 0.1, 1.0)),
        Recipe("composites", "masks"),
        Recipe("composite-pairing", "masks", "", "pairing", "swap", (0.01, 0.1, 1.0)),
        BEST,
        NEAR,
        NO_COMPOSITING,
        GAMED,
    ]


_UNSWEPT = (0.1,)
_ZERO = {
    "outside_share": (3.0, 10.0),
    "outside_absolute": (0.1, 1.0),
    "energy": (3.0, 10.0),
    "isnet": (3.0, 10.0),
    "right_reasons": (0.1, 1.0),
}
_COMPARED = {
    "outside_sum_squared": (0.1, 1.0),
    "outside_sum_absolute": (0.1, 1.0),
    "outside_absolute": (0.03, 0.1),
    "outside_absolute_squared": (0.01, 0.1),
}
