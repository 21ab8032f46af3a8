"""Parameters of models, drawn without a program of theirs that would have to be compiled."""

import jax
import numpy as np

from mhcvse_jax.training.step import init_variables


def random_variables(model, graph, regions_shape):
    """Every parameter and statistic random: no bias at 0, no scale at 1, no gate at its start."""
    rng = np.random.default_rng(3)
    shapes = jax.eval_shape(lambda key: init_variables(model, graph, regions_shape, key), jax.random.key(0))

    def fill(path, leaf):
        if path[-1].key in ("var", "scale"):
            return rng.uniform(0.5, 1.5, leaf.shape).astype(leaf.dtype)
        spread = 2 / np.sqrt(leaf.shape[0]) if path[-1].key in ("kernel", "embedding") else 0.5
        return (spread * rng.normal(size=leaf.shape)).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, shapes)
