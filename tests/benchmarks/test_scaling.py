"""The paper model of scale: rings by hand, its limits, and the table that lies in the repository."""

import pytest

from benchmarks import scaling

RATES = scaling.Rates(
    tflops=1.0,
    float32_tflops=0.5,
    product_share=1.0,
    memory_gb=1e9,
    memory_share=1.0,
    node_gb=100.0,
    network_gb=10.0,
    link_share=1.0,
    hop_us=0.0,
    overlap=0.0,
)


def test_rings_by_hand():
    gigabyte = 1e9
    assert scaling.ring_seconds(gigabyte, 1, RATES) == 0
    assert scaling.ring_seconds(gigabyte, 8, RATES) == pytest.approx(7 / 8 / 100)
    # Two nodes: each GPU fetches its eighth of the other node's half, then seven eighths of all from its own node.
    assert scaling.ring_seconds(gigabyte, 16, RATES) == pytest.approx(1 / 8 / 2 / 10 + 7 / 8 / 100)


def test_losses_are_products_in_float32():
    whole, blocks = (scaling.step(8, 4096, RATES, in_blocks=flag) for flag in (False, True))
    assert whole.losses == pytest.approx(3 * 3 * 2 * 512 * 4096 * 1024 / 0.5e12)
    assert blocks.losses / whole.losses == pytest.approx(8 / 3)
    assert (whole.similarity_bytes, blocks.similarity_bytes) == (4 * 512 * 4096, 4 * 128 * 4096)


def test_layers_are_shared_out_and_collectives_are_not():
    one, many = scaling.step(1, 4096, RATES), scaling.step(64, 4096, RATES)
    assert one.gather == one.reduce == 0
    assert one.seconds == one.compute + one.losses
    assert many.compute == pytest.approx(one.compute / 64, rel=0.2)  # but for the concept graph, which all compute
    assert many.gather > 0 < many.reduce
    assert scaling.dominates(one) == "layers"
    assert scaling.dominates(scaling.step(1, 131_072, RATES)) == "losses"


def test_the_table_in_the_repository_is_what_the_program_writes(tmp_path, capsys):
    assert scaling.main(["--output", str(tmp_path / "scaling.md")]) == 0
    written = (tmp_path / "scaling.md").read_text()
    assert written == scaling.OUTPUT.read_text()
    assert written.strip() == capsys.readouterr().out.strip()
    scaling.main(["--output", str(tmp_path / "other.md"), "--network_gb", "5"])
    assert "`python -m benchmarks.scaling --network_gb 5`" in (tmp_path / "other.md").read_text()
