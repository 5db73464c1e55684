#!/usr/bin/env bash
# Trains on several machines with Open MPI's mpirun, which ends all if one fails:
#
#     bash mpirun.sh "host1 host2" train --data book.txt --out runs/book
#
set -euo pipefail
read -ra hosts <<< "$1"
shift
export DMLC_PS_ROOT_URI=${hosts[0]} DMLC_PS_ROOT_PORT=${DMLC_PS_ROOT_PORT:-9091}
export DMLC_NUM_WORKER=${#hosts[@]} DMLC_NUM_SERVER=${#hosts[@]}
mpirun -np "${#hosts[@]}" --host "$(IFS=,; echo "${hosts[*]}")" --map-by node \
  -x PATH -x DMLC_PS_ROOT_URI -x DMLC_PS_ROOT_PORT -x DMLC_NUM_WORKER -x DMLC_NUM_SERVER \
  bash "$(dirname "$0")/node.sh" "$@"
