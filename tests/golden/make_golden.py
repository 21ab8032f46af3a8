"""What PyTorch computes on fixed inputs, for parity tests that need no torch: its layers, and a whole CVSE.

python tests/golden/make_golden.py        writes tests/golden/torch_layers.npz, cvse.pth.tar, cvse.npz; needs torch
"""

import pathlib
import sys
import tempfile

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

sys.path[:0] = map(str, pathlib.Path(__file__).parents[1:3])  # tests, and what holds benchmarks
import cvse_data

from benchmarks import torch_cvse

PATH = pathlib.Path(__file__).with_name("torch_layers.npz")
CVSE_PATH = PATH.with_name("cvse.pth.tar")
CVSE_IMAGES = {"train": 40, "dev": 3, "test": 19}
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


def cvse_model(data, **changes):
    """The stand-in for the original, untrained, of a size that fits the data of `cvse_data`."""
    sizes = {"features": cvse_data.FEATURES, "regions": cvse_data.REGIONS, "word_dim": 6, "dim": 26, "alpha": 0.85}
    return torch_cvse.TorchCVSE(
        vocabulary_size=len(data.words), vectors=data.vectors, adjacency=data.adjacency, **sizes | changes
    )


def _write_cvse():
    """A checkpoint of the stand-in after some training, and its results."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as directory:
        data = cvse_data.write(pathlib.Path(directory), **CVSE_IMAGES)
        model = cvse_model(data, dim=10)
        torch_cvse.fit(
            model, torch_cvse.Reader(data.directory, "train", cvse_data.CONCEPTS), steps=60, batch_size=32, rate=1e-2
        )
        torch_cvse.save(model, CVSE_PATH)
        results = torch_cvse.results(model, data.directory, "test", cvse_data.CONCEPTS)
        np.savez_compressed(CVSE_PATH.with_name("cvse.npz"), **results)


if __name__ == "__main__":
    np.savez_compressed(PATH, **compute())
    _write_cvse()
    for path in sorted(PATH.parent.glob("*.[np]*")):
        print(f"{path}: {path.stat().st_size} bytes")
