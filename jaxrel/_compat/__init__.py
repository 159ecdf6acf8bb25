"""The only room that knows jax versions.

Everything here hides a difference between the two ends of the supported range (jax 0.10.2 and
0.12.0.1), or an interface of jax that is public in neither ``jax`` nor ``jax.lax``:

* ``ClosedJaxpr`` and ``Jaxpr`` are one class since 0.11; ``remat2`` carries an open jaxpr before.
* ``scan`` says how many operands are constants and carries by ``ft_in`` since 0.11, by two integers
  before.
* Equations carry their context (mesh, compute type, metadata) in ``eqn.ctx``.

Primitives are told apart by *name*: many have no public handle, and an unknown or renamed one ends
in a loud :class:`jaxrel.errors.UnsupportedPrimitive`, never in a silent default.
"""

from .binding import (
    bind,
    by_rows,
    has_derivative,
    instantiate,
    named_identity,
    run_jaxpr,
    trace_on,
    type_of,
)
from .jaxprs import (
    Jaxpr,
    JaxprEqn,
    Literal,
    Var,
    at_source,
    call_jaxpr,
    call_name,
    custom_call_name,
    device_axes,
    is_jaxpr,
    is_of_jax,
    is_unspecified,
    open_jaxpr,
    repeats,
    scan_arity,
    scopes,
    source_line,
    written_at,
)
from .meshes import (
    cotangent,
    is_explicit,
    microbatches,
    rows,
    shard_map,
    under_mesh,
    vary_like,
    vary_over,
    whole,
    zeros,
    zeros_behind,
)
from .traces import (
    is_differentiable,
    is_staged,
    is_tracer,
    is_transposable,
    strong,
)
