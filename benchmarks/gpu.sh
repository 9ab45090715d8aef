#!/usr/bin/env bash
# On a machine with a GPU, within eight minutes: the tests that concern it, and a table of times on
# the CPU and on the GPU (gpu.py).
#
#     bash benchmarks/gpu.sh [FOLDER]      # the folder of the table; default: the current one
#
# Needs: pip install ".[test]", with a CUDA build of torch.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
out=$(mkdir -p "${1:-.}" && cd "${1:-.}" && pwd)
cd "$root"
export PYTHONPATH=$root
python3 -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' ||
  { echo "torch sees no GPU" >&2; exit 1; }
status=0
RECBOLE_SIGREC_GPU=1 timeout 200 python3 -m pytest -q -p no:cacheprovider tests/graph/test_knn.py \
  tests/model/test_conformance.py -k "cuda or SIGRec or MGCN or LightGCN" || status=$?
timeout 270 python3 benchmarks/gpu.py --out="$out/gpu.md" || status=$?
exit "$status"
