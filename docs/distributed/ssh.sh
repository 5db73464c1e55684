#!/usr/bin/env bash
# Trains on several machines over ssh, which share this folder and need no password:
#
#     bash ssh.sh "host1 host2" train --data book.txt --out runs/book
#
# All hosts must reach the first one by the name given here.
set -euo pipefail
read -ra hosts <<< "$1"
shift
script=$(cd "$(dirname "$0")" && pwd)/node.sh
variables=(
  "PATH=$PATH" "DMLC_PS_ROOT_URI=${hosts[0]}" "DMLC_PS_ROOT_PORT=${DMLC_PS_ROOT_PORT:-9091}"
  "DMLC_NUM_WORKER=${#hosts[@]}" "DMLC_NUM_SERVER=${#hosts[@]}"
)
# If one machine fails, the connections to the others close, and -tt makes that end what runs there.
end() { kill $(jobs -p) 2> /dev/null || true; }
trap end EXIT
trap 'end; exit 130' INT TERM HUP
for rank in "${!hosts[@]}"; do
  printf -v command '%q ' cd "$PWD"
  printf -v run '%q ' env "RANK=$rank" "${variables[@]}" bash "$script" "$@"
  ssh -tt "${hosts[rank]}" "$command && $run" < /dev/null &
done
for _ in "${hosts[@]}"; do
  wait -n || exit
done
