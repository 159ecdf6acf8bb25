"""The command line of the experiments: options they share, and how each ends."""

import argparse
import os
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import jaxrel


def parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """The parser of an experiment, `python -m experiments.NAME`."""
    return argparse.ArgumentParser(
        prog=f"python -m experiments.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_folder(to: argparse.ArgumentParser, default: str, holds: str = "the results") -> None:
    """Adds `--output FOLDER`."""
    to.add_argument(
        "--output",
        metavar="FOLDER",
        type=Path,
        default=Path(default),
        help=f"where {holds} go; made if it is not there (default: %(default)s)",
    )


def add_rules(to: argparse.ArgumentParser, default: str) -> None:
    """Adds `--rules NAMES`, which `rule_sets` reads."""
    to.add_argument(
        "--rules",
        metavar="NAMES",
        default=default,
        help="comma-separated rule sets (default: %(default)s)",
    )


def add_seeds(to: argparse.ArgumentParser, default: int) -> None:
    """Adds `--seeds`, which `seeds` reads; `--quick` alone is one seed."""
    to.add_argument("--seeds", type=int, help=f"how many (default: {default}, or 1 with --quick)")
    to.set_defaults(usual_seeds=default)


def seeds(options: argparse.Namespace) -> int:
    """How many trainings `add_seeds` asks for.

    Raises:
        ValueError: None.
    """
    return given(options, "seeds", 1, options.usual_seeds)


def given(options: argparse.Namespace, name: str, quick: int, usual: int) -> int:
    """A number that is asked for, or the default, which `--quick` makes smaller.

    Raises:
        ValueError: It is not positive.
    """
    found = getattr(options, name)
    if found is None:
        return quick if options.quick else usual
    if found < 1:
        raise ValueError(f"--{name}: expected a positive number, got {found}")
    return found


def picture(path: Path) -> Path:
    """Checks that a picture can be written, before it is made.

    Raises:
        ValueError: There is a folder of this name, or no format.
        OSError: There is no folder to put it into, or it is closed to us.
    """
    from matplotlib.figure import Figure

    formats = Figure().canvas.get_supported_filetypes()
    if path.suffix and path.suffix[1:].lower() not in formats:
        raise ValueError(f"{path}: no format {path.suffix!r}; there are {', '.join(formats)}")
    return writable(path)


def writable(path: Path) -> Path:
    """Checks that a file can be written.

    Raises:
        ValueError: There is a folder of this name.
        OSError: There is no folder to put it into, or it is closed to us.
    """
    if path.is_dir():
        raise ValueError(f"{path}: a folder; expected the name of a file")
    if not path.resolve().parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no such directory")
    if not os.access(path if path.exists() else path.resolve().parent, os.W_OK):
        raise PermissionError(f"{path}: may not be written")
    return path


def names(option: str, text: str, known: Collection[str] | None = None) -> list[str]:
    """Splits a list of names, and looks them up among the known ones.

    Raises:
        ValueError: There is none, or one is not known.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise ValueError(f"{option} names nothing")
    for word in words:
        if known is not None and word not in known:
            raise ValueError(f"{option}: no {word!r}; there are {', '.join(known)}")
    return words


def rule_sets(text: str, compared: bool = True) -> dict[str, jaxrel.RuleSet]:
    """The presets of `--rules`, by name.

    Args:
        text: Their names.
        compared: Whether there is a baseline.

    Raises:
        ValueError: There is no such preset, or it compares with a baseline and there is none.
    """
    found = {name: jaxrel.rulesets.preset(name) for name in names("--rules", text)}
    for name, rules in found.items():
        if not compared and compares(rules):
            raise ValueError(
                f"--rules: {name} compares with a baseline, of which there is none here; take slope"
            )
    return found


def compares(rules: jaxrel.RuleSet) -> bool:
    """Whether a rule set has formulas for a comparison with a baseline alone."""
    every = [*vars(rules).values(), *(rule for _, rule in rules.overrides)]
    return any(getattr(rule, "baseline", None) == {True} for rule in every)


def main(
    parser_of: Callable[[], argparse.ArgumentParser],
    act: Callable[[argparse.Namespace], int | None],
) -> Callable[..., int]:
    """Makes the `main` of an experiment.

    Args:
        parser_of: Makes its parser.
        act: Runs the experiment; raises `OSError`, `ValueError`, `ImportError` or a
            `jaxrel.RuleError` where the impossible is asked, before the slow part.

    Returns:
        A function of the command line without the program's name, by default the process's own. It
        returns the exit code: act's, 0 if it has none; 2 after one line on stderr that says what is
        wrong; 130 where the user interrupts.
    """

    def run(arguments: Sequence[str] | None = None) -> int:
        parsed_by = parser_of()
        options = parsed_by.parse_args(arguments)
        name = parsed_by.prog.rpartition(".")[-1]
        try:
            return act(options) or 0
        except (ImportError, OSError, ValueError, jaxrel.RuleError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print(f"{name}: interrupted", file=sys.stderr)
            return 130

    return run
