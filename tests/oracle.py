"""The equations once more, slow and obvious: NumPy in float64, loops in place of tricks.

Parameters are Flax's trees of the modules, as float64 arrays. Nothing here calls the package.
"""

import math
from types import SimpleNamespace

import numpy as np

FORWARD, BACKWARD = "forward", "backward"


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - np.max(x))
    return e / np.sum(e)


def l2norm(x):
    length = math.sqrt(np.sum(x * x))
    return x / length if length else x


def dense(params, x):
    y = x @ params["kernel"]
    return y + params["bias"] if "bias" in params else y


def layer_norm(params, x):
    y = np.empty_like(x)
    for i in np.ndindex(x.shape[:-1]):
        y[i] = (x[i] - x[i].mean()) / math.sqrt(x[i].var() + 1e-6)
    return y * params["scale"] + params["bias"]


def batch_norm(params, running, x, axis, train):
    """Returns x normalised for each index of `axis`, and the running statistics after it."""
    y, after = np.empty_like(x), {"mean": running["mean"].copy(), "var": running["var"].copy()}
    for i in range(x.shape[axis]):
        at = tuple(i if a == axis % x.ndim else slice(None) for a in range(x.ndim))
        mean, var = running["mean"][i], running["var"][i]
        if train:
            mean, var = x[at].mean(), x[at].var()
            after["mean"][i] = 0.9 * running["mean"][i] + 0.1 * mean
            after["var"][i] = 0.9 * running["var"][i] + 0.1 * var
        y[at] = (x[at] - mean) / math.sqrt(var + 1e-5) * params["scale"][i] + params["bias"][i]
    return y, after


def gru_step(params, x, h):
    r = sigmoid(dense(params["ir"], x) + dense(params["hr"], h))
    z = sigmoid(dense(params["iz"], x) + dense(params["hz"], h))
    n = np.tanh(dense(params["in"], x) + r * dense(params["hn"], h))
    return (1 - z) * n + z * h


def text_gru(params, tokens, lengths):
    """Returns [captions, words, D] unit vectors, zero at padding."""
    dim = params[FORWARD]["hn"]["kernel"].shape[0]
    output = np.zeros((*tokens.shape, dim))
    for caption, length in enumerate(lengths):
        words = [params["embed"]["embedding"][token] for token in tokens[caption, :length]]
        states = np.zeros((2, length, dim))
        h = np.zeros(dim)
        for i in range(length):
            h = states[0, i] = gru_step(params[FORWARD], words[i], h)
        h = np.zeros(dim)
        for i in reversed(range(length)):
            h = states[1, i] = gru_step(params[BACKWARD], words[i], h)
        for i in range(length):
            output[caption, i] = l2norm((states[0, i] + states[1, i]) / 2)
    return output


def attention(params, x, counts):
    """Returns what each element gathers, [batch, elements, D], and the weights, [batch, head, query, key].

    The first `counts[b]` elements are attended to, by all.
    """
    batch, num, dim = x.shape
    heads, width = params["query"]["bias"].shape
    output, weights = np.zeros((batch, num, dim)), np.zeros((batch, heads, num, num))
    for b in range(batch):
        for head in range(heads):
            q, k, v = (
                x[b] @ params[name]["kernel"][:, head] + params[name]["bias"][head]
                for name in ("query", "key", "value")
            )
            for i in range(num):
                logits = np.array([q[i] @ k[j] for j in range(counts[b])]) / math.sqrt(width)
                weights[b, head, i, : counts[b]] = softmax(logits)
                gathered = sum(weights[b, head, i, j] * v[j] for j in range(counts[b]))
                output[b, i] += gathered @ params["out"]["kernel"][head]
        output[b] += params["out"]["bias"]
    return output, weights


def self_attention(params, x, counts, form, residual):
    if form == "scaled":
        x = x * math.sqrt(x.shape[-1])
    elif form == "layer_norm":
        x = layer_norm(params["norm"], x)
    attended = attention(params["attention"], x, counts)[0]
    return x + attended if residual else attended


def entropy(weights, counts):
    """Returns the mean over pairs' own queries and heads, as a share of what uniform weights have."""
    shares = []
    for b, count in enumerate(counts):
        for head in range(weights.shape[1]):
            for i in range(count):
                p = weights[b, head, i, :count]
                shares.append(-np.sum(p * np.log(p)) / math.log(count))
    return np.mean(shares)


def mean_pool(x, counts):
    return np.array([sum(x[b, :count]) / count for b, count in enumerate(counts)])


def attention_pooling(params, running, x, counts, train):
    """Returns [batch, D] and the running statistics after it; batch norm where there are statistics."""
    query, after = mean_pool(x, counts), {}
    if not running:
        query = np.array([l2norm(q) for q in query])
    g1, g2 = dense(params["element"], x), dense(params["query"], query)
    if running:
        g1, after["element_norm"] = batch_norm(params["element_norm"], running["element_norm"], g1, 1, train)
        g2, after["query_norm"] = batch_norm(params["query_norm"], running["query_norm"], g2, 1, train)
    g1, g2 = np.tanh(g1), np.tanh(g2)
    pooled = []
    for b, count in enumerate(counts):
        scores = np.array([dense(params["score"], g1[b, i] * g2[b])[0] for i in range(count)])
        pooled.append(l2norm(softmax(scores) @ x[b, :count]))
    return np.array(pooled), after


def concept_gcn(params, matrix, vectors, slope):
    """Returns unit concept embeddings; `matrix[i, j]` is what i receives from j."""
    vectors = params.get("concept_vectors", vectors)
    hidden = matrix @ vectors @ params["first"]["kernel"]
    hidden = np.where(hidden > 0, hidden, slope * hidden)
    return np.array([l2norm(h) for h in matrix @ hidden @ params["second"]["kernel"]])


def consensus(params, running, x, concepts, norm, temperature, labels, label_temperature, share, train):
    """Returns the embeddings, the distributions and the running statistics; `labels` is None for pictures."""
    branches, after = {}, {}
    for name, values in (("concept", concepts), ("instance", x)):
        y, normed = dense(params[name], values), f"{name}_norm"
        if norm == "batch":
            y, after[normed] = batch_norm(params[normed], running[normed], y, 1, train)
        else:
            y = layer_norm(params[normed], y)
        branches[name] = np.tanh(y)
    embeddings, distributions = [], []
    for b in range(len(x)):
        a = np.array([sum(params["weight"][:, 0] * g1 * branches["instance"][b]) for g1 in branches["concept"]])
        p = softmax(temperature * a)
        if labels is not None:
            p = share * softmax(label_temperature * labels[b].astype(float)) + (1 - share) * p
        distributions.append(p)
        embeddings.append(l2norm(sum(p[c] * concepts[c] for c in range(len(concepts)))))
    return np.array(embeddings), np.array(distributions), after


def fuse(params, kind, alpha, x, y):
    fused = []
    for instance, agreed in zip(x, y, strict=True):
        both = np.concatenate([instance, agreed])
        if kind == "concat":
            z = dense(params["linear"], both)
        elif kind == "adap_sum":
            share = sigmoid(dense(params["linear"], (instance + agreed) / 2))[0]
            z = share * instance + (1 - share) * agreed
        elif kind == "weight_sum":
            w = sigmoid(dense(params["linear"], both))
            z = w[: len(instance)] * instance + w[len(instance) :] * agreed
        else:
            z = alpha * instance + (1 - alpha) * agreed
        fused.append(l2norm(z))
    return np.array(fused)


def mhcvse(config, variables, regions, tokens, lengths, labels, vectors, matrix, train):
    """Returns the embeddings of pictures and of captions, and the running statistics after them.

    Args:
      config: `config.model` and `config.fixed_instance_weight`, ... by attribute.
      variables: the `params` and `batch_stats` of the model, float64.
      regions: [batch, regions, features].
      tokens: [batch, words].
      lengths: [batch].
      labels: [batch, concepts].
      vectors: [concepts, width].
      matrix: [concepts, concepts].
      train: whether batch norm uses the batch.
    """
    params, running = variables["params"], variables.get("batch_stats", {})
    concepts = concept_gcn(params["concept_gcn"], matrix, vectors, config.graph_slope)
    projected = dense(params["region_projection"], regions)
    if config.region_mlp_dim:
        hidden = dense(params["region_mlp_hidden"], regions)
        projected = projected + dense(params["region_mlp_out"], np.maximum(hidden, 0))
    elements = {
        "image": np.array([[l2norm(region) for region in picture] for picture in projected]),
        "text": text_gru(params["text_gru"], tokens, lengths),
    }
    counts = {"image": [regions.shape[1]] * len(regions), "text": lengths}
    embeddings, after = [], {}
    for side, x in elements.items():
        if config.num_heads:
            x = self_attention(
                params[f"{side}_attention"], x, counts[side], config.attention_input, config.attention_residual
            )
        if config.pooling == "attention":
            name = f"{side}_pooling"
            instance, statistics = attention_pooling(params[name], running.get(name), x, counts[side], train)
            after |= {name: statistics} if statistics else {}
        else:
            instance = np.array([l2norm(pooled) for pooled in mean_pool(x, counts[side])])
        name = f"{side}_consensus"
        agreed, distribution, statistics = consensus(
            params[name],
            running.get(name),
            instance,
            concepts,
            config.consensus_norm,
            config.consensus_temperature,
            labels if side == "text" else None,
            config.label_temperature,
            config.label_share,
            train,
        )
        after |= {name: statistics} if statistics else {}
        fused = fuse(params.get(f"{side}_fusion"), config.fusion, config.fixed_instance_weight, instance, agreed)
        embeddings.append(SimpleNamespace(instance=instance, consensus=agreed, fused=fused, concepts=distribution))
    return *embeddings, after


def hinge(similarity, image_index, margin, mask_same_image, hardest):
    """Returns the contrastive loss of each pair."""
    num, losses = len(similarity), []
    for i in range(num):
        texts, images = [0.0], [0.0]
        for j in range(num):
            if i == j or (mask_same_image and image_index[i] == image_index[j]):
                continue
            texts.append(max(0.0, margin + similarity[i, j] - similarity[i, i]))
            images.append(max(0.0, margin + similarity[j, i] - similarity[i, i]))
        losses.append(max(texts) + max(images) if hardest else sum(texts) + sum(images))
    return np.array(losses)


def _negatives_of(similarity, image_index):
    """Yields each pair's own similarity and those of its negatives, first of its picture, then of its caption."""
    num = len(similarity)
    for i in range(num):
        others = [j for j in range(num) if image_index[j] != image_index[i]]
        yield similarity[i, i], [[similarity[i, j] for j in others], [similarity[j, i] for j in others]]


def soft_hinge(similarity, image_index, margin, temperature):
    """Returns the contrastive loss of each pair by soft negatives, those of one picture masked."""
    losses = []
    for own, directions in _negatives_of(similarity, image_index):
        loss = 0.0
        for negatives in directions:
            weights = [math.exp(value / temperature) for value in negatives]
            excess = [max(0.0, margin + value - own) for value in negatives]
            loss += sum(w * e for w, e in zip(weights, excess, strict=True)) / sum(weights)
        losses.append(loss)
    return np.array(losses)


def infonce(similarity, image_index, scale):
    """Returns the cross-entropy of each pair among its negatives, both directions, those of one picture masked."""
    return np.array(
        [
            sum(-math.log(1 / (1 + sum(math.exp(scale * (value - own)) for value in one))) for one in directions)
            for own, directions in _negatives_of(similarity, image_index)
        ]
    )


def kl(text, image):
    """Returns KL(text || image) of each row."""
    return np.array(
        [sum(p * math.log(p / q) for p, q in zip(*rows, strict=True)) for rows in zip(text, image, strict=True)]
    )


def losses(image, text, image_index, margin, mask_same_image, hardest, reduction):
    """Returns the four terms by name."""
    reduce = {"sum": np.sum, "mean": np.mean}[reduction]

    def contrast(images, texts):
        return reduce(hinge(images @ texts.T, image_index, margin, mask_same_image, hardest))

    return {
        "fusion": contrast(image.fused, text.fused),
        "instance": contrast(image.instance, text.instance),
        "consensus": contrast(image.consensus, text.consensus),
        "kl": reduce(kl(text.concepts, image.concepts)),
    }


def term_weight(loss, base, weighting):
    return {
        "eq15": lambda: base / (1 + math.exp(-loss)),
        "inverse": lambda: base / (1 + math.exp(loss)),
        "fixed": lambda: base,
    }[weighting]()


def ranks(similarity, image_of_text):
    """Returns the ranks of pictures (of their best caption) and of captions; ties count against the model.

    A picture without captions has rank 0.
    """
    i2t, t2i = [], []
    for image, row in enumerate(similarity):
        own = [score for score, owner in zip(row, image_of_text, strict=True) if owner == image]
        if not own:
            i2t.append(0)
            continue
        best = max(own)
        wrong = [score for score, owner in zip(row, image_of_text, strict=True) if owner != image]
        i2t.append(1 + sum(score >= best for score in wrong))
    for text, owner in enumerate(image_of_text):
        column = similarity[:, text]
        others = [score for image, score in enumerate(column) if image != owner]
        t2i.append(1 + sum(score >= column[owner] for score in others))
    return np.array(i2t), np.array(t2i)


def completion_neighbours(image, text, own_share, picture_share):
    """Returns the set of neighbours of each caption in CVSE's label completion."""
    count = len(text)
    found = []
    for i in range(count):
        to_text = [float(text[i] @ text[j]) if j != i else 0.0 for j in range(count)]
        a = sorted(range(count), key=lambda j: -to_text[j])[:10]
        picture = max(range(len(image)), key=lambda p: float(image[p] @ text[i]))
        ranking = sorted(range(count), key=lambda j: -float(image[picture] @ text[j]))
        place = ranking.index(i)
        if place >= count - 3:
            b = ranking[-3:]
        elif place > 1:
            b = ranking[place - 1 : place + 2]
        else:
            b = ranking[:3]
        common = [j for j in a if j in b]
        found.append(set(common if len(common) >= 3 else a[:own_share] + b[:picture_share]))
    return found
