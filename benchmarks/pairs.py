"""How near its floor the score of pairs runs: a block of pictures and captions by the cross attention.

    python -m benchmarks.pairs                     # on a GPU
    python -m benchmarks.pairs --images 8 --captions 16 --dim 256

The floor counts the products of the attention alone, 8 L M D a layer, at the rate of a large square product measured in
turn with it. All that depends on one side is made before. What stands between the two is the softmax, the gates and the
cosines: work on memory, not on products.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing
from mhcvse_jax import config as config_lib
from mhcvse_jax import models
from mhcvse_jax.layers.captions import Captions
from mhcvse_jax.layers.concept_gcn import concept_graph
from mhcvse_jax.layers.cross_attention import pair_operations
from mhcvse_jax.training.step import init_variables

REGIONS, FEATURES = 36, 16  # few features: their projection is not timed


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = timing.parser((__doc__ or "").splitlines()[0], rounds=20)
    parser.add_argument("--images", type=int, default=32, help="of a block")
    parser.add_argument("--captions", type=int, default=64, help="of a block")
    parser.add_argument("--words", type=int, default=16, help="of each caption")
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=4096, help="of the square product that shows the device's rate")
    parser.add_argument("--dtype", choices=config_lib.CHOICES["compute_dtype"], default="float32")
    options = parser.parse_args(arguments)
    values = config_lib.base().model
    values.update({"name": "cross_attention", "embedding_dim": options.dim, "cross_layers": options.layers})
    model = models.build(values, vocabulary_size=100, dtype=options.dtype)
    one = np.ones(1, np.float32)
    graph = concept_graph(one[:, None], np.zeros(1, int), np.zeros(1, int), one)
    variables = jax.jit(lambda key: init_variables(model, graph, (REGIONS, FEATURES), key))(jax.random.key(0))
    rng = np.random.default_rng(0)
    regions = rng.standard_normal((options.images, REGIONS, FEATURES), np.float32)
    tokens = rng.integers(4, 100, (options.captions, options.words))
    texts = Captions(tokens, np.full(options.captions, options.words), np.zeros((options.captions, 1), bool))
    sides = (
        jax.jit(lambda x: model.apply(variables, x, graph, method="encode_images"))(regions),
        jax.jit(lambda x: model.apply(variables, x, graph, method="encode_texts"))(texts),
    )
    score, at_once = (
        jax.jit(lambda image, text, method=method: model.apply(variables, image, text, method=method))
        for method in (models.CrossAttention.score_matrix, models.PairModel.score_matrix)
    )
    square = jnp.ones((options.width, options.width), options.dtype)
    product = jax.jit(jnp.matmul)
    times = timing.interleave(
        {
            "pairs": lambda: score(*sides),
            "at_once": lambda: at_once(*sides),
            "product": lambda: product(square, square),
        },
        options.rounds,
    )
    pairs = options.images * options.captions
    operations = pair_operations(REGIONS, options.words, options.dim, options.layers)
    rate = 2 * options.width**3 / times["product"].median
    floor = pairs * operations / rate
    what = (
        f"scores of {options.images} x {options.captions} pairs, {REGIONS} regions, {options.words} words, "
        f"D {options.dim}, {options.layers} layers, {options.dtype}"
    )
    print(f"device    {timing.device_name()}; {what}")
    print(f"pair      {operations / 1e6:.2f} million operations; {operations * 5e6 / 1e12:.1f} TFLOP for 1,000 x 5,000")
    print(f"product   {rate / 1e12:.3f} TFLOP/s ({options.width} squared)")
    print(f"block     {1e3 * times['pairs'].median:.2f} ms ({times['pairs'].spread}); floor {1e3 * floor:.2f} ms")
    print(f"at once   {1e3 * times['at_once'].median:.2f} ms: all pairs of the block, as an accelerator has them")
    seconds = times["pairs"].median * 5e6 / pairs
    print(f"all       {pairs / times['pairs'].median:,.0f} pairs/s: {seconds:,.1f} s for 1,000 x 5,000")
    result = timing.row(
        f"{what}, against the floor",
        ours=1e3 * times["pairs"].median,
        theirs=1e3 * floor,
        ratio=floor / times["pairs"].median,
        unit="ms",
        spread=times["pairs"].spread,
    )
    timing.save(options.output, [result])


if __name__ == "__main__":
    main()
