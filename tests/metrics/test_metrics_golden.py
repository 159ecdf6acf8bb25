"""Quantus and Captum: every trusted case of what `jaxrel.metrics` has, to 1e-6.

How they count where it differs from here: Quantus' curves leave out f(x); its baseline "black" is
the minimum of the sample, "mean" the mean of what is left of it at that step; its areas have steps
of 1. It sorts by an unstable order: a case with ties is compared with what a stable order gives
where that is known, and else explained by the order that was used.

| left out | because |
|---|---|
| Quantus Monotonicity, SensitivityN, Infidelity, AttributionLocalisation (weighted), Completeness, MPRT average, InputInvariance, IROF without softmax, Sufficiency of what is constant | they do not compute what they say: Monotonicity is always True, SensitivityN correlates over the samples, Infidelity sweeps once, and so on (Monotonicity and InputInvariance are compared with restatements) |
| MonotonicityCorrelation with tied relevance | both its order and its ranks depend on how ties fall |
| Continuity | no metric of ours: it shifts pictures by steps that its own defaults make 0 |
| ROAD of tied relevance | the order used is not known; its imputation is compared |
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrel import metrics
from tests import covering
from tests.metrics import golden
from tests.metrics.golden import Case

TOLERANCE = 1e-6


def last(x: Any) -> Any:
    """Channels last, for patches."""
    return np.moveaxis(x, 1, -1) if np.ndim(x) == 4 else x


def judged(case: Case) -> np.ndarray:
    return case[f"a/{case.relevance}"]


def located(case: Case) -> tuple[jax.Array, Any]:
    """The relevance summed over channels, and the mask."""
    one = "a1" if case.net.endswith("cnn2") else "a"
    return jnp.asarray(case[f"{one}/{case.relevance}"]), case["mask"]


def by_order(order: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """A relevance that has this order of parts: all of it at the first feature of each part."""
    found = np.zeros((len(order), ids.size))
    for row, parts in zip(found, order, strict=True):
        row[[np.argmax(ids == part) for part in parts]] = np.arange(len(parts), 0, -1)
    return found


def replacement(case: Case, order: np.ndarray) -> Any:
    """What the peer sets features to, as one array for all steps."""
    given, x = case.hyper["perturb_baseline"], case["x"]
    flat = x.reshape(len(x), -1)
    if given == "black":
        return flat.min(1).reshape(-1, *(1 for _ in x.shape[1:]))
    if given != "mean":
        return given
    left, found, step = flat.copy(), np.zeros_like(flat), case.hyper["features_in_step"]
    rows = np.arange(len(x))[:, None]
    for start in range(0, flat.shape[1], step):
        now = order[:, start : start + step]
        mean = left.mean(1, keepdims=True)
        left[rows, now] = found[rows, now] = mean
    return found.reshape(x.shape)


def pixel_flipping(case: Case):
    x, step, relevance = jnp.asarray(case["x"]), case.hyper["features_in_step"], judged(case)
    tied = "order" in case.extra
    order = case["order"] if tied else np.argsort(-relevance.reshape(len(x), -1), axis=1)
    steps = -(-order.shape[1] // step)
    stable = not tied or "res_stable" in case.extra and case.hyper["perturb_baseline"] != "mean"
    if not stable:
        relevance = by_order(order, np.arange(order.shape[1])).reshape(x.shape)
    curve = metrics.pixel_flipping(
        golden.target(case),
        x,
        relevance,
        steps=steps,
        per_step=step,
        replacement=replacement(case, order),
    )[:, 1:]
    area = metrics.area(curve) * (steps - 1)
    found = area if case.metric == "PixelFlipping AUC" else curve
    return found, case.result if stable else case.unstable


def regions(case: Case):
    """Region perturbation and selectivity; with ties, or in a random order, by the order used."""
    x, size, ranking = last(case["x"]), case.hyper["patch_size"], case["patch_order"]
    steps = case.hyper.get("regions_evaluation", ranking.shape[1])
    order, relevance = case.hyper.get("order", "morf"), last(judged(case))
    edge = -(-x.shape[1] // size)
    place = (np.arange(x.shape[1]) + (edge * size - x.shape[1]) // 2) // size
    ids = (place[:, None] * edge + place[None]).ravel()
    sums = [np.bincount(ids, of_pixels.ravel()) for of_pixels in relevance.sum(-1)]
    if order == "random" or any(len(np.unique(row)) < len(row) for row in sums):
        relevance, order = by_order(ranking, ids).reshape(*x.shape[:3], 1), "morf"
    black = x.min((1, 2, 3), keepdims=True)
    base = case.hyper["perturb_baseline"]
    curve = metrics.region_perturbation(
        lambda x: golden.target(case)(jnp.moveaxis(x, -1, 1)),
        x,
        relevance,
        patch=size,
        steps=steps,
        order=order,
        replacement=black if base == "black" else base,
    )
    drops = curve[:, :1] - curve[:, 1:]
    return (drops if case.metric == "RegionPerturbation" else curve[:, 1:]), case.result


def estimate(case: Case):
    options = {"per_step": case.hyper["features_in_step"]}
    x = jnp.asarray(case["x"])
    return metrics.faithfulness_estimate(golden.target(case), x, judged(case), **options)


def correlation(case: Case):
    x = jnp.asarray(case["x"])
    base = replacement(case, x)
    return metrics.faithfulness_correlation(
        golden.target(case), x, judged(case), subsets=case["subsets"], replacement=base
    )


def monotonicity(case: Case):
    step, x = case.hyper["features_in_step"], jnp.asarray(case["x"])
    found = metrics.monotonicity(golden.target(case), x, judged(case), per_step=step)
    return found == 1


def monotonicity_correlation(case: Case):
    x, step, relevance = jnp.asarray(case["x"]), case.hyper["features_in_step"], judged(case)
    draws = case["draws"].reshape(-1, case.hyper["nr_samples"], len(x))
    relevance = jnp.abs(relevance) if case.hyper["uses_abs"] else relevance
    options = {"per_step": step, "draws": draws}
    return metrics.monotonicity_correlation(golden.target(case), x, relevance, **options)


def non_sensitivity(case: Case):
    x, eps = jnp.asarray(case["x"]), case.hyper["eps"]
    return metrics.non_sensitivity(golden.target(case), x, judged(case), threshold=eps)


def captum_infidelity(case: Case):
    x = jnp.asarray(case["x"])
    shape = (-1, *x.shape)
    kind = case.hyper["perturbation"]
    draws = case["gauss_I" if kind == "gauss" else "binary_mask"].swapaxes(0, 1).reshape(shape)
    changes, weights = (draws, None) if kind == "gauss" else (draws * x, draws)
    normalize = case.hyper["normalize"]
    relevance = jnp.asarray(case[f"a/{case.relevance}"])
    return metrics.infidelity(
        golden.target(case), x, relevance, changes, weights=weights, normalize=normalize
    )


def captum_ablation(case: Case):
    x, ids = jnp.asarray(case["x"]), case["feature_mask"].astype(int)
    ids = ids.reshape(-1, *x.shape[1:])
    base = case.hyper["baselines"]
    drops = metrics.part_drops(golden.target(case), x, patch=ids, replacement=base)
    whole = np.broadcast_to(ids, x.shape).reshape(len(x), -1)
    return jnp.take_along_axis(drops, whole, axis=1).reshape(case.result.shape)


def irof(case: Case):
    """Segments in the order of their mean relevance; the area over what is left of f."""
    ids = case["segments"].astype(int)
    sizes = np.stack([np.bincount(i.ravel(), minlength=ids.max() + 1) for i in ids])
    pixels = np.take_along_axis(sizes, ids.reshape(len(ids), -1), 1).reshape(ids.shape)
    relevance = judged(case)[:, 0]
    if case.relevance != "random":  # which ties: by the order used
        place = np.argsort(case["seg_order"].astype(int), axis=1)
        relevance = -np.take_along_axis(place, ids.reshape(len(ids), -1), 1).reshape(ids.shape)
    curve = metrics.pixel_flipping(
        lambda x: golden.target(case)(x[:, None]),
        jnp.asarray(case["x"])[:, 0],
        relevance / pixels,
        steps=int(ids.max()) + 1,
        patch=ids,
    )
    left = curve[:, 1:] / curve[:, :1]
    return left.shape[1] - metrics.area(left) * (left.shape[1] - 1)


def localised(metric: Callable[..., jax.Array], **options: Any) -> Callable[[Case], jax.Array]:
    return lambda case: metric(*located(case), **options)


def top_k(case: Case):
    influence = case.hyper.get("concept_influence", False)
    return metrics.top_k_intersection(*located(case), case.hyper["k"], concept_influence=influence)


def mass(case: Case):
    relevance, mask = located(case)
    relevance = jnp.abs(relevance) if case.hyper.get("abs") else relevance
    return metrics.relevance_mass_accuracy(relevance, mask)


def localisation(case: Case):
    relevance, mask = located(case)
    relevance = jnp.abs(relevance) if case.hyper.get("abs") else relevance
    return metrics.attribution_localisation(relevance, mask)


def focus(case: Case):
    """The share of positive relevance in the quadrants of a mosaic that show the class."""
    mask = np.kron(case["quadrants"].reshape(-1, 1, 2, 2), np.ones((4, 4)))
    return metrics.attribution_localisation(judged(case), mask)


def effective_complexity(case: Case):
    relevance = judged(case)
    if case.hyper.get("normalise"):
        relevance = relevance / jnp.abs(relevance).max()
    return metrics.effective_complexity(relevance, case.hyper["eps"])


def sufficiency(case: Case):
    threshold = case.hyper["threshold"]
    return metrics.sufficiency(judged(case), case["y_pred"], threshold=threshold)


def around(case: Case) -> tuple[Any, jax.Array, Any]:
    """The explanation as a function of x, x, and the noise."""
    x, y = jnp.asarray(case["x"]), jnp.asarray(case["y"])
    weights = golden.params(case.net)
    noise = case["uniform"].swapaxes(0, 1) if case.net.startswith("captum") else case["noise"]
    explain = golden.explain(case)
    return lambda x: explain(weights, x, y), x, noise.reshape(-1, *x.shape)


def stability(case: Case):
    functions = {
        "RelativeInputStability": (metrics.relative_input_stability, ()),
        "RelativeOutputStability": (metrics.relative_output_stability, (False,)),
        "RelativeRepresentationStability": (metrics.relative_representation_stability, (True,)),
    }
    metric, hidden = functions[case.metric]
    weights = golden.params(case.net)
    beside = [lambda x, h=h: golden.logits(case.net, weights, x, h) for h in hidden]
    return metric(*around(case), *beside)


def captum_sensitivity(case: Case):
    norm = {"fro": "l2", "inf": "max"}[case.hyper["norm_ord"]]
    return metrics.max_sensitivity(*around(case), norm=norm)


def cascading(case: Case):
    x, y, explain = jnp.asarray(case["x"]), jnp.asarray(case["y"]), golden.explain(case)
    return metrics.cascading(
        lambda params, x: explain(params, x, y),
        golden.params(case.net),
        golden.params(case.net, "rand"),
        x,
        case.rows[1:],
        together=case.hyper["layer_order"] != "independent",
        similarity=getattr(metrics, case.hyper["similarity"]),
    )


def efficient_mprt(case: Case):
    x, y, explain = jnp.asarray(case["x"]), jnp.asarray(case["y"]), golden.explain(case)
    return metrics.efficient_mprt(
        lambda params, x: explain(params, x, y),
        golden.params(case.net),
        golden.params(case.net, "rand"),
        x,
        bins=case.hyper["n_bins"],
    )


def random_logit(case: Case):
    weights, explain = golden.params(case.net), golden.explain(case)
    return metrics.random_logit(
        lambda x, labels: explain(weights, x, labels),
        jnp.asarray(case["x"]),
        case["y"],
        case["y_off"],
        similarity=getattr(metrics, case.hyper["similarity"]),
    )


def input_invariance(case: Case):
    """The peer tells whether all is close; here the largest difference of what it compared."""
    explain, x, _ = around(case)
    shift, weights = case.hyper["input_shift"], golden.params(case.net)
    first = weights["conv1"]
    moved = first["bias"] - shift * first["weight"].sum((1, 2, 3))
    other = {**weights, "conv1": {**first, "bias": moved}}
    y, again = jnp.asarray(case["y"]), golden.explain(case)
    found = metrics.input_invariance(explain, lambda x: again(other, x, y), x, shift)
    before = explain(x)
    change = jnp.abs(case["shifted"] - before).reshape(len(x), -1).max(1)
    return found, change / jnp.abs(before).reshape(len(x), -1).max(1)


def road(case: Case):
    """What is imputed for the pixels that are missing, at every percentage."""
    x = last(case["x"])
    expected = np.moveaxis(case["imputed"], 2, -1)
    found = [metrics.neighbours(x, e != x) for e in expected]
    return jnp.where(expected != x, jnp.stack(found), x), expected


METRICS: dict[str, Callable[[Case], Any]] = {
    "PixelFlipping": pixel_flipping,
    "PixelFlipping AUC": pixel_flipping,
    "RegionPerturbation": regions,
    "Selectivity": regions,
    "FaithfulnessEstimate": estimate,
    "FaithfulnessCorrelation": correlation,
    "Monotonicity": monotonicity,
    "MonotonicityCorrelation": monotonicity_correlation,
    "NonSensitivity": non_sensitivity,
    "Sufficiency": sufficiency,
    "infidelity": captum_infidelity,
    "FeatureAblation": captum_ablation,
    "ROAD": road,
    "IROF": irof,
    "PointingGame": localised(metrics.pointing_game),
    "RelevanceRankAccuracy": localised(metrics.relevance_rank_accuracy),
    "AUC": localised(metrics.auc),
    "TopKIntersection": top_k,
    "RelevanceMassAccuracy": mass,
    "AttributionLocalisation": localisation,
    "Focus": focus,
    "Complexity": lambda case: metrics.entropy(judged(case)),
    "Sparseness": lambda case: metrics.gini(jnp.abs(judged(case)) + case.hyper["added"]),
    "EffectiveComplexity": effective_complexity,
    "MaxSensitivity": lambda case: metrics.max_sensitivity(*around(case)),
    "AvgSensitivity": lambda case: metrics.average_sensitivity(*around(case)),
    "LocalLipschitzEstimate": lambda case: metrics.local_lipschitz(*around(case)),
    "RelativeInputStability": stability,
    "RelativeOutputStability": stability,
    "RelativeRepresentationStability": stability,
    "sensitivity_max": captum_sensitivity,
    "MPRT": cascading,
    "EfficientMPRT": efficient_mprt,
    "RandomLogit": random_logit,
    "InputInvariance": input_invariance,
}
LEFT_OUT = {"Continuity"}


def is_compared(case: Case) -> bool:
    tied = case.metric == "MonotonicityCorrelation" and case.relevance == "ties"
    return case.metric not in LEFT_OUT and not tied


def parameters():
    """All cases; without `--full` one of each metric, of one network or another."""
    compared = [case for case in golden.cases() if is_compared(case)]
    for turn, metric in enumerate(METRICS):
        own = [case for case in compared if case.metric == metric]
        for index, case in enumerate(own):
            full = index != 5 * turn % len(own)
            yield covering.case(case, full=full, id=f"{case.net}/{case.name}")


@pytest.mark.every_case
@pytest.mark.parametrize("case", list(parameters()))
def test_peers(case: Case):
    found = jax.jit(lambda: METRICS[case.metric](case))()
    found, expected = found if isinstance(found, tuple) else (found, case.result)
    assert np.shape(found) == np.shape(expected)
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE)
