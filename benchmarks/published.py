"""What makers print of their GPUs: rates that no program reaches, against which a floor can be had without the GPU."""

from typing import NamedTuple


class Rates(NamedTuple):
    """What a device can do in a second."""

    flops: float
    bytes: float  # read and written


class Published(NamedTuple):
    """A GPU's rates, dense (half of what is printed for sparse matrices)."""

    tflops: dict[str, float]  # of products, by precision
    memory_gb: float  # GB/s

    def at(self, precision: str) -> Rates:
        """Returns the rates in a precision of `workload.PRECISIONS`."""
        return Rates(1e12 * self.tflops[precision], 1e9 * self.memory_gb)


HOPPER = {"float32": 67.0, "tf32": 494.7, "bfloat16": 989.4}
PUBLISHED = {"h100": Published(HOPPER, 3350.0), "h200": Published(HOPPER, 4800.0)}
"""The SXM boards, by NVIDIA's data sheets of the H100 (TF32 989, bfloat16 1,979 TFLOP/s with sparsity; 3.35 TB/s) and
the H200 (the same; 4.8 TB/s)."""

NAMES = {"NVIDIA H100 80GB HBM3": "h100", "NVIDIA H200": "h200"}
"""As the driver calls these boards; an H100 on PCIe is slower, and none of them."""


def of_device(name: str) -> str | None:
    """Returns the key of `PUBLISHED` for a device's name, `1 x NVIDIA H200` for example; None for others."""
    return NAMES.get(name.split(" x ")[-1])
