#!/bin/bash
# Trains on 2 nodes of 8 GPUs. Set the numbers, then run in this repository's folder:
#
#     sbatch launch/slurm.sh
#
# Five minutes before its time runs out, or when the job is preempted, its processes get
# SIGTERM: they save and stop. The job is then requeued, as after a failure, and the same
# command resumes from the last checkpoint. A command that is refused isn't queued again.

#SBATCH --job-name=lookbehind
#SBATCH --nodes=2
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00

# JAX needs one process for each GPU.
#SBATCH --ntasks-per-node=8

# One log for all restarts.
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append

#SBATCH --signal=TERM@300
#SBATCH --requeue

set -euo pipefail

most_restarts=20

# All processes must see the run's folder and the data folder.
status=0
srun .venv/bin/python -m examples.images \
    --recipe imagenet --data-dir data \
    --distributed --mesh data=16 --precision bf16 \
    --output runs/imagenet --save-every 1000 || status=$?

# 2: with these flags and these data, the same command would fail again.
if ((status == 0 || status == 2)); then
    exit "$status"
fi
if ((${SLURM_RESTART_COUNT:-0} >= most_restarts)); then
    echo "Stopped for the last time: ${most_restarts} restarts." >&2
    exit 1
fi
scontrol requeue "$SLURM_JOB_ID"
