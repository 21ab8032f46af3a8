"""MH-CVSE in PyTorch: the same parts, sizes and losses, to be raced against.

Two ways to write it. Plain, as programs of this field publish it: attention by its formula, every caption of a batch
sorted for a packed GRU, a sparse graph made dense, Adam as it comes. Fast, as well as PyTorch can be: the packed
cuDNN GRU, `scaled_dot_product_attention`, fused Adam, bfloat16 by autocast, `torch.compile` of what has no
recurrence. Both may average the attention as ours does (`pooled`); a program as published does not.
"""

from typing import Any

import jax
import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]
from torch.nn import functional  # pyright: ignore[reportMissingImports]
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence  # pyright: ignore[reportMissingImports]

from mhcvse_jax.data.batches import Batch
from mhcvse_jax.layers.concept_gcn import ConceptGraph


def unit(x: torch.Tensor) -> torch.Tensor:
    """Returns float32 vectors of unit length."""
    return functional.normalize(x.float(), dim=-1)


class Attention(nn.Module):
    """Self-attention, then the mean over the elements."""

    def __init__(self, dim: int, heads: int, *, fast: bool, pooled: bool):
        super().__init__()
        self.heads, self.fast, self.pooled = heads, fast, pooled
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        x = x * x.shape[-1] ** 0.5
        batch, elements, dim = x.shape
        query, key = (self._heads(layer(x)) for layer in (self.query, self.key))
        keep = None if mask is None else mask[:, None, None, :]
        if self.pooled:
            shares = self._mean(self._weights(query, key, keep).permute(0, 2, 1, 3).flatten(2), mask)
            seen = shares.view(batch, self.heads, elements).to(x.dtype) @ x
            kernel = self.value.weight.view(self.heads, dim // self.heads, dim)
            attended = torch.einsum("bhd,hkd->bhk", seen, kernel).flatten(1) + self.value.bias
            return self.out(attended)
        value = self._heads(self.value(x))
        if self.fast:
            attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=keep)
        else:
            attended = self._weights(query, key, keep) @ value
        return self._mean(self.out(attended.transpose(1, 2).flatten(2)), mask)

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _weights(self, query: torch.Tensor, key: torch.Tensor, keep: torch.Tensor | None) -> torch.Tensor:
        logits = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
        if keep is not None:
            logits = logits.masked_fill(~keep, -torch.inf)
        return logits.float().softmax(dim=-1)

    def _mean(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        if mask is None:
            return x.float().mean(dim=1)
        return (x.float() * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)


class Consensus(nn.Module):
    """Scores against the concepts, and the concepts mixed by them."""

    def __init__(self, dim: int, temperature: float):
        super().__init__()
        self.temperature = temperature
        self.concept, self.instance = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.concept_norm, self.instance_norm = nn.BatchNorm1d(dim), nn.BatchNorm1d(dim)
        self.weight = nn.Parameter(torch.zeros(dim))

    def forward(self, instance, concepts, label, label_share):
        from_concepts = torch.tanh(self.concept_norm(self.concept(concepts)))
        from_instance = torch.tanh(self.instance_norm(self.instance(instance)))
        scores = (from_instance * self.weight) @ from_concepts.T
        distribution = (self.temperature * scores.float()).softmax(dim=-1)
        if label is not None:
            distribution = label_share * label + (1 - label_share) * distribution
        return unit(distribution @ concepts), distribution


class Twin(nn.Module):
    """The model with mean pooling and `weight_sum`, and its four losses."""

    def __init__(self, config: Any, graph: ConceptGraph, *, features: int, vocabulary: int, fast: bool, pooled: bool):
        super().__init__()
        values = config.model
        assert (values.pooling, values.fusion, values.attention_input) == ("mean", "weight_sum", "scaled")
        self.config, self.fast, dim = config, fast, values.embedding_dim
        concepts = np.asarray(graph.nodes)
        matrix = np.zeros((len(concepts), len(concepts)), np.float32)
        np.add.at(matrix, (np.asarray(graph.receivers), np.asarray(graph.senders)), np.asarray(graph.edges)[:, 0])
        self.register_buffer("matrix", torch.from_numpy(matrix))
        self.register_buffer("concept_vectors", torch.from_numpy(concepts.copy()))
        self.region_projection = nn.Linear(features, dim)
        self.embed = nn.Embedding(vocabulary, values.word_dim)
        self.dropout = nn.Dropout(values.dropout_rate)
        self.gru = nn.GRU(values.word_dim, dim, batch_first=True, bidirectional=True)
        self.first = nn.Linear(concepts.shape[1], dim // 2, bias=False)
        self.second = nn.Linear(dim // 2, dim, bias=False)
        self.image_attention, self.text_attention = (
            Attention(dim, values.num_heads, fast=fast, pooled=pooled) for _ in range(2)
        )
        self.image_consensus, self.text_consensus = (Consensus(dim, values.consensus_temperature) for _ in range(2))
        self.image_fusion, self.text_fusion = (nn.Linear(2 * dim, 2 * dim) for _ in range(2))

    def words(self, tokens: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Returns unit vectors of the words, zero at padding; `lengths` is on the CPU, as packing needs it."""
        packed = pack_padded_sequence(
            self.dropout(self.embed(tokens)), lengths, batch_first=True, enforce_sorted=not self.fast
        )
        states, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=tokens.shape[1])
        forward, backward = states.chunk(2, dim=-1)
        return unit((forward + backward) / 2)

    def losses(self, regions, words, mask, labels, image_index) -> torch.Tensor:
        """Returns the weighted total of the four losses; everything but the words' recurrence."""
        values, loss = self.config.model, self.config.loss
        concepts = self.matrix @ self.first(self.concept_vectors)
        concepts = functional.leaky_relu(concepts.float(), values.graph_slope)
        concepts = unit(self.matrix @ self.second(concepts))

        regions = unit(self.region_projection(regions))
        label = (values.label_temperature * labels.float()).softmax(dim=-1)
        image, image_concepts = self._embed(regions, None, "image", concepts, None)
        text, text_concepts = self._embed(words, mask, "text", concepts, label)
        if loss.mask_same_image:
            is_negative = image_index[:, None] != image_index[None, :]
        else:
            is_negative = ~torch.eye(len(image_index), dtype=torch.bool, device=image_index.device)
        reduce = torch.sum if loss.reduction == "sum" else torch.mean
        terms = [reduce(self._contrast(i.float() @ t.float().T, is_negative)) for i, t in zip(image, text, strict=True)]
        tiny = torch.finfo(torch.float32).tiny
        logs = [torch.log(p.clamp_min(tiny)) for p in (text_concepts, image_concepts)]
        terms.append(reduce((text_concepts * (logs[0] - logs[1])).sum(dim=-1)))
        base = (loss.fusion_weight, loss.instance_weight, loss.consensus_weight, loss.kl_weight)
        weighted = [w / (1 + torch.exp(-term.detach())) * term for w, term in zip(base, terms, strict=True)]
        return torch.stack(weighted).sum()

    def forward(self, regions, tokens, lengths, labels, image_index) -> torch.Tensor:
        words = self.words(tokens, lengths)
        mask = torch.arange(tokens.shape[1], device=tokens.device) < lengths.to(tokens.device)[:, None]
        return self.losses(regions, words, mask, labels, image_index)

    def _embed(self, elements, mask, modality, concepts, label):
        instance = unit(getattr(self, f"{modality}_attention")(elements, mask))
        share = self.config.model.label_share
        consensus, distribution = getattr(self, f"{modality}_consensus")(instance, concepts, label, share)
        both = torch.cat([instance, consensus], dim=-1)
        x, y = torch.sigmoid(getattr(self, f"{modality}_fusion")(both)).chunk(2, dim=-1)
        return (unit(x * instance + y * consensus), instance, consensus), distribution

    def _contrast(self, similarity: torch.Tensor, is_negative: torch.Tensor) -> torch.Tensor:
        positive, margin = similarity.diagonal(), self.config.loss.margin
        against_texts = (margin + similarity - positive[:, None]).clamp_min(0) * is_negative
        against_images = (margin + similarity - positive[None, :]).clamp_min(0) * is_negative
        return against_texts.amax(dim=1) + against_images.amax(dim=0)


def copy_parameters(params: Any, twin: Twin) -> None:
    """Gives the twin the parameters of our model, so that both compute the same."""
    params = jax.tree.map(np.asarray, params)

    def put(target: torch.Tensor, value: np.ndarray) -> None:
        with torch.no_grad():
            target.copy_(torch.from_numpy(np.array(value)).reshape(target.shape))

    def dense(layer: nn.Linear, values: Any) -> None:
        kernel = values["kernel"]
        put(layer.weight, kernel.reshape(layer.in_features, layer.out_features).T)
        if "bias" in values:
            put(layer.bias, values["bias"])

    dense(twin.region_projection, params["region_projection"])
    put(twin.embed.weight, params["text_gru"]["embed"]["embedding"])
    for name, suffix in (("forward", ""), ("backward", "_reverse")):
        cell = params["text_gru"][name]
        zero = np.zeros_like(cell["hn"]["bias"])
        for kind, part in (("i", "ih"), ("h", "hh")):
            kernels = [cell[kind + gate]["kernel"].T for gate in "rzn"]
            biases = [cell[kind + gate].get("bias", zero) for gate in "rzn"]
            put(getattr(twin.gru, f"weight_{part}_l0{suffix}"), np.concatenate(kernels))
            put(getattr(twin.gru, f"bias_{part}_l0{suffix}"), np.concatenate(biases))
    dense(twin.first, params["concept_gcn"]["first"])
    dense(twin.second, params["concept_gcn"]["second"])
    for modality in ("image", "text"):
        attention = params[f"{modality}_attention"]["attention"]
        for name in ("query", "key", "value", "out"):
            dense(getattr(getattr(twin, f"{modality}_attention"), name), attention[name])
        consensus, ours = getattr(twin, f"{modality}_consensus"), params[f"{modality}_consensus"]
        for name in ("concept", "instance"):
            dense(getattr(consensus, name), ours[name])
            put(getattr(consensus, f"{name}_norm").weight, ours[f"{name}_norm"]["scale"])
            put(getattr(consensus, f"{name}_norm").bias, ours[f"{name}_norm"]["bias"])
        put(consensus.weight, ours["weight"])
        dense(getattr(twin, f"{modality}_fusion"), params[f"{modality}_fusion"]["linear"])


class TwinTrainer:
    """A training step of the twin on batches as ours are, cut to their longest caption.

    Args:
      config: the configuration of ours.
      twin: the model, which is moved to the device.
      batches: in host memory; where `on_device`, their features are put on the device once and gathered by index.
      device: "cpu" or "cuda".
      precision: "float32", "tf32" or "bfloat16".
      compile_model: whether `torch.compile` is tried on what has no recurrence.
    """

    def __init__(
        self,
        config: Any,
        twin: Twin,
        batches: list[Batch],
        *,
        device: str,
        precision: str,
        on_device: bool,
        compile_model: bool,
    ):
        self.twin, self.device, self.precision = twin.to(device).train(), device, precision
        torch.set_float32_matmul_precision("highest" if precision == "float32" else "high")
        torch.backends.cudnn.allow_tf32 = precision != "float32"
        values = config.optimizer
        self.clip_norm = values.clip_norm
        self.optimizer = torch.optim.Adam(
            twin.parameters(),
            lr=values.learning_rate,
            betas=(values.adam_b1, values.adam_b2),
            eps=values.adam_eps,
            fused=twin.fast and device == "cuda",
        )
        if compile_model:
            twin.losses = torch.compile(twin.losses, dynamic=True)
        self.batches = [self._prepare(batch, on_device) for batch in batches]
        self.features = torch.cat([batch[0] for batch in self.batches]).to(device) if on_device else None

    def _prepare(self, batch: Batch, on_device: bool) -> tuple[torch.Tensor, ...]:
        captions = batch.captions
        longest = int(captions.lengths.max())
        # A published collate sorts the batch, for the packed GRU; the fast way leaves that to PyTorch.
        order = np.arange(len(captions.lengths)) if self.twin.fast else np.argsort(-captions.lengths, kind="stable")
        tensors = [
            torch.from_numpy(np.ascontiguousarray(part[order]))
            for part in (
                batch.regions,
                captions.tokens[:, :longest],
                captions.lengths,
                captions.labels,
                batch.image_index,
            )
        ]
        regions, tokens, lengths, labels, image_index = tensors
        tokens, lengths = tokens.long(), lengths.long()
        if self.device == "cuda" and not on_device and self.twin.fast:
            return regions.pin_memory(), tokens.pin_memory(), lengths, labels.pin_memory(), image_index.pin_memory()
        if on_device:
            tokens, labels, image_index = (part.to(self.device) for part in (tokens, labels, image_index))
        return regions, tokens, lengths, labels, image_index

    def _on_device(self, number: int) -> tuple[torch.Tensor, ...]:
        regions, tokens, lengths, labels, image_index = self.batches[number]
        if self.features is not None:
            size = len(regions)
            regions = self.features[torch.arange(number * size, (number + 1) * size, device=self.device)]
        regions, tokens, labels, image_index = (
            part.to(self.device, non_blocking=True) for part in (regions, tokens, labels, image_index)
        )
        return regions, tokens, lengths, labels, image_index

    def loss(self, number: int) -> torch.Tensor:
        """Returns the loss of a batch by its number."""
        batch = self._on_device(number)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bfloat16"):
            return self.twin(*batch)

    def step(self, number: int) -> torch.Tensor | float:
        """Takes a step on a batch; the plain way asks for the loss's value at each."""
        loss = self.loss(number)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.twin.parameters(), self.clip_norm)
        self.optimizer.step()
        return loss.detach() if self.twin.fast else loss.item()

    def wait(self) -> None:
        """Waits until the device has done all."""
        if self.device == "cuda":
            torch.cuda.synchronize()
