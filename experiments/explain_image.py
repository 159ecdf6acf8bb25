"""Show which pixels made a network see what it saw: `python -m experiments.explain_image`.

EfficientNet-Lite0 classifies each picture; its five most probable classes are printed. Then the
logit of one class (the most probable one, or the one given by `--class`) is explained by each rule
set, and one PNG shows a row per picture: what the network is shown of it, and a heatmap per rule
set. A heatmap is the relevance of the network's input, summed over the three colour channels.
Any preset of `jaxrel.rulesets` can be asked for; those that need the bounds of the pixels get them.

Without `--image`, four pictures that come inside the scikit-image wheel are explained, so that
nothing is downloaded.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageOps

import jaxrel
from experiments import command
from experiments.data.imagenet import center_crop, class_names, find_class, normalize
from experiments.networks.efficientnet import EfficientNetLite0, load_variables

DEFAULT_RULES = (
    "gradient,guided_backprop,slope,lrp,epsilon_plus,epsilon_plus_flat,epsilon_alpha2_beta1,"
    "epsilon_gamma_box,deep_taylor"
)
_BUNDLED_PICTURES = ("chelsea.png", "coffee.png", "camera.png", "motorcycle_left.png")
_BOXED = {
    preset.__name__: preset
    for preset in (jaxrel.rulesets.deep_taylor, jaxrel.rulesets.epsilon_gamma_box)
}
_DOTS_PER_INCH = 150  # so that a pixel of a heatmap is about one of the PNG


def _parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = command.parser(
        "explain_image", "Explain EfficientNet-Lite0's view of pictures by relevance heatmaps."
    )
    parser.add_argument(
        "--image",
        metavar="PATH",
        type=Path,
        action="append",
        help="a picture file; may be repeated (default: four pictures from scikit-image)",
    )
    parser.add_argument(
        "--class",
        dest="class_query",
        metavar="CLASS",
        help="the class to explain: an index from 0 to 999 or a part of an English class name "
        "(default: the most probable class of each picture)",
    )
    parser.add_argument(
        "--rules",
        metavar="NAMES",
        action="append",
        help=f"comma-separated rule sets; may be repeated (default: {DEFAULT_RULES})",
    )
    parser.add_argument(
        "--output",
        metavar="PATH",
        type=Path,
        default=Path("explain_image.png"),
        help="the picture to write, in the format that its name ends with (default: %(default)s)",
    )
    return parser


def _run(options: argparse.Namespace) -> None:
    """Do what the command line asks; `OSError` or `ValueError` if it asks the impossible."""
    # Everything that the user may have mistyped is checked before the slow part.
    rules = _rule_sets(options.rules or [DEFAULT_RULES])
    names = class_names()
    wanted = None if options.class_query is None else find_class(options.class_query, names)
    paths = options.image or [_bundled_picture(name) for name in _BUNDLED_PICTURES]
    crops = np.stack([_cropped(path) for path in paths])
    command.picture(options.output)

    print("loading EfficientNet-Lite0", flush=True)
    variables = load_variables()
    images = jnp.asarray(normalize(crops))
    logits = np.asarray(jax.jit(EfficientNetLite0().apply)(variables, images))
    probabilities = np.asarray(jax.nn.softmax(logits))
    for path, row in zip(paths, probabilities, strict=True):
        print(f"{path.name}:")
        for index in np.argsort(row)[:-6:-1]:
            print(f"  {row[index]:6.1%}  {index:3d}  {names[index]}")

    top = logits.argmax(axis=1)
    classes = top if wanted is None else np.full_like(top, wanted)
    chosen = np.arange(len(paths)), classes
    # No sum reaches its logit, whatever the rule: the biases of the batch norms have their share,
    # and where negative contributions do not count, as in epsilon_plus, almost all of it.
    print("sum over the pixels of each picture:")
    print(_line("logit", logits[chosen]), flush=True)
    heatmaps = {}
    for name, rule_set in rules.items():
        start = time.perf_counter()
        heatmaps[name] = explain(variables, images, classes, rule_set)
        seconds = time.perf_counter() - start
        print(f"{_line(name, heatmaps[name].sum(axis=(1, 2)))}  ({seconds:.1f} s)", flush=True)

    captions = [
        f"{names[index].split(', ')[0]} ({probability:.0%})"
        for index, probability in zip(classes, probabilities[chosen], strict=True)
    ]
    title = "Relevance for the class above each picture: red for it, blue against it"
    pictures = np.clip(crops / 255, 0, 1)
    figure = jaxrel.plot.grid(pictures, heatmaps, captions=captions, title=title)
    suffix = options.output.suffix[1:] or "png"
    figure.savefig(options.output, format=suffix.lower(), dpi=_DOTS_PER_INCH)
    print(f"wrote {options.output}")


def explain(
    variables: dict[str, Any], images: jax.Array, classes: np.ndarray, rules: jaxrel.RuleSet | str
) -> np.ndarray:
    """Explain one logit of each picture; where rules compare with a baseline, with a grey picture.

    Args:
        variables: The variables of `EfficientNetLite0()`.
        images: (N, 224, 224, 3) float32 preprocessed pictures.
        classes: (N,) integer class indices, in 0..999.
        rules: A rule set, or the name of a preset of `jaxrel.rulesets`.

    Returns:
        (N, 224, 224) float32 relevance in units of the logit, summed over the colour channels.
    """

    def logit(x: jax.Array) -> jax.Array:
        logits = jnp.asarray(EfficientNetLite0().apply(variables, x))
        return logits[jnp.arange(len(classes)), classes]

    chosen = jaxrel.rulesets.preset(rules)
    grey = 0.0 if command.compares(chosen) else None
    found = jax.jit(jaxrel.relevance(logit, chosen, baseline=grey))(images)
    return np.asarray(found.sum(axis=-1))


def rule_set(name: str) -> jaxrel.RuleSet:
    """Build a preset; one that wants the bounds of the pixels gets those of black and white.

    Args:
        name: The name of a preset of `jaxrel.rulesets`.

    Returns:
        The preset with its defaults, for inputs that `experiments.imagenet.preprocess` made.

    Raises:
        ValueError: There is no such preset.
    """
    if name in _BOXED:
        low, high = normalize(np.array([0, 255]))
        return _BOXED[name](float(low), float(high))
    return jaxrel.rulesets.preset(name)


def read_picture(path: Path) -> np.ndarray:
    """Read a picture file.

    Args:
        path: A file in any format that Pillow reads.

    Returns:
        (H, W, 3) uint8 RGB, turned upright as the file's own orientation tag says.

    Raises:
        OSError: There is no such file, or it is no picture.
        ValueError: The picture is too large to be decoded safely.
    """
    if not path.is_file():
        raise FileNotFoundError("there is no such file")
    try:
        with Image.open(path) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"not a readable picture ({error})") from error


def _cropped(path: Path) -> np.ndarray:
    """Read and crop a picture; an error names the file, of which there may be many."""
    try:
        return center_crop(read_picture(path))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def _bundled_picture(name: str) -> Path:
    """Locate a picture in the scikit-image wheel; `skimage.data` might download others."""
    return Path(str(resources.files("skimage") / "data" / name))


def _rule_sets(values: Sequence[str]) -> dict[str, jaxrel.RuleSet]:
    """Build the rule sets that `--rules` names; `ValueError` for one that jaxrel does not have."""
    return {name: rule_set(name) for name in command.names("--rules", ",".join(values))}


def _line(title: str, values: np.ndarray) -> str:
    """Format one number per picture under a common width."""
    return f"  {title:26s}" + "".join(f"{value:12.4g}" for value in values)


main = command.main(_parser, _run)

if __name__ == "__main__":
    sys.exit(main())
