#!/usr/bin/env bash
# Trains on several machines under Slurm:
#
#     sbatch --nodes 4 slurm.sh train --data book.txt --out runs/book
#
#SBATCH --ntasks-per-node 1
set -euo pipefail
folder=${FASTRNN_SCRIPTS:-${SLURM_SUBMIT_DIR:-.}}  # where node.sh is: Slurm runs a copy of this file
# The batch script runs on the first machine, and so does task 0.
DMLC_PS_ROOT_URI=$(getent ahostsv4 "$(hostname)" | awk '{print $1; exit}')
export DMLC_PS_ROOT_URI DMLC_PS_ROOT_PORT=${DMLC_PS_ROOT_PORT:-9091}
export DMLC_NUM_WORKER=$SLURM_JOB_NUM_NODES DMLC_NUM_SERVER=$SLURM_JOB_NUM_NODES
# If one machine fails, the others' tasks end.
srun --kill-on-bad-exit=1 bash "$folder/node.sh" "$@"
