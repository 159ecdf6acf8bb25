"""Metrics of explanations: functions of arrays, and of the function that was explained.

    heatmaps = jaxrel.relevance(fun, "slope")(images)
    curve = pixel_flipping(fun, images, heatmaps.sum(-1), steps=100)
    aopc(curve).mean()

An explanation is an array, whatever made it, and where it has to be computed again (robustness,
randomisation, invariance) any callable. All take batches, N examples in front, and return (N,) or
(N, ...), so that means and errors are the caller's; all can be jitted. What is drawn at random is
drawn by an explicit key or handed in as an array.

    perturbation      pixel flipping, region perturbation, insertion, deletion; AOPC, ABPC, area
    parts             patches, cells and segments: what is replaced together
    replacements      and by what: mean, blur, noise, uniform, neighbours
    single_deletion   IDSDS, its differentiable surrogate, faithfulness estimate
    faithfulness      faithfulness correlation, sensitivity-n, infidelity, sufficiency
    monotonicity      as a share of steps, as a correlation
    localisation      pointing game, mass and rank accuracy, top-k, AUC, attribution localisation
    complexity        entropies, Gini index, effective complexity, file size
    robustness        max and average sensitivity, local Lipschitz, relative stabilities
    randomisation     cascading and efficient MPRT, random logit
    axioms            completeness, non-sensitivity, input and implementation invariance
    circuits          CPR and CMD of edges, by real interventions
    similarity        Pearson, Spearman, SSIM
"""

import typing

from .. import errors
from .axioms import completeness as completeness
from .axioms import implementation_invariance as implementation_invariance
from .axioms import input_invariance as input_invariance
from .axioms import non_sensitivity as non_sensitivity
from .circuits import circuit_curve as circuit_curve
from .circuits import cmd as cmd
from .circuits import cpr as cpr
from .circuits import patch_edges as patch_edges
from .complexity import effective_complexity as effective_complexity
from .complexity import entropy as entropy
from .complexity import file_size as file_size
from .complexity import gini as gini
from .complexity import histogram_entropy as histogram_entropy
from .faithfulness import faithfulness_correlation as faithfulness_correlation
from .faithfulness import infidelity as infidelity
from .faithfulness import sensitivity_n as sensitivity_n
from .faithfulness import sufficiency as sufficiency
from .localisation import attribution_localisation as attribution_localisation
from .localisation import auc as auc
from .localisation import pointing_game as pointing_game
from .localisation import relevance_mass_accuracy as relevance_mass_accuracy
from .localisation import relevance_rank_accuracy as relevance_rank_accuracy
from .localisation import top_k_intersection as top_k_intersection
from .monotonicity import monotonicity as monotonicity
from .monotonicity import monotonicity_correlation as monotonicity_correlation
from .parts import grid as grid
from .perturbation import abpc as abpc
from .perturbation import aopc as aopc
from .perturbation import area as area
from .perturbation import deletion as deletion
from .perturbation import insertion as insertion
from .perturbation import pixel_flipping as pixel_flipping
from .perturbation import region_perturbation as region_perturbation
from .randomisation import cascading as cascading
from .randomisation import efficient_mprt as efficient_mprt
from .randomisation import other_classes as other_classes
from .randomisation import random_logit as random_logit
from .replacements import blur as blur
from .replacements import mean as mean
from .replacements import neighbours as neighbours
from .replacements import noise as noise
from .replacements import uniform as uniform
from .robustness import average_sensitivity as average_sensitivity
from .robustness import local_lipschitz as local_lipschitz
from .robustness import max_sensitivity as max_sensitivity
from .robustness import relative_input_stability as relative_input_stability
from .robustness import relative_output_stability as relative_output_stability
from .robustness import relative_representation_stability as relative_representation_stability
from .similarity import pearson as pearson
from .similarity import spearman as spearman
from .similarity import ssim as ssim
from .single_deletion import faithfulness_estimate as faithfulness_estimate
from .single_deletion import idsds as idsds
from .single_deletion import part_drops as part_drops
from .single_deletion import part_sums as part_sums
from .single_deletion import surrogate as surrogate

__all__ = [
    "abpc",
    "aopc",
    "area",
    "attribution_localisation",
    "auc",
    "average_sensitivity",
    "blur",
    "cascading",
    "circuit_curve",
    "cmd",
    "completeness",
    "cpr",
    "deletion",
    "effective_complexity",
    "efficient_mprt",
    "entropy",
    "faithfulness_correlation",
    "faithfulness_estimate",
    "file_size",
    "gini",
    "grid",
    "histogram_entropy",
    "idsds",
    "implementation_invariance",
    "infidelity",
    "input_invariance",
    "insertion",
    "local_lipschitz",
    "max_sensitivity",
    "mean",
    "monotonicity",
    "monotonicity_correlation",
    "neighbours",
    "noise",
    "non_sensitivity",
    "other_classes",
    "part_drops",
    "part_sums",
    "patch_edges",
    "pearson",
    "pixel_flipping",
    "pointing_game",
    "random_logit",
    "region_perturbation",
    "relative_input_stability",
    "relative_output_stability",
    "relative_representation_stability",
    "relevance_mass_accuracy",
    "relevance_rank_accuracy",
    "sensitivity_n",
    "spearman",
    "ssim",
    "sufficiency",
    "surrogate",
    "top_k_intersection",
    "uniform",
]


def __dir__() -> list[str]:
    return sorted(__all__)


if not typing.TYPE_CHECKING:  # to a type checker every name would be known

    def __getattr__(name: str) -> object:
        raise errors.no_attribute(__name__, name)
