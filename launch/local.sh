#!/usr/bin/env bash
# One run as N processes on this machine:
#
#   launch/local.sh N --config configs/f30k.py --config.data.dir=data/f30k_precomp
#
# What follows N goes to `python -m mhcvse_jax.main`; --dry_run among it shows what would run. The GPUs are shared out
# evenly; on a CPU a process has the devices that XLA_FLAGS gives it. A signal to this script goes to all processes,
# one to any process stops all of them. Leaves with the code of the first process that failed, 75 where the run was
# stopped and saved; the same command goes on. PYTHON=… names another Python, MHCVSE_GRACE_SECONDS the time that the
# other processes have to end by themselves once one has failed (default 10). Needs bash 5.1 or later.
set -u -o pipefail
set -m # each process leads a group of its own: Ctrl-C reaches it through this script alone, once

usage() {
  sed -n '2,11s/^# \{0,1\}//p' "$0" >&2
  exit 2
}

[[ ${1:-} =~ ^[1-9][0-9]*$ ]] || usage
num_processes=$1
shift
python=${PYTHON:-python}
num_gpus=$(nvidia-smi --list-gpus 2>/dev/null | grep -c '^GPU')
if [ -z "${JAX_LOCAL_DEVICE_IDS:-}" ] && [ "$num_gpus" -gt 0 ] && [ $((num_gpus % num_processes)) -ne 0 ]; then
  echo "error: $num_gpus GPUs cannot be shared out to $num_processes processes" >&2
  exit 2
fi
port=${MHCVSE_PORT:-$("$python" -c 'import socket; s = socket.socket(); s.bind(("localhost", 0)); print(s.getsockname()[1])')} || exit 2

pids=()
# shellcheck disable=SC2329 # the traps call it
signal_all() {
  local pid
  for pid in "${pids[@]}"; do kill -s "$1" -- "-$pid" 2>/dev/null; done
}
trap 'signal_all TERM' TERM INT HUP
trap 'signal_all USR1' USR1

for ((i = 0; i < num_processes; i++)); do
  devices=${JAX_LOCAL_DEVICE_IDS:-}
  if [ -z "$devices" ] && [ "$num_gpus" -gt 0 ]; then
    share=$((num_gpus / num_processes))
    devices=$(seq -s, $((i * share)) $(((i + 1) * share - 1)))
  fi
  MHCVSE_COORDINATOR="localhost:$port" MHCVSE_NUM_PROCESSES=$num_processes MHCVSE_PROCESS_ID=$i \
    JAX_LOCAL_DEVICE_IDS=$devices "$python" -m mhcvse_jax.main "$@" </dev/null &
  pids+=($!)
done

code=0
left=$num_processes
while [ "$left" -gt 0 ]; do
  wait -n -p ended "${pids[@]}" 2>/dev/null # without the shell's own words on a killed process
  status=$?
  [ -n "${ended:-}" ] || continue # a signal came in between
  left=$((left - 1))
  for i in "${!pids[@]}"; do [ "${pids[$i]}" = "$ended" ] && unset "pids[$i]" && break; done
  [ $status -eq 0 ] && continue
  if [ $code -eq 0 ]; then
    code=$status
    if [ $status -gt 128 ]; then
      echo "launch/local.sh: process $i of $num_processes was killed (SIG$(kill -l $((status - 128)))); the others" \
        "are ended; the same command resumes from the last checkpoint" >&2
    fi
    if [ "$left" -gt 0 ]; then
      (
        trap - TERM INT HUP USR1
        sleep "${MHCVSE_GRACE_SECONDS:-10}"
        for pid in "${pids[@]}"; do kill -s KILL -- "-$pid" 2>/dev/null; done
      ) &
      reaper=$!
      disown "$reaper"
    fi
  fi
done
[ -n "${reaper:-}" ] && kill -s KILL -- "-$reaper" 2>/dev/null
exit $code
