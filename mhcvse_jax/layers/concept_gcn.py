"""Concept vectors mixed with those of their neighbours: a graph convolution over the concept graph."""

from typing import Any, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import jraph
import numpy as np
from jax.typing import ArrayLike

from mhcvse_jax.layers.normalize import l2_normalize

ConceptGraph: TypeAlias = Any
"""A jraph.GraphsTuple as `concept_graph` makes it: `nodes` and `edges` are arrays, which its type leaves open."""


def concept_graph(
    vectors: ArrayLike, senders: ArrayLike, receivers: ArrayLike, weights: np.ndarray | jax.Array
) -> ConceptGraph:
    """Returns the graph of the propagation matrix: an edge j -> i weighs what i receives from j.

    Args:
      vectors: <float32>[concepts, width], the initial concept vectors H0.
      senders: <int32>[edges], j of each non-zero of the matrix.
      receivers: <int32>[edges], i of it.
      weights: <float32>[edges], its value.
    """
    # device_put, and indexing before it: jnp.asarray, and indexing on the device, compile a program for each array.
    return jraph.GraphsTuple(
        nodes=jax.device_put(vectors),
        edges=jax.device_put(weights[:, None]),
        senders=jax.device_put(senders),
        receivers=jax.device_put(receivers),
        globals=None,
        n_node=jax.device_put(np.array([np.shape(vectors)[0]])),
        n_edge=jax.device_put(np.array([np.shape(weights)[0]])),
    )


def propagate_sparse(graph: ConceptGraph) -> jax.Array:
    """Returns the matrix times the nodes, edge by edge: each node the weighted sum of its senders."""

    def weigh(weights: Any, senders: Any, receivers: Any, globals_: Any) -> Any:
        return weights * senders

    def receive(nodes: Any, sent: Any, received: Any, globals_: Any) -> Any:
        return received

    propagated: ConceptGraph = jraph.GraphNetwork(weigh, receive)(graph)
    return propagated.nodes


def propagate_dense(graph: ConceptGraph) -> jax.Array:
    """Returns the same as `propagate_sparse`, by one matrix product."""
    num_concepts = graph.nodes.shape[0]
    matrix = jnp.zeros((num_concepts, num_concepts), graph.edges.dtype)
    matrix = matrix.at[graph.receivers, graph.senders].add(graph.edges[:, 0])
    return matrix @ graph.nodes


class ConceptGCN(nn.Module):
    """Unit concept embeddings H: two graph convolutions, LeakyReLU between them (MH-CVSE Eq. 3).

    Deviation: Eq. 3 prints sigma(A H) W; the standard layer, which CVSE has too, is sigma(A H W), with no
    sigma after the last.

    Attributes:
      embedding_dim: D; the layer between has D / 2.
      slope: the slope of LeakyReLU below zero.
      product: "sparse" (jraph, by edges) or "dense" (one matrix product): equal.
      train_vectors: whether H0 is learned, starting from the graph's nodes.
    """

    embedding_dim: int
    slope: float
    product: str
    train_vectors: bool

    @nn.compact
    def __call__(self, graph: ConceptGraph) -> jax.Array:
        """Returns <float32>[concepts, D] for the graph that `concept_graph` makes."""
        propagate = {"sparse": propagate_sparse, "dense": propagate_dense}[self.product]
        nodes = graph.nodes
        if self.train_vectors:
            nodes = self.param("concept_vectors", lambda key: nodes)
        # The product with W goes first: it narrows what is sent along the edges.
        nodes = nn.Dense(self.embedding_dim // 2, use_bias=False, name="first")(nodes)
        nodes = nn.leaky_relu(propagate(graph._replace(nodes=nodes)), self.slope)
        nodes = nn.Dense(self.embedding_dim, use_bias=False, name="second")(nodes)
        return l2_normalize(propagate(graph._replace(nodes=nodes)))
