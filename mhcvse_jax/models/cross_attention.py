"""Two-way cross-modal attention with hierarchical fusion (arXiv:2406.15306).

Only that paper's abstract is public. It names a two-way attention between the modalities, a hierarchical fusion of
features, and an objective better suited to matching. What follows has all three and is our own design, without a
published recall to reproduce:

- *Two ways, several layers.* Words attend to regions and regions to words, by cosine, since unit vectors would leave
  plain attention uniform. Before the next layer a gate mixes each fragment's own query with what it gathered. Only
  queries depend on the pair, and feature by feature; keys and values come from one side. So no layer multiplies by a
  D x D matrix in a pair, which decides the cost of retrieval: 8 L M D operations a layer, some 20 TFLOP for 1,000 x
  5,000 pairs of 36 regions and 14 words at D 1024, where one such matrix would cost 500.
- *Three levels.* fragment: the cosine of each word, or region, with what it gathered, in all layers, weighted by a
  learned share of each fragment; context: the same shares' sum of what was gathered, against that of the fragments
  themselves; global: the whole picture against the whole caption, as an embedding model would.
- *Gates.* Feature by feature between own and gathered (above); one over the levels: softmax of a linear function of
  their similarities. It begins at equal shares. `cross_levels` leaves levels out of the score; one that chooses
  negatives keeps its hinge.
- *Objective.* The hinge of the hardest negative on the pair's score, in the mean with that of the fragment and of the
  context level alone: else the global level, which is learnt first, does all that the score needs, and the attention
  learns next to nothing. Cross-entropy of match or no match. The hinge of the global level over the whole batch
  (`loss.instance_weight`), which makes it fit to choose the negatives: only `mined_negatives` of each picture and
  caption, drawn by how alike the global level finds them, are scored as pairs. They are as hard as those of the loss:
  what the global level confuses most is too hard for levels that know nothing yet.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mhcvse_jax.errors import InputError
from mhcvse_jax.layers.captions import Captions
from mhcvse_jax.layers.concept_gcn import ConceptGraph
from mhcvse_jax.layers.cross_attention import Projected, Projections, attend
from mhcvse_jax.layers.normalize import l2_normalize
from mhcvse_jax.layers.pooling import mean_pool
from mhcvse_jax.layers.text_gru import word_mask
from mhcvse_jax.models.fragments import AttentionMaps, own_map, region_mask
from mhcvse_jax.models.pair_scores import Candidates, PairModel, PairScores, every_pair, of_matrix

LEVELS = ("fragment", "context", "global")
MATCHING_SCALE = 10.0  # of a score in the matching logit, at the start; learned


class Side(NamedTuple):
    """What is made of a picture or caption alone; with a batch axis before, of several."""

    layers: tuple[Projected, ...]
    shares: jax.Array  # <float32>[fragments] how much each counts; sums to 1, 0 at padding
    mask: jax.Array  # <bool>[fragments]
    whole: jax.Array  # <float32>[D] unit vector


class CrossAttention(PairModel):
    """The model. `config.base()` documents each attribute under the same name."""

    num_heads: int
    cross_layers: int
    cross_levels: tuple[str, ...]
    cross_temperature: float
    mined_negatives: int

    @classmethod
    def check(cls, values: Any) -> None:
        """See `Fragments`; it cannot do without heads."""
        super().check(values)
        if not values.num_heads:
            raise InputError(f"config.model.num_heads is 0; expected 1 or more for {values.name}")

    def setup(self):
        super().setup()
        layers = range(self.cross_layers)
        self.image_layers, self.text_layers = (
            [Projections(self.num_heads, self.dtype) for _ in layers] for _ in range(2)
        )
        self.image_share, self.text_share = (nn.Dense(1, use_bias=False, dtype=self.dtype) for _ in range(2))
        heads = (self.cross_layers, self.num_heads)
        self.image_temperature, self.text_temperature = (
            self.param(f"{side}_log_temperature", nn.initializers.constant(jnp.log(self.cross_temperature)), heads)
            for side in ("image", "text")
        )
        gates = (self.cross_layers - 1, 3, self.embedding_dim)  # on own, on gathered, and a bias
        self.image_gates, self.text_gates = (  # orbax saves no empty arrays: none for a single layer
            self.param(f"{side}_gates", nn.initializers.zeros, gates) if gates[0] else jnp.zeros(gates)
            for side in ("image", "text")
        )
        num_levels = len(self.cross_levels)
        self.level_kernel = self.param("level_kernel", nn.initializers.zeros, (num_levels, num_levels))
        self.level_bias = self.param("level_bias", nn.initializers.zeros, (num_levels,))
        self.matching_scale = self.param("matching_scale", nn.initializers.constant(MATCHING_SCALE), ())
        self.matching_bias = self.param("matching_bias", nn.initializers.zeros, ())

    def encode_images(
        self,
        regions: jax.Array,
        graph: ConceptGraph,
        *,
        num_regions: jax.Array | None = None,
        train: bool = False,
    ) -> Side:
        mask = region_mask(regions, num_regions)
        fragments = self.unit_regions(regions, mask)
        mask = jnp.ones(regions.shape[:2], bool) if mask is None else mask
        return self._side(fragments, mask, self.image_layers, self.image_share)

    def encode_texts(self, captions: Captions, graph: ConceptGraph, *, train: bool = False) -> Side:
        fragments, mask = self.unit_words(captions.tokens, captions.lengths, train=train), captions.mask
        return self._side(fragments, mask, self.text_layers, self.text_share)

    def _side(self, fragments: jax.Array, mask: jax.Array, layers: list[Projections], share: nn.Dense) -> Side:
        logits = jnp.where(mask, share(fragments)[..., 0].astype(jnp.float32), -jnp.inf)
        projected = tuple(layer(fragments) for layer in layers)
        return Side(projected, nn.softmax(logits), jnp.asarray(mask), l2_normalize(mean_pool(fragments, mask)))

    def score_pair(self, image: Side, text: Side) -> jax.Array:
        return self._joined(self._levels(image, text))

    def score_matrix(self, images: Side, texts: Side) -> jax.Array:
        """Returns <float32>[images, texts], the score of every picture with every caption.

        On a CPU one picture after another with all captions, then one caption after another with all pictures: its
        products have many rows then, and what stands between them stays in the caches. An accelerator has all pairs
        of a block at once.
        """

        def one_by_one(images: Side, texts: Side) -> jax.Array:
            of_words = levels_with_each(texts, images, jnp.exp(self.text_temperature), self.text_gates)
            of_regions = levels_with_each(images, texts, jnp.exp(self.image_temperature), self.image_gates)
            levels = {name: (of_words[name] + of_regions[name].T) / 2 for name in of_words}
            levels["global"] = jnp.matmul(images.whole, texts.whole.T, precision=jax.lax.Precision.HIGHEST)
            return self._joined(jnp.stack([levels[name] for name in self.cross_levels], axis=-1))

        return jax.lax.platform_dependent(images, texts, cpu=one_by_one, default=super().score_matrix)

    def attention_maps(
        self, regions: jax.Array, tokens: jax.Array, lengths: jax.Array, *, num_regions: jax.Array | None = None
    ) -> AttentionMaps:
        """See `Fragments`."""
        mask, is_word = region_mask(regions, num_regions), word_mask(lengths, tokens.shape[1])
        vectors, words = self.unit_regions(regions, mask), self.unit_words(tokens, lengths, train=False)
        everywhere = jnp.ones(regions.shape[:2], bool) if mask is None else mask
        image = self._side(vectors, everywhere, self.image_layers, self.image_share)
        text = self._side(words, is_word, self.text_layers, self.text_share)

        def weights(own: Side, other: Side, log_temperature: jax.Array, gates: jax.Array) -> jax.Array:
            return jnp.concatenate([found for _, found in attended(own, other, jnp.exp(log_temperature), gates)])

        of_pairs = jax.vmap(weights, in_axes=(0, 0, None, None))
        return AttentionMaps(
            vectors,
            words,
            text_to_image=own_map(of_pairs(text, image, self.text_temperature, self.text_gates), is_word, mask),
            image_to_text=own_map(of_pairs(image, text, self.image_temperature, self.image_gates), mask, is_word),
        )

    def _levels(self, image: Side, text: Side) -> jax.Array:
        """Returns <float32>[levels], the similarity of each of `cross_levels`."""
        ways = (
            attended_levels(text, image, jnp.exp(self.text_temperature), self.text_gates),
            attended_levels(image, text, jnp.exp(self.image_temperature), self.image_gates),
        )
        levels = {name: (ways[0][name] + ways[1][name]) / 2 for name in ways[0]}
        levels["global"] = jnp.dot(image.whole, text.whole, precision=jax.lax.Precision.HIGHEST)
        return jnp.stack([levels[name] for name in self.cross_levels])

    def _joined(self, levels: jax.Array) -> jax.Array:
        """Returns <float32>[...], the score that levels <float32>[..., levels] make together."""
        return jnp.sum(nn.softmax(levels @ self.level_kernel + self.level_bias) * levels, axis=-1)

    def score_batch(
        self, images: Side, texts: Side, is_negative: jax.Array, mining_temperature: jax.Array | float
    ) -> PairScores:
        """Returns the scores of each pair and of its mined negatives, or of all pairs where these are 0."""
        whole = jnp.matmul(images.whole, texts.whole.T, precision=jax.lax.Precision.HIGHEST)
        if self.mined_negatives:
            key = self.make_rng("dropout") if self.has_rng("dropout") else jax.random.key(0)
            likeness = drawn_likeness(key, jax.lax.stop_gradient(whole), mining_temperature)
            levels, is_text, is_image = self._mined(images, texts, jnp.where(is_negative, likeness, -jnp.inf))
        else:
            levels, is_text, is_image = of_matrix(every_pair(self._levels, images, texts), is_negative)
        needs_whole = self.mined_negatives > 0 or "global" in self.cross_levels
        scale, bias = self.matching_scale, self.matching_bias
        scores = jax.tree.map(self._joined, levels)
        return PairScores(
            scores,
            is_text,
            is_image,
            alone=tuple(
                Candidates(*(values[..., number] for values in levels))
                for number, name in enumerate(self.cross_levels)
                if name != "global"
            ),
            matching=jax.tree.map(lambda values: scale * values + bias, scores),
            whole=whole if needs_whole else None,
        )

    def _mined(self, images: Side, texts: Side, likeness: jax.Array) -> tuple[Candidates, jax.Array, jax.Array]:
        """Returns the levels of each pair with those that are most alike, and which of these are negatives.

        -inf in `likeness` <float32>[images, texts] is no negative.
        """
        num = min(self.mined_negatives, len(likeness))
        of_image, text_index = jax.lax.top_k(likeness, num)
        of_text, image_index = jax.lax.top_k(likeness.T, num)
        # A picture with its own caption and its negatives at once: its keys and values are read once for all.
        own = jnp.arange(len(likeness))[:, None]
        chosen = jax.tree.map(lambda x: x[jnp.concatenate([own, text_index], axis=1)], texts)
        levels = jax.vmap(lambda image, few: jax.vmap(lambda text: self._levels(image, text))(few))(images, chosen)
        chosen = jax.tree.map(lambda x: x[image_index], images)
        others = jax.vmap(lambda text, few: jax.vmap(lambda image: self._levels(image, text))(few))(texts, chosen)
        return Candidates(levels[:, 0], levels[:, 1:], others), jnp.isfinite(of_image), jnp.isfinite(of_text)


def drawn_likeness(key: jax.Array, likeness: jax.Array, temperature: jax.Array | float) -> jax.Array:
    """Returns values whose k largest in a row are a draw of k without replacement, by softmax(likeness / temperature).

    Gumbel's noise makes it one (Kool et al., ICML 2019, section 2.3). At temperature 0 they are the most alike.
    """
    temperature = jnp.asarray(temperature, likeness.dtype)
    is_drawn = temperature > 0
    noise = jax.random.gumbel(key, likeness.shape, likeness.dtype)
    return jnp.where(is_drawn, likeness / jnp.where(is_drawn, temperature, 1.0) + noise, likeness)


def attended_levels(own: Side, other: Side, temperature: jax.Array, gates: jax.Array) -> dict[str, jax.Array]:
    """Returns the similarities <float32> of the fragment and the context level, one direction; see `attended`."""
    found = [_flat(gathered) for gathered, _ in attended(own, other, temperature, gates)]
    cosines = [_cosine(_flat(layer.values), gathered) for layer, gathered in zip(own.layers, found, strict=True)]
    values = _flat(own.layers[-1].values).astype(jnp.float32)
    context = _cosine(own.shares @ values, own.shares @ found[-1])
    return {"fragment": jnp.mean(jnp.stack(cosines) @ own.shares), "context": context}


def levels_with_each(own: Side, others: Side, temperature: jax.Array, gates: jax.Array) -> dict[str, jax.Array]:
    """Returns what `attended_levels` does for all of several sides with each of others, <float32>[others, own] each.

    The fragments of all own sides stand in one array, heads first, so that a layer is two products a head.
    """
    number, length = own.mask.shape

    def heads_first(x: jax.Array) -> jax.Array:
        """Returns [heads, number * fragments, d]."""
        return jnp.moveaxis(x.reshape(number * length, *x.shape[2:]), 1, 0)

    all_queries = [heads_first(layer.queries) for layer in own.layers]
    all_values = [heads_first(layer.values).astype(jnp.float32) for layer in own.layers]
    norms = [_norm(values, axis=(0, 2)) for values in all_values]
    by_side = all_values[-1].reshape(len(all_values[-1]), number, length, -1)
    pooled = jnp.einsum("an,hand->had", own.shares, by_side)
    pooled_norm = _norm(pooled, axis=(0, 2))

    def with_one(other: Side) -> dict[str, jax.Array]:
        gathered, weights, other_values, cosines = jnp.zeros(0), jnp.zeros(0), jnp.zeros(0), []
        for layer, (queries, values, norm, context) in enumerate(
            zip(all_queries, all_values, norms, other.layers, strict=True)
        ):
            if layer:
                on_own, on_gathered, bias = gates[layer - 1].reshape(3, len(queries), 1, -1)
                share = nn.sigmoid(on_own * queries + on_gathered * gathered + bias)
                queries = share * queries + (1 - share) * gathered
            keys, other_values = (jnp.moveaxis(x, 1, 0) for x in (context.keys, context.values))
            scale = temperature[layer][:, None] / _norm(queries, axis=2)
            products = jnp.matmul(
                queries.astype(keys.dtype), jnp.swapaxes(keys, 1, 2), preferred_element_type=jnp.float32
            )
            logits = jnp.where(other.mask, scale[..., None] * products, -jnp.inf)
            weights = nn.softmax(logits, axis=-1).astype(other_values.dtype)
            gathered = jnp.matmul(weights, other_values, preferred_element_type=jnp.float32)
            cosines.append(jnp.sum(values * gathered, axis=(0, 2)) / (norm * _norm(gathered, axis=(0, 2))))
        fragment = jnp.mean(jnp.stack(cosines), axis=0).reshape(number, length)
        # The shares' sum of what was gathered, by way of the weights, which are fewer.
        shared = jnp.einsum("an,hanm->ham", own.shares, weights.reshape(len(weights), number, length, -1))
        found = jnp.matmul(shared.astype(other_values.dtype), other_values, preferred_element_type=jnp.float32)
        context = jnp.sum(pooled * found, axis=(0, 2)) / (pooled_norm * _norm(found, axis=(0, 2)))
        return {"fragment": jnp.sum(fragment * own.shares, axis=-1), "context": context}

    return jax.lax.map(with_one, others)


def _norm(x: jax.Array, axis: int | tuple[int, ...]) -> jax.Array:
    """Returns the length over some axes in float32, 1 for zeros, as `l2_normalize` divides by it."""
    squares = jnp.sum(jnp.square(x.astype(jnp.float32)), axis=axis)
    return jnp.sqrt(jnp.where(squares > 0, squares, 1.0))


def attended(own: Side, other: Side, temperature: jax.Array, gates: jax.Array) -> Iterator[tuple[jax.Array, jax.Array]]:
    """Yields what each fragment gathers in each layer, and its weights; see `layers.cross_attention.attend`.

    Args:
      own: the side that attends.
      other: the side that is attended to.
      temperature: <float32>[layers, heads].
      gates: <float32>[layers - 1, 3, D].
    """
    gathered = jnp.zeros(0)
    for number, (layer, context) in enumerate(zip(own.layers, other.layers, strict=True)):
        queries = layer.queries
        if number:
            on_own, on_gathered, bias = gates[number - 1].reshape(3, *queries.shape[1:])
            share = nn.sigmoid(on_own * queries + on_gathered * gathered + bias)
            queries = share * queries + (1 - share) * gathered
        gathered, weights = attend(queries, context, other.mask, temperature[number])
        yield gathered, weights


def _flat(heads: jax.Array) -> jax.Array:
    return heads.reshape(len(heads), -1)


def _cosine(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.sum(l2_normalize(x) * l2_normalize(y), axis=-1)
