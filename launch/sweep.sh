#!/usr/bin/env bash
# Several seeds, or a small grid of values, on the devices of this machine:
#
#   launch/sweep.sh --config configs/f30k.py --out runs/fusion --seeds 0 1 2 --grid model.fusion concat weight_sum --jobs 4
#
# --jobs at a time, the GPUs shared out among them; without it one after another on all GPUs. Ends in the table of
# `mhcvse_jax.compare`; the same command goes on where it was stopped. --help lists the rest. PYTHON=… names another
# Python.
set -u -o pipefail
exec "${PYTHON:-python}" -m mhcvse_jax.sweep "$@"
