"""Bars for the long loops: how many of its points an average, or its steps a metric, has done.

The loops run within one compiled program, which tells the host after each turn. What is told is
decided when a program is traced; without a bar nothing is added to it.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax

Make = Callable[..., Any]

_BAR: contextvars.ContextVar[Make | None] = contextvars.ContextVar("bar", default=None)


@contextlib.contextmanager
def progress(**options: Any) -> Iterator[None]:
    """Shows a bar for each long loop of the block: averages over points, and metrics.

    ``integrated``, ``smooth`` and ``expected`` count points, metrics their steps, sets or draws.
    What is done at once (``chunk``) is counted at once; what is all done at once has no bar.

        with jaxrel.progress():
            relevance = jaxrel.integrated(explain, 0.0, steps=500)(x)

    A program shows bars if it is *traced* within the block: a jitted function that ran before it
    does not, and one that was traced within it goes on showing them.

    Args:
      **options: of ``tqdm.auto.tqdm``, such as ``leave=False`` or ``disable=None`` (none where
        stderr is no terminal).

    Raises:
      ImportError: tqdm is not installed.
    """
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ImportError("jaxrel.progress needs tqdm: pip install tqdm") from error
    token = _BAR.set(functools.partial(tqdm, **options))
    try:
        yield
        jax.effects_barrier()
    finally:
        _BAR.reset(token)


def teller(name: str, count: int) -> Callable[[int, jax.Array], None]:
    """Returns what tells a bar, to be traced into a turn of a loop.

    Args:
      name: what stands in front of the bar.
      count: how much the loop does in all.

    Returns:
      A function of how much the turn does, and of its place in the loop: what depends on nothing
      in it would be told once.
    """
    make = _BAR.get()
    if make is None:
        return lambda done, place: None
    bar = _Bar(functools.partial(make, desc=name, total=count), count)

    def tell(done: int, place: jax.Array) -> None:
        jax.debug.callback(lambda _: bar.add(done), place)

    return tell


class _Bar:
    """A bar that begins when it is first told of, and anew when the loop runs again."""

    def __init__(self, make: Make, count: int):
        self.make, self.count = make, count
        self.lock, self.shown, self.done = threading.Lock(), None, 0

    def add(self, done: int) -> None:
        with self.lock:
            self.shown = self.shown or self.make()
            self.shown.update(done)
            self.done += done
            if self.done >= self.count:
                self.shown.close()
                self.shown, self.done = None, 0
