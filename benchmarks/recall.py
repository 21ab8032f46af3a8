"""Recall of a test split from its embeddings: ours on the device, against NumPy loops that sort.

    python -m benchmarks.recall

The loops are what programs of this field publish: for each query a product, an argsort of all candidates and a search
for the right one. Both are given the same embeddings and must find the same ranks. Beside them the product of the
embeddings alone, which no way to the ranks can do without.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing
from mhcvse_jax.retrieval.ranks import ranks
from mhcvse_jax.retrieval.recall import Ranks, Retrieval, recall


def sorted_ranks(images: np.ndarray, captions: np.ndarray, captions_per_image: int) -> Ranks:
    """Returns the ranks from 1, a query at a time, by sorting its candidates."""
    i2t = np.zeros(len(images), np.int32)
    t2i = np.zeros(len(captions), np.int32)
    for image in range(len(images)):
        own = range(captions_per_image * image, captions_per_image * (image + 1))
        order = np.argsort(np.dot(images[image : image + 1], captions.T).flatten())[::-1]
        i2t[image] = 1 + min(np.where(order == caption)[0][0] for caption in own)
        similarity = np.dot(captions[own.start : own.stop], images.T)
        for caption, row in zip(own, similarity, strict=True):
            order = np.argsort(row)[::-1]
            t2i[caption] = 1 + np.where(order == image)[0][0]
    return Ranks(i2t, t2i)


def make_embeddings(num_images: int, captions_per_image: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns unit vectors of pictures and captions, a caption near its picture."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((num_images, dim), dtype=np.float32)
    noise = rng.standard_normal((num_images * captions_per_image, dim), dtype=np.float32)
    captions = np.repeat(images, captions_per_image, axis=0) + 10 * noise
    images, captions = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (images, captions))
    return images, captions


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = timing.parser((__doc__ or "").splitlines()[0], rounds=5)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--captions_per_image", type=int, default=5)
    parser.add_argument("--dim", type=int, default=1024)
    options = parser.parse_args(arguments)
    images, captions = make_embeddings(options.images, options.captions_per_image, options.dim)
    image_of_caption = np.repeat(np.arange(options.images), options.captions_per_image)
    on_device = jnp.asarray(images), jnp.asarray(captions)

    def measured(found: Ranks) -> Retrieval:
        return Retrieval(recall(found.i2t), recall(found.t2i))

    def ours() -> Retrieval:
        return measured(ranks(*on_device, image_of_caption))

    @jax.jit
    def product(images: jax.Array, captions: jax.Array) -> jax.Array:
        return jnp.matmul(images, captions.T, precision=jax.lax.Precision.HIGHEST)

    def theirs() -> Retrieval:
        return measured(sorted_ranks(images, captions, options.captions_per_image))

    expected = theirs()
    difference = max(np.abs(np.subtract(a, b)).max() for a, b in zip(ours(), expected, strict=True))
    assert difference < 0.1, f"the two differ by {difference}; expected the same recalls, but for rounding"
    programs = {"ours": ours, "theirs": theirs, "product": lambda: product(*on_device)}
    times = timing.interleave(programs, options.rounds)
    products = 1 / timing.cpu_ratio(times["product"], times["ours"])
    speed = timing.ratio(times["theirs"], times["ours"])
    what = f"recall of {options.images:,} x {len(captions):,}, D {options.dim}"
    print(f"device    {timing.device_name()}; {what}; R@1 {expected.i2t.r1:.1f} i2t, {expected.t2i.r1:.1f} t2i")
    for name, time in times.items():
        print(f"{name:<9} {1e3 * time.median:.1f} ms ({time.spread})")
    print(f"ratio     {speed:.1f}; {products:.2f} times the CPU time of the product alone")
    result = timing.row(
        f"{what}, against NumPy loops",
        ours=1e3 * times["ours"].median,
        theirs=1e3 * times["theirs"].median,
        ratio=speed,
        unit="ms",
        spread=f"{times['ours'].spread} against {times['theirs'].spread}",
        cpu_ratio=round(timing.cpu_ratio(times["theirs"], times["ours"]), 2),
        times_the_product=round(products, 2),
    )
    timing.save(options.output, [result])


if __name__ == "__main__":
    main()
