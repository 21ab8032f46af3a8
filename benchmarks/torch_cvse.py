"""CVSE in plain PyTorch: the stand-in for the original program, with its names of tensors and its ways.

Nothing here calls the package. The ways that matter: captions are the literal of their bytes; no mask over words; the
visual pooling has a batch norm over the region slots, the textual one none; tensors stand twice in a state dict or are
never used; the concept graph is made anew from A at each step; the first 5,000 captions are evaluated, by
0.95 of the fused and 0.05 of the consensus similarity.
"""

import argparse
import functools
import json

import numpy as np
import torch
from nltk.tokenize import TreebankWordTokenizer
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

torch.set_num_threads(1)  # as small as all is here, more would only wait for each other

MODULES = 8
BATCH = 32  # of the losses and gradients in `results`
SHARPNESS, LABEL_RATIO, MARGIN = 10, 0.35, 0.2


def l2norm(x):
    return x / (x.pow(2).sum(dim=-1, keepdim=True).sqrt() + 1e-12)


class ImageEncoder(nn.Module):
    def __init__(self, features, dim):
        super().__init__()
        self.fc = nn.Linear(features, dim)

    def forward(self, regions):
        regions = l2norm(self.fc(regions))
        return regions, regions.mean(dim=1)


class TextEncoder(nn.Module):
    def __init__(self, vocabulary_size, word_dim, dim, dropout):
        super().__init__()
        self.embed = nn.Embedding(vocabulary_size, word_dim)
        self.rnn = nn.GRU(word_dim, dim, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens, lengths):
        packed = pack_padded_sequence(self.dropout(self.embed(tokens)), lengths, batch_first=True)
        states, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        words = l2norm(sum(states.chunk(2, dim=2)) / 2)
        return words, l2norm(words.mean(dim=1))


def branch(linear, norm, dropout=None):
    return nn.Sequential(linear, *norm, nn.Tanh(), *([] if dropout is None else [nn.Dropout(dropout)]))


class Pooling(nn.Module):
    def forward(self, elements, query):
        fit = self.embedding_1(elements) * self.embedding_2(query)[:, None]
        weights = self.embedding_3(fit).squeeze(2).softmax(dim=1)
        return l2norm((weights[:, :, None] * elements).sum(dim=1))


class VisualPooling(Pooling):
    def __init__(self, dim, regions, dropout):
        super().__init__()
        self.fc1, self.fc2, self.fc2_2 = (nn.Linear(dim, dim) for _ in range(3))
        self.fc3, self.fc4 = nn.Linear(dim, 1), nn.Linear(dim, dim)
        self.embedding_1 = branch(self.fc1, [nn.BatchNorm1d(regions)], dropout)
        self.embedding_2 = branch(self.fc2, [nn.BatchNorm1d(dim)], dropout)
        self.embedding_2_2 = branch(self.fc2_2, [nn.BatchNorm1d(dim)], dropout)
        self.embedding_3 = nn.Sequential(self.fc3)


class TextualPooling(Pooling):
    def __init__(self, dim, dropout):
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, 1)
        self.embedding_1, self.embedding_2 = branch(self.fc1, [], dropout), branch(self.fc2, [], dropout)
        self.embedding_3 = nn.Sequential(self.fc3)


class Consensus(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, 1)
        self.embedding_1 = branch(self.fc1, [nn.BatchNorm1d(dim)])
        self.embedding_2 = branch(self.fc2, [nn.BatchNorm1d(dim)])
        self.embedding_3 = nn.Sequential(self.fc3)

    def forward(self, instance, concepts, label=None):
        fit = self.embedding_1(concepts)[None] * self.embedding_2(instance)[:, None]
        scores = (SHARPNESS * self.embedding_3(fit).squeeze(2)).softmax(dim=1)
        if label is not None:
            scores = LABEL_RATIO * (SHARPNESS * label).softmax(dim=1) + (1 - LABEL_RATIO) * scores
        return l2norm(scores @ l2norm(concepts)), scores


class GraphConvolution(nn.Module):
    def __init__(self, width, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, dim) / width**0.5)

    def forward(self, nodes, matrix):
        return matrix @ (nodes @ self.weight)


class ConceptGCN(nn.Module):
    def __init__(self, adjacency, width, dim):
        super().__init__()
        self.gc1, self.gc2 = GraphConvolution(width, dim // 2), GraphConvolution(dim // 2, dim)
        self.adj_O_P, self.adj_O_M, self.adj_all = (
            nn.Parameter(torch.as_tensor(matrix)) for matrix in (adjacency.T.copy(), adjacency**2, adjacency)
        )
        self.joint_att_emb = nn.Linear(dim, dim)

    def forward(self, vectors):
        scale = self.adj_all.detach().sum(dim=1).pow(-0.5).diag()
        matrix = (self.adj_all.detach() @ scale).t() @ scale
        hidden = nn.functional.leaky_relu(self.gc1(vectors, matrix), 0.2)
        return l2norm(self.gc2(hidden, matrix))


class TorchCVSE:
    """The eight modules; not itself a module, as in the original."""

    def __init__(self, *, features, regions, vocabulary_size, word_dim, dim, adjacency, vectors, alpha, dropout=0.4):
        self.vectors, self.alpha = torch.as_tensor(vectors), alpha
        self.modules = [
            ImageEncoder(features, dim),
            TextEncoder(vocabulary_size, word_dim, dim, dropout),
            VisualPooling(dim, regions, dropout),
            TextualPooling(dim, dropout),
            Consensus(dim),
            Consensus(dim),
            ConceptGCN(adjacency, vectors.shape[1], dim),
            nn.Module(),  # the fusion has no tensors
        ]

    def state_dict(self):
        return [module.state_dict() for module in self.modules]

    def load_state_dict(self, states):
        for module, state in zip(self.modules, states[:MODULES], strict=True):
            module.load_state_dict(state)

    def train(self, mode=True):
        for module in self.modules:
            module.train(mode)

    def parameters(self):
        return [parameter for module in self.modules for parameter in module.parameters()]

    def relate(self, regions, words, lengths):
        """What stands between encoders and pooling: nothing here. Padded words are zero vectors, and cancel."""
        return (*regions, *words)

    def embed(self, regions, tokens, lengths, labels):
        """Returns (instance, consensus, fused, distribution) of pictures and of captions."""
        image_encoder, text_encoder, visual, textual, image_consensus, text_consensus, gcn = self.modules[: MODULES - 1]
        regions, region_mean = image_encoder(regions)
        words, word_mean = text_encoder(tokens, lengths)
        regions, region_mean, words, word_mean = self.relate((regions, region_mean), (words, word_mean), lengths)
        concepts = gcn(self.vectors)
        found = []
        for instance, consensus, label in (
            (visual(regions, region_mean), image_consensus, None),
            (textual(words, word_mean), text_consensus, labels),
        ):
            level, distribution = consensus(instance, concepts, label)
            found.append((instance, level, self.fuse(instance, level, len(found)), distribution))
        return found

    def fuse(self, instance, consensus, modality):
        return l2norm(self.alpha * instance + (1 - self.alpha) * consensus)


class TorchMHCVSE(TorchCVSE):
    """With self-attention before the pooling, and a learned weighted sum of the two levels: a PyTorch MH-CVSE."""

    def __init__(self, *, num_heads, dim, **others):
        super().__init__(dim=dim, **others)
        self.num_heads = num_heads
        fusion = self.modules[-1]
        fusion.joint_emb_v, fusion.joint_emb_t = nn.Linear(2 * dim, 2 * dim), nn.Linear(2 * dim, 2 * dim)
        self.modules += [nn.MultiheadAttention(dim, num_heads, batch_first=True) for _ in range(2)]

    def relate(self, regions, words, lengths):
        of_regions, of_words = self.modules[MODULES:]
        regions, words = regions[0], words[0]
        is_padding = torch.arange(words.shape[1]) >= torch.tensor(lengths)[:, None]
        regions = of_regions(regions, regions, regions, need_weights=False)[0]
        words = of_words(words, words, words, key_padding_mask=is_padding, need_weights=False)[0]
        words = words.masked_fill(is_padding[:, :, None], 0)
        return regions, regions.mean(dim=1), words, l2norm(words.sum(dim=1))

    def fuse(self, instance, consensus, modality):
        fusion = self.modules[MODULES - 1]
        linear = fusion.joint_emb_t if modality else fusion.joint_emb_v
        of_instance, of_consensus = linear(torch.cat([instance, consensus], dim=1)).sigmoid().chunk(2, dim=1)
        return l2norm(of_instance * instance + of_consensus * consensus)


def hinge(images, texts, hardest):
    similarity = images @ texts.t()
    positive = similarity.diag()
    is_self = torch.eye(len(images), dtype=torch.bool)
    against_texts = (MARGIN + similarity - positive[:, None]).clamp(min=0).masked_fill(is_self, 0)
    against_images = (MARGIN + similarity - positive[None, :]).clamp(min=0).masked_fill(is_self, 0)
    if not hardest:
        return against_texts.sum() + against_images.sum()
    return against_texts.max(dim=1)[0].sum() + against_images.max(dim=0)[0].sum()


def losses(image, text, hardest=True):
    """Returns fusion, instance, consensus and KL."""
    kl = (text[3] * (text[3].log() - image[3].log())).sum()
    return (*(hinge(image[level], text[level], hardest) for level in (2, 0, 1)), kl)


def total_loss(terms):
    return 3 * terms[0] + 5 * terms[1] + terms[2] + 2 * terms[3]


class Reader:
    """Reads a split as the original does."""

    def __init__(self, directory, split, concepts):
        self.regions = np.load(directory / f"{split}_ims.npy")
        with open(directory / f"{split}_caps.txt", "rb") as file:
            self.lines = [line.strip() for line in file]
        self.ids = json.loads((directory / "vocab.json").read_text())["word2idx"]
        self.concepts = list(concepts)
        self.num = min(5000, len(self.lines)) if split in ("dev", "test") else len(self.lines)
        self.per_image = len(self.lines) // len(self.regions)
        self.tokenize = functools.cache(TreebankWordTokenizer().tokenize)

    def own_label(self, index):
        tokens = self.tokenize(str(self.lines[index]).lstrip("b").lower())
        return np.float32([concept in tokens for concept in self.concepts])

    def image_label(self, index):
        first = index - index % self.per_image
        clean = b" ".join(self.lines[first : first + self.per_image]).decode().lower()
        label = np.float32([concept in self.tokenize(clean) for concept in self.concepts])
        return label if label.any() else np.full_like(label, 1 / len(label))

    def batch(self, indices, *, train):
        """Returns the tensors of some captions, the longest first, and their order."""
        unknown = self.ids["<unk>"]
        tokens = {
            i: [self.ids.get(token, unknown) for token in self.tokenize(str(self.lines[i]).lower())] for i in indices
        }
        tokens = {i: [self.ids["<start>"], *found, self.ids["<end>"]] for i, found in tokens.items()}
        order = sorted(indices, key=lambda i: -len(tokens[i]))
        lengths = [len(tokens[i]) for i in order]
        padded = torch.zeros(len(order), max(lengths), dtype=torch.long)
        for row, i in enumerate(order):
            padded[row, : lengths[row]] = torch.tensor(tokens[i])
        labels = [self.image_label(i) if train else self.own_label(i) for i in order]
        regions = torch.from_numpy(self.regions[[i // self.per_image for i in order]])
        return (regions, padded, lengths, torch.from_numpy(np.stack(labels))), order


def fit(model, reader, *, steps, batch_size, rate):
    """Trains for some steps: Adam, clipped gradients. All negatives count: so short a training learns by them."""
    rng = np.random.default_rng(1)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=rate)
    model.train()
    for _ in range(steps):
        batch, _ = reader.batch(rng.choice(reader.num, batch_size, replace=False).tolist(), train=True)
        optimizer.zero_grad()
        total_loss(losses(*model.embed(*batch), hardest=False)).backward()
        nn.utils.clip_grad_norm_(parameters, 2.0)
        optimizer.step()
    model.train(mode=False)


def encode(model, reader, batch_size=128):
    """Returns (instance, consensus, fused, distribution) of the picture of each caption, and of each caption."""
    model.train(mode=False)
    sides = [None, None]
    for start in range(0, reader.num, batch_size):
        batch, order = reader.batch(list(range(start, min(start + batch_size, reader.num))), train=False)
        with torch.no_grad():
            found = model.embed(*batch)
        for side, embeddings in enumerate(found):
            if sides[side] is None:
                sides[side] = [np.zeros((reader.num, values.shape[1])) for values in embeddings]
            for whole, values in zip(sides[side], embeddings, strict=True):
                whole[order] = values.numpy()
    return sides


def recalls(image, text, per_image=5):
    """Returns R@1, 5, 10 of both directions: by sorting 0.95 of the fused and 0.05 of the consensus similarity."""
    pictures = slice(None, None, per_image)
    similarity = 0.95 * image[2][pictures] @ text[2].T + 0.05 * image[1][pictures] @ text[1].T
    i2t, t2i = [], []
    for i, row in enumerate(similarity):
        ranking = np.argsort(row)[::-1]
        i2t.append(min(np.flatnonzero(ranking // per_image == i)))
    for j, column in enumerate(similarity.T):
        t2i.append(np.flatnonzero(np.argsort(column)[::-1] == j // per_image)[0])
    return [100 * float(np.mean(np.array(ranks) < k)) for ranks in (i2t, t2i) for k in (1, 5, 10)]


def results(model, directory, split, concepts):
    """Returns by name what an import is to reproduce: embeddings, recalls, and one batch's losses and gradients."""
    reader = Reader(directory, split, concepts)
    sides = encode(model, reader)
    names = ("instance", "consensus", "fused", "concepts")
    found = {
        f"{side}/{name}": values.astype(np.float32)
        for side, embeddings in zip(("image", "text"), sides, strict=True)
        for name, values in zip(names, embeddings, strict=True)
    }
    batch, order = reader.batch(list(range(BATCH)), train=False)
    terms = losses(*model.embed(*batch))
    for parameter in model.parameters():
        parameter.grad = None
    total_loss(terms).backward()
    for module, tensors in enumerate(model.modules):
        for name, tensor in tensors.named_parameters(remove_duplicate=False):
            if tensor.grad is not None:
                found[f"gradient/{module}/{name}"] = tensor.grad.numpy().copy()
    more = {"order": np.array(order), "losses": np.float32([term.item() for term in terms])}
    return found | more | {"recalls": np.array(recalls(*sides))}


def save(model, path, *, data_name="f30k_precomp", zipped=True, **changes):
    """Writes what the original writes."""
    options = argparse.Namespace(
        data_name=data_name, Concept_label_ratio=LABEL_RATIO, margin=MARGIN, resume="x", **changes
    )
    content = {"epoch": 3, "model": model.state_dict(), "best_rsum": 123.4, "opt": options, "Eiters": 41}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
