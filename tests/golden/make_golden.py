"""PyTorch's bidirectional GRU and multi-head attention on fixed inputs: the arrays that a parity test reads.

python tests/golden/make_golden.py        writes tests/golden/torch_layers.npz; needs torch
"""

import pathlib

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

PATH = pathlib.Path(__file__).with_name("torch_layers.npz")
LENGTHS = (11, 1, 7, 3, 5)  # of captions; of the elements that may be attended to
WORD_DIM, DIM, HEADS = 5, 22, 2


def compute():
    """Returns all arrays by name, float32: `gru/...` and `attention/...`."""
    rng = np.random.default_rng(17)
    return _gru(rng) | _attention(rng)


def _random(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


def _randomize(module, rng):
    weights = {name: _random(rng, *value.shape) / 3 for name, value in module.state_dict().items()}
    module.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    return weights


def _result(prefix, weights, inputs, outputs, cotangent):
    outputs.backward(torch.from_numpy(cotangent))
    arrays = weights | {
        "inputs": inputs.detach().numpy(),
        "lengths": np.array(LENGTHS, np.int32),
        "outputs": outputs.detach().numpy(),
        "cotangent": cotangent,
        "gradient": inputs.grad.numpy(),
    }
    return {f"{prefix}/{name}": value for name, value in arrays.items()}


def _gru(rng):
    """A packed Bi-GRU, its directions averaged, each word's state of unit length, zero at padding."""
    gru = nn.GRU(WORD_DIM, DIM, bidirectional=True, batch_first=True)
    weights = _randomize(gru, rng)
    words = torch.from_numpy(_random(rng, len(LENGTHS), max(LENGTHS), WORD_DIM)).requires_grad_()
    packed = pack_padded_sequence(words, torch.tensor(LENGTHS), batch_first=True, enforce_sorted=False)
    states, _ = pad_packed_sequence(gru(packed)[0], batch_first=True)
    averaged = (states[..., :DIM] + states[..., DIM:]) / 2
    outputs = nn.functional.normalize(averaged, dim=-1)
    return _result("gru", weights, words, outputs, _random(rng, *outputs.shape))


def _attention(rng):
    """Self-attention with a key padding mask."""
    attention = nn.MultiheadAttention(DIM, HEADS, batch_first=True)
    weights = _randomize(attention, rng)
    elements = torch.from_numpy(_random(rng, len(LENGTHS), max(LENGTHS), DIM)).requires_grad_()
    is_padding = torch.arange(max(LENGTHS)) >= torch.tensor(LENGTHS)[:, None]
    outputs, _ = attention(elements, elements, elements, key_padding_mask=is_padding, need_weights=False)
    return _result("attention", weights, elements, outputs, _random(rng, *outputs.shape))


if __name__ == "__main__":
    np.savez_compressed(PATH, **compute())
    print(f"{PATH}: {PATH.stat().st_size} bytes")
