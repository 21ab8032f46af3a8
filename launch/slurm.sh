#!/usr/bin/env bash
# One run on a SLURM cluster, a process a GPU:
#
#   sbatch --nodes=4 --gpus-per-node=8 --ntasks-per-node=8 launch/slurm.sh --config configs/f30k.py --workdir runs/f30k
#
# What follows goes to `python -m mhcvse_jax.main`; --dry_run among it shows what would run. The workdir is to be on a
# file system that all nodes share. Two minutes before the time limit, and when it is preempted, the run saves, leaves
# with 75, and is put back into the queue; it goes on from there, as it does from its last checkpoint where a node was
# lost. To stop it for good: scancel. For a process a node instead, --ntasks-per-node=1 and, in the environment,
# JAX_LOCAL_DEVICE_IDS=0,1,2,3,4,5,6,7. PYTHON=… names another Python.
#SBATCH --job-name=mhcvse
#SBATCH --nodes=1
#SBATCH --gpus-per-node=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -u -o pipefail

# The batch shell outlives the signals, which SLURM sends to the processes as well, to see what they leave with.
trap : USR1 TERM
# Every process sees all GPUs of its node; JAX takes the one of its place there.
srun --kill-on-bad-exit=1 --gpu-bind=none "${PYTHON:-python}" -m mhcvse_jax.main "$@" &
step=$!
while true; do
  wait "$step"
  code=$?
  kill -0 "$step" 2>/dev/null || break # else a signal came in between
done
if [ "$code" -eq 75 ]; then
  echo "launch/slurm.sh: stopped and saved; back into the queue" >&2
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
