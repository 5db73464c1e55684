#!/usr/bin/env bash
# Runs what one machine contributes to a training:
#
#     bash node.sh train --data book.txt --out runs/book
#
# A worker and a server, and on the first machine the scheduler. All machines have the same
# DMLC_PS_ROOT_URI (the first one's address), DMLC_PS_ROOT_PORT, DMLC_NUM_WORKER and DMLC_NUM_SERVER
# in their environment. The machine's number is RANK, or what Slurm or Open MPI set.
set -euo pipefail
rank=${RANK:-${SLURM_PROCID:-${OMPI_COMM_WORLD_RANK:?no RANK, SLURM_PROCID or OMPI_COMM_WORLD_RANK}}}

# Where one process fails, the others of this machine end. A signal may interrupt that, and then
# its own trap ends them.
end() { kill $(jobs -p) 2> /dev/null || true; }
trap end EXIT
trap 'end; exit 143' TERM HUP
trap 'end; exit 130' INT
processes=2
if [ "$rank" = 0 ]; then
  DMLC_ROLE=scheduler fastrnn "$@" &
  processes=3
fi
DMLC_ROLE=server fastrnn "$@" &
DMLC_ROLE=worker fastrnn "$@" &
for ((ended = 0; ended < processes; ended++)); do
  wait -n || exit
done
