"""The options that all networks and their blocks have in common."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp


class Network(nn.Module, kw_only=True):
    """The options shared by all networks and their blocks.

    Attributes:
        use_bias: Whether layers have additive parameters.
        dtype: The dtype of the computation; None promotes from inputs and parameters.
        param_dtype: The dtype of the parameters.
    """

    use_bias: bool = True
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @property
    def dtypes(self) -> dict[str, Any]:
        """The two dtypes, as keyword arguments of a layer."""
        return {"dtype": self.dtype, "param_dtype": self.param_dtype}

    @property
    def options(self) -> dict[str, Any]:
        """All three options, as keyword arguments of a layer or block."""
        return {"use_bias": self.use_bias, **self.dtypes}
