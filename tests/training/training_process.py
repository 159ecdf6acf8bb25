"""One of two processes that take a step together: started by `tests/test_training.py`.

Each has two devices and half of the batch. The step has to be that of one device.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxrel import training


def fun(params, x):
    return jax.nn.relu(x @ params) @ jnp.ones((8, 2)) * jnp.array([1.0, -0.5])


def step(params, x, labels, mask, reference):
    loss = training.relevance_loss(fun, None, training.outside_sum_squared)
    return jax.value_and_grad(lambda *a, b: loss(*a, baseline=b)[0])(
        params, x, labels, mask, b=reference
    )


def main():
    port, number = sys.argv[1:]
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{port}", 2, int(number))
    rng = np.random.default_rng(0)
    params = rng.normal(size=(6, 8)).astype(np.float32)
    x = rng.normal(size=(8, 6)).astype(np.float32)
    labels = rng.integers(0, 2, 8)
    batch = (x, labels, (x > 0).astype(np.float32), x[::-1].copy())
    expected = jax.jit(step)(params, *batch)

    mesh = Mesh(np.array(jax.devices()), ("data",))
    split = NamedSharding(mesh, PartitionSpec("data"))
    whole = NamedSharding(mesh, PartitionSpec())
    local = slice(4 * int(number), 4 * int(number) + 4)
    shards = [jax.make_array_from_process_local_data(split, leaf[local]) for leaf in batch]
    found = jax.jit(step, out_shardings=whole)(params, *shards)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a.addressable_data(0), b, 1e-4, 1e-5)
    print(f"{jax.device_count()} devices, same step")


if __name__ == "__main__":
    main()
