"""One run: a recipe, a lambda, a seed; trained in steps that can be interrupted anywhere.

What a step does follows from the run's settings and the number of the step alone: the order of an
epoch and the keys of its steps are drawn from (seed, number). So the state is parameters, optimizer
state and that number. It is saved by Orbax every so many steps, and a run that was killed goes on
from the last checkpoint to bitwise the same parameters as one that was not.
"""

import functools
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from tqdm import tqdm

from experiments.backgrounds import recipes
from experiments.backgrounds.network import Network
from experiments.backgrounds.pictures import SIZE, Data
from experiments.backgrounds.recipes import Loss, Recipe

BATCH = 64
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 1e-3
RAMP = 0.25
"""The share of all steps in which lambda grows from 0, linearly, so that no network gives up."""
WITHIN = 0.02
"""Of all lambdas whose validation score is as near as this to the best, the largest is chosen."""


class Problem(NamedTuple):
    """What a run minimises.

    Attributes:
        loss: See `recipes.loss`. The step is compiled once for each.
        given: What the loss may look at; `labels` tells how many training pictures there are.
        params: To begin with.
    """

    loss: Loss
    given: dict[str, jax.Array]
    params: Any


class State(NamedTuple):
    """Everything that changes while a run goes on."""

    params: Any
    optimizer: optax.OptState
    step: jax.Array


def problem(recipe: Recipe, data: Data, seed: int) -> Problem:
    """Put together what a recipe minimises on dogs and wolves.

    Args:
        recipe: The recipe.
        data: The pictures, rendered with the same seed.
        seed: Of the parameters, and of what the recipe draws.
    """
    params = Network().init(jax.random.key(seed), jnp.zeros((1, SIZE, SIZE, 1)))["params"]
    given = recipes.arrays(recipe, data, seed)
    return Problem(recipes.loss(recipes.anonymous(recipe)), given, params)


def train(
    problem: Problem,
    weight: float,
    seed: int,
    epochs: int,
    *,
    batch: int = BATCH,
    rate: float = LEARNING_RATE,
    checkpoints: Path | None = None,
    every: int = 200,
    title: str = "",
    after_step: Callable[[int], None] = lambda step: None,
    after_epoch: Callable[[int, Any], None] = lambda epoch, params: None,
) -> Any:
    """Train a network.

    Args:
        problem: What to minimise.
        weight: Its lambda.
        seed: Of order and references.
        epochs: How often every training picture is seen.
        batch: How many pictures make a step.
        rate: The learning rate to begin with.
        checkpoints: A directory of this run's own; None keeps no checkpoints. It is removed when
            the run is complete.
        every: Steps between checkpoints.
        title: Of the progress bar.
        after_step: Called with the number of steps done.
        after_epoch: Called with the number of epochs done, and the parameters.

    Returns:
        The parameters.

    Raises:
        ValueError: There are fewer training pictures than make a step.
    """
    count = len(problem.given["labels"])
    per_epoch = count // batch
    if per_epoch == 0:
        raise ValueError(f"{count} training pictures are fewer than a batch, {batch}")
    steps = per_epoch * epochs
    params = jax.tree.map(jnp.copy, problem.params)  # steps reuse the memory of their state
    state = State(params, _optimizer(steps, rate).init(params), jnp.asarray(0))
    manager = None
    if checkpoints is not None:
        options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
        manager = ocp.CheckpointManager(checkpoints.absolute(), options=options)
        if (latest := manager.latest_step()) is not None:
            restored: Any = manager.restore(latest, args=ocp.args.StandardRestore(state))
            state = State(*restored)
    take_step = _step(problem.loss, steps, rate)
    epoch, order = -1, np.empty(0)
    done = int(state.step)
    bar = tqdm(range(done, steps), title, initial=done, total=steps, leave=False, disable=None)
    for step in bar:
        if step // per_epoch != epoch:
            epoch = step // per_epoch
            order = np.random.default_rng([seed, 3, epoch]).permutation(count)
        place = step % per_epoch * batch
        state = take_step(state, order[place : place + batch], problem.given, weight, seed)
        if manager is not None and (step + 1) % every == 0 and step + 1 < steps:
            manager.save(step + 1, args=ocp.args.StandardSave(state))
        after_step(step + 1)
        if (step + 1) % per_epoch == 0:
            after_epoch((step + 1) // per_epoch, state.params)
    if manager is not None and checkpoints is not None:
        manager.close()
        shutil.rmtree(checkpoints)
    return state.params


def _optimizer(steps: int, rate: float) -> optax.GradientTransformation:
    schedule = optax.cosine_decay_schedule(rate, steps)
    return optax.adamw(schedule, weight_decay=WEIGHT_DECAY)


@functools.lru_cache(maxsize=2)
def _step(loss: Loss, steps: int, rate: float) -> Callable[..., State]:
    """Compile a step; lambda and seed are arguments, so that a sweep compiles once."""
    optimizer = _optimizer(steps, rate)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: State, batch: Any, given: Any, weight: Any, seed: Any) -> State:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        now = weight * jnp.minimum(1.0, state.step / (RAMP * steps))
        gradient = jax.grad(loss)(state.params, key, jnp.asarray(batch), given, now)
        updates, changed = optimizer.update(gradient, state.optimizer, state.params)
        return State(optax.apply_updates(state.params, updates), changed, state.step + 1)

    return step


def sweep(
    run: Callable[[Recipe, float, int], dict[str, Any] | None],
    recipe: Recipe,
    seeds: int,
    quick: bool,
) -> list[dict[str, Any]]:
    """Sweep lambda and tolerance with the first seed, and train the chosen with the other seeds.

    Args:
        run: Trains and judges: from recipe, lambda and seed to a row with `validation_score`, or
            to None where a table is asked for of what is finished alone.
        recipe: Its `weights` and `tolerances` are tried. Of equals the larger lambda is chosen,
            then the earlier tolerance.
        seeds: How many.
        quick: Whether to try only the one in the middle.

    Returns:
        All rows, with the column `chosen`; none where the sweep is not finished.
    """
    weights = recipe.weights[len(recipe.weights) // 2 :][:1] if quick else recipe.weights
    ways = [recipe._replace(tolerances=(t,)) for t in recipe.tolerances]
    if quick:
        ways = ways[len(ways) // 2 :][:1]
    tried = [(way, weight) for weight in weights[::-1] for way in ways]
    found = [(row, *one) for one in tried if (row := run(*one, 0)) is not None]
    if len(found) < len(tried):
        return []
    enough = max(row["validation_score"] for row, _, _ in found) - WITHIN
    best, way, weight = next(one for one in found if one[0]["validation_score"] >= enough)
    rows = [row | {"chosen": row is best} for row, _, _ in found]
    others = (run(way, weight, seed) for seed in range(1, seeds))
    return rows + [row | {"chosen": True} for row in others if row is not None]


class Store:
    """Finished runs, one JSON file each, and the checkpoints of unfinished ones.

    Args:
        folder: Made if need be.
        settings: What all runs of this table share; part of a run's identity.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]):
        self.folder, self.settings = folder, settings
        (folder / "runs").mkdir(parents=True, exist_ok=True)

    def name(self, recipe: Recipe, weight: float, seed: int) -> str:
        """The run's identity: whatever its numbers depend on."""
        facts = recipe._replace(weights=())._asdict() | self.settings
        digest = hashlib.sha256(repr(sorted(facts.items())).encode()).hexdigest()[:8]
        words = "".join(c if c.isalnum() else "-" for c in recipe.name)
        return f"{words}_{digest}_{weight:g}_{seed}"

    def checkpoints(self, name: str) -> Path:
        """Where the run keeps its checkpoints."""
        return self.folder / "checkpoints" / name

    def read(self, name: str) -> dict[str, Any] | None:
        """The row of a finished run."""
        path = self.folder / "runs" / f"{name}.json"
        return json.loads(path.read_text()) if path.exists() else None

    def write(self, name: str, row: dict[str, Any]) -> None:
        """Keep the row of a finished run: wholly, or not at all."""
        path = self.folder / "runs" / f"{name}.json"
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(row))
        partial.replace(path)
