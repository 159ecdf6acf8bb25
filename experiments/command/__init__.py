"""The command line of the experiments: options they share, and how each ends."""

import argparse
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


def rule_sets(text: str) -> dict[str, jaxrel.RuleSet]:
    """The presets of `--rules`, by name; `jaxrel.RuleError` where there is no such preset."""
    return {name: jaxrel.rulesets.preset(name) for name in names("--rules", text)}


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
