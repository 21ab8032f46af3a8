"""Which of our parameters each tensor of a PyTorch CVSE is; import and export read the same table.

The checkpoint holds a list of state dicts, one per module:

    0  image encoder             fc
    1  text encoder              embed, rnn (a Bi-GRU; gates r, z, n)
    2  visual attention pooling  embedding_1 .. 3: Linear .0, BatchNorm .1; fc1 .. fc3 are the same tensors again
    3  textual attention pooling the same without batch norm
    4  visual consensus          embedding_1 (of concepts), embedding_2 (of the instance), embedding_3 (of both)
    5  textual consensus         the same
    6  concept GCN               gc1, gc2, adj_all (A)
    7  fusion                    nothing for a fixed sum; joint_emb_v, joint_emb_t where it is learned
    8  visual self-attention     of a PyTorch MH-CVSE: one nn.MultiheadAttention, in_proj_weight, in_proj_bias,
    9  textual self-attention    out_proj.weight, out_proj.bias, under any one prefix
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util

MODULES = (
    "image encoder",
    "text encoder",
    "visual attention pooling",
    "textual attention pooling",
    "visual consensus",
    "textual consensus",
    "concept GCN",
    "fusion",
    "visual self-attention",
    "textual self-attention",
)
IMAGE, TEXT, IMAGE_POOLING, TEXT_POOLING, IMAGE_CONSENSUS, TEXT_CONSENSUS, GCN, FUSION, *SELF_ATTENTIONS = range(10)

StateDicts = list[dict[str, np.ndarray]]
Arrays = Mapping[str, np.ndarray]  # by path, `params/region_projection/kernel` for example


class Place(NamedTuple):
    """A tensor of the original and the array here that holds it."""

    module: int
    name: str
    path: str
    transposed: bool


def _linear(module: int, name: str, owner: str) -> list[Place]:
    return [
        Place(module, f"{name}.weight", f"params/{owner}/kernel", True),
        Place(module, f"{name}.bias", f"params/{owner}/bias", False),
    ]


def _batch_norm(module: int, name: str, owner: str) -> list[Place]:
    return [
        Place(module, f"{name}.weight", f"params/{owner}/scale", False),
        Place(module, f"{name}.bias", f"params/{owner}/bias", False),
        Place(module, f"{name}.running_mean", f"batch_stats/{owner}/mean", False),
        Place(module, f"{name}.running_var", f"batch_stats/{owner}/var", False),
    ]


def _pooling(module: int, owner: str) -> list[Place]:
    return [
        *_linear(module, "embedding_1.0", f"{owner}/element"),
        *_batch_norm(module, "embedding_1.1", f"{owner}/element_norm"),
        *_linear(module, "embedding_2.0", f"{owner}/query"),
        *_batch_norm(module, "embedding_2.1", f"{owner}/query_norm"),
        *_linear(module, "embedding_3.0", f"{owner}/score"),
    ]


def _consensus(module: int, owner: str) -> list[Place]:
    return [
        *_linear(module, "embedding_1.0", f"{owner}/concept"),
        *_batch_norm(module, "embedding_1.1", f"{owner}/concept_norm"),
        *_linear(module, "embedding_2.0", f"{owner}/instance"),
        *_batch_norm(module, "embedding_2.1", f"{owner}/instance_norm"),
        Place(module, "embedding_3.0.weight", f"params/{owner}/weight", True),
    ]


PLACES = [
    *_linear(IMAGE, "fc", "region_projection"),
    Place(TEXT, "embed.weight", "params/text_gru/embed/embedding", False),
    *_pooling(IMAGE_POOLING, "image_pooling"),
    *_pooling(TEXT_POOLING, "text_pooling"),
    *_consensus(IMAGE_CONSENSUS, "image_consensus"),
    *_consensus(TEXT_CONSENSUS, "text_consensus"),
    Place(GCN, "gc1.weight", "params/concept_gcn/first/kernel", False),
    Place(GCN, "gc2.weight", "params/concept_gcn/second/kernel", False),
    *_linear(FUSION, "joint_emb_v", "image_fusion/linear"),
    *_linear(FUSION, "joint_emb_t", "text_fusion/linear"),
]
"""All that is one tensor there and one array here. The GRU and the self-attentions have their own functions."""

_DIRECTIONS = {"l0": "params/text_gru/forward", "l0_reverse": "params/text_gru/backward"}
_ATTENTIONS = dict(zip(SELF_ATTENTIONS, (f"params/{of}_attention/attention" for of in ("image", "text")), strict=True))
_COPIES = {"fc1": "embedding_1.0", "fc2": "embedding_2.0", "fc3": "embedding_3.0"}


def to_state_dicts(arrays: Arrays, adjacency: np.ndarray) -> StateDicts:
    """Returns the tensors that the original uses, from our arrays and A, <float32>[concepts, concepts]."""
    has_attention = any(path.startswith(owner) for path in arrays for owner in _ATTENTIONS.values())
    states: StateDicts = [{} for _ in range(len(MODULES) if has_attention else FUSION + 1)]
    for place in PLACES:
        if place.path in arrays:
            array = arrays[place.path]
            states[place.module][place.name] = array.T if place.transposed else array
    for suffix, owner in _DIRECTIONS.items():
        states[TEXT] |= _gru_to_torch(arrays, owner, suffix)
    states[GCN]["adj_all"] = adjacency
    if has_attention:
        for module, owner in _ATTENTIONS.items():
            states[module] = _attention_to_torch(arrays, owner)
    return states


def to_arrays(states: StateDicts, like: Arrays) -> dict[str, np.ndarray]:
    """Returns our arrays from the tensors that `to_state_dicts` names; `like` has the arrays' paths and shapes."""
    arrays = {}
    for place in PLACES:
        if place.path in like:
            tensor = states[place.module][place.name]
            arrays[place.path] = tensor.T if place.transposed else tensor
    for suffix, owner in _DIRECTIONS.items():
        arrays |= _gru_from_torch(states[TEXT], owner, suffix)
    for module, owner in _ATTENTIONS.items():
        if module < len(states):
            arrays |= _attention_from_torch(states[module], owner, like)
    return arrays


def _gru_to_torch(arrays: Arrays, owner: str, suffix: str) -> dict[str, np.ndarray]:
    """Returns one direction's tensors, the rows of r, z and n stacked; r and z have two biases there and one here."""
    of_state = np.zeros_like(arrays[f"{owner}/hn/bias"])
    return {
        f"rnn.weight_ih_{suffix}": np.concatenate([arrays[f"{owner}/i{gate}/kernel"].T for gate in "rzn"]),
        f"rnn.weight_hh_{suffix}": np.concatenate([arrays[f"{owner}/h{gate}/kernel"].T for gate in "rzn"]),
        f"rnn.bias_ih_{suffix}": np.concatenate([arrays[f"{owner}/i{gate}/bias"] for gate in "rzn"]),
        f"rnn.bias_hh_{suffix}": np.concatenate([of_state, of_state, arrays[f"{owner}/hn/bias"]]),
    }


def _gru_from_torch(state: Mapping[str, np.ndarray], owner: str, suffix: str) -> dict[str, np.ndarray]:
    arrays = {}
    weights_ih, weights_hh, biases_ih, biases_hh = (
        np.split(state[f"rnn.{name}_{suffix}"], 3) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    for i, gate in enumerate("rzn"):
        arrays[f"{owner}/i{gate}/kernel"] = weights_ih[i].T
        arrays[f"{owner}/h{gate}/kernel"] = weights_hh[i].T
        arrays[f"{owner}/i{gate}/bias"] = biases_ih[i] if gate == "n" else biases_ih[i] + biases_hh[i]
    arrays[f"{owner}/hn/bias"] = biases_hh[2]
    return arrays


def _attention_to_torch(arrays: Arrays, owner: str) -> dict[str, np.ndarray]:
    names = ("query", "key", "value")
    dim = arrays[f"{owner}/query/kernel"].shape[0]
    return {
        "in_proj_weight": np.concatenate([arrays[f"{owner}/{name}/kernel"].reshape(dim, dim).T for name in names]),
        "in_proj_bias": np.concatenate([arrays[f"{owner}/{name}/bias"].reshape(dim) for name in names]),
        "out_proj.weight": arrays[f"{owner}/out/kernel"].reshape(dim, dim).T,
        "out_proj.bias": arrays[f"{owner}/out/bias"],
    }


def _attention_from_torch(state: Mapping[str, np.ndarray], owner: str, like: Arrays) -> dict[str, np.ndarray]:
    arrays = {}
    for name, weight, bias in zip(
        ("query", "key", "value"),
        np.split(state["in_proj_weight"], 3),
        np.split(state["in_proj_bias"], 3),
        strict=True,
    ):
        arrays[f"{owner}/{name}/kernel"] = weight.T.reshape(like[f"{owner}/{name}/kernel"].shape)
        arrays[f"{owner}/{name}/bias"] = bias.reshape(like[f"{owner}/{name}/bias"].shape)
    arrays[f"{owner}/out/kernel"] = state["out_proj.weight"].T.reshape(like[f"{owner}/out/kernel"].shape)
    arrays[f"{owner}/out/bias"] = state["out_proj.bias"]
    return arrays


def unused(states: StateDicts) -> StateDicts:
    """Returns the tensors that the original's modules hold but do not use: copies, and tensors that nothing reads.

    Their values are what an export writes: zeros where nothing depends on them (the bias of the consensus scores
    cancels in their softmax), neutral batch norms, and identities for the two graphs that it reads but does not use.
    """
    result: StateDicts = [{} for _ in states]
    for module in (IMAGE_POOLING, TEXT_POOLING, IMAGE_CONSENSUS, TEXT_CONSENSUS):
        state, extra = states[module], result[module]
        if not state:
            continue  # pooling is the mean
        if module in (IMAGE_CONSENSUS, TEXT_CONSENSUS):
            extra["embedding_3.0.bias"] = np.zeros(1, np.float32)
        for copy, name in _COPIES.items():
            for kind in ("weight", "bias"):
                key = f"{name}.{kind}"
                extra[f"{copy}.{kind}"] = state[key] if key in state else extra[key]
        if module == IMAGE_POOLING:
            dim = len(state["embedding_2.0.bias"])
            weight, bias = np.zeros((dim, dim), np.float32), np.zeros(dim, np.float32)
            for name in ("fc2_2", "fc4", "embedding_2_2.0"):
                extra |= {f"{name}.weight": weight, f"{name}.bias": bias}
            one = np.ones(dim, np.float32)
            for name, value in {"weight": one, "bias": bias, "running_mean": bias, "running_var": one}.items():
                extra[f"embedding_2_2.1.{name}"] = value
        norms = [name for name in (*state, *extra) if name.endswith(".running_mean")]
        for name in norms:
            extra[name.replace("running_mean", "num_batches_tracked")] = np.zeros((), np.int64)
    num_concepts, dim = len(states[GCN]["adj_all"]), states[GCN]["gc2.weight"].shape[1]
    for name in ("adj_O_P", "adj_O_M"):
        result[GCN][name] = np.eye(num_concepts, dtype=np.float32)
    result[GCN]["joint_att_emb.weight"] = np.zeros((dim, dim), np.float32)
    result[GCN]["joint_att_emb.bias"] = np.zeros(dim, np.float32)
    return result


def copied(module: int, name: str) -> str | None:
    """Returns the name of the tensor that a module's tensor copies; None if it is not a copy."""
    owner, _, kind = name.partition(".")
    if owner in _COPIES and IMAGE_POOLING <= module <= TEXT_CONSENSUS:
        return f"{_COPIES[owner]}.{kind}"
    return None


def flatten(variables: Any) -> dict[str, Any]:
    """Returns the leaves of {params, batch_stats} by their path."""
    return traverse_util.flatten_dict(variables, sep="/")


def unflatten(arrays: Arrays) -> dict[str, Any]:
    """Returns {params, batch_stats} from what `flatten` returned."""
    return {"batch_stats": {}} | traverse_util.unflatten_dict(dict(arrays), sep="/")
