"""The scores of the pair models and the generalised pooling once more, slow and obvious: NumPy in float64, loops.

Parameters are Flax's trees of the modules, as float64 arrays. Nothing here calls the package.
"""

import math

import numpy as np
from oracle import dense, gru_step, l2norm, sigmoid, softmax


def generalized_pooling(params, elements, temperature):
    """Returns the unit vector [D] of elements [elements, D]."""
    count, dim = len(elements), params["forward"]["hn"]["kernel"].shape[0]
    places = np.zeros((count, dim))
    for place in range(count):
        for i in range(0, dim, 2):
            angle = place / 10_000 ** (i / dim)
            places[place, i : i + 2] = (math.sin(angle), math.cos(angle))
    states = np.zeros((count, dim))
    for name, order in (("forward", range(count)), ("backward", reversed(range(count)))):
        h = np.zeros(dim)
        for place in order:
            h = gru_step(params[name], places[place], h)
            states[place] += h / 2
    theta = softmax(dense(params["score"], states)[:, 0] / temperature)
    pooled = np.zeros(elements.shape[1])
    for feature in range(elements.shape[1]):
        for weight, value in zip(theta, sorted(elements[:, feature], reverse=True), strict=True):
            pooled[feature] += weight * value
    return l2norm(pooled)


def scan(regions, words, direction, pooling, attention_temperature, lse_temperature):
    """Returns SCAN's score of unit vectors regions [regions, D] and words [words, D]."""
    queries, context = (words, regions) if direction == "t2i" else (regions, words)
    relevance = []
    for q, weights in zip(queries, scan_weights(queries, context, attention_temperature), strict=True):
        seen = sum(w * c for w, c in zip(weights, context, strict=True))
        relevance.append(q @ seen / math.sqrt(seen @ seen))
    if pooling == "avg":
        return sum(relevance) / len(relevance)
    return math.log(sum(math.exp(lse_temperature * r) for r in relevance)) / lse_temperature


def scan_weights(queries, context, temperature):
    """Returns how much each query attends to each of the context, [queries, context]."""
    positive = np.array([[max(q @ c, 0) for c in context] for q in queries])
    normed = np.array([l2norm(column) for column in positive.T]).T
    return np.array([softmax(temperature * row) for row in normed])


def cross_attention(params, regions, words, levels):
    """Returns the score of unit vectors regions [regions, D] and words [words, D], and each side's attention.

    The attention of a side is [layers * heads, own, other].
    """
    fragments = {"image": regions, "text": words}
    layers, heads = params["image_log_temperature"].shape
    width = regions.shape[1] // heads
    ways, attention = [], {}
    for side, other in (("text", "image"), ("image", "text")):
        own, logits = fragments[side], dense(params[f"{side}_share"], fragments[side])[:, 0]
        shares, cosines, gathered = softmax(logits), [], None
        attention[side] = np.zeros((layers * heads, len(own), len(fragments[other])))
        for layer in range(layers):
            mine, theirs = params[f"{side}_layers_{layer}"], params[f"{other}_layers_{layer}"]
            values = np.array([l2norm(dense(mine["value"], x)) for x in own])
            queries = np.array([dense(mine["query"], x) for x in own])
            if layer:
                on_own, on_gathered, bias = params[f"{side}_gates"][layer - 1]
                gate = sigmoid(on_own * queries + on_gathered * gathered + bias)
                queries = gate * queries + (1 - gate) * gathered
            gathered = np.zeros_like(own)
            for i in range(len(own)):
                for head in range(heads):
                    part = slice(head * width, (head + 1) * width)
                    temperature = math.exp(params[f"{side}_log_temperature"][layer, head])
                    alike = [l2norm(queries[i, part]) @ l2norm(dense(theirs["key"], x)[part]) for x in fragments[other]]
                    weights = softmax(temperature * np.array(alike))
                    attention[side][layer * heads + head, i] = weights
                    for weight, x in zip(weights, fragments[other], strict=True):
                        gathered[i, part] += weight * l2norm(dense(theirs["value"], x))[part]
            cosines.append([l2norm(v) @ l2norm(a) for v, a in zip(values, gathered, strict=True)])
        context = l2norm(shares @ values) @ l2norm(shares @ gathered)
        ways.append({"fragment": np.mean([shares @ np.array(found) for found in cosines]), "context": context})
    found = {name: (ways[0][name] + ways[1][name]) / 2 for name in ways[0]}
    found["global"] = l2norm(regions.mean(axis=0)) @ l2norm(words.mean(axis=0))
    chosen = np.array([found[name] for name in levels])
    return softmax(chosen @ params["level_kernel"] + params["level_bias"]) @ chosen, attention
