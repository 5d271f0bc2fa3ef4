#!/usr/bin/env bash
# Everything that needs a GPU, in one go, under ten minutes: GPU tests, golden vectors, benchmarks, roofline.
#
#   python -m pip wheel --no-deps --no-build-isolation -w dist .     # here: a wheel with sm_80 and sm_90 code
#   benchmarks/gpu.sh dist/ecamp-*.whl results                       # there: needs torch, timm, transformers
#
# Writes results/{junit.xml, benchmarks.json, kernels.json, ratios.json, environment.txt}; each part
# runs even when one before it failed; the exit status is that of the worst.
set -uo pipefail
wheel=$(realpath "$1") out=$(mkdir -p "$2" && realpath "$2")
root=$(realpath "$(dirname "$0")/..")
site=$(mktemp -d)
python3 -m pip install -q --no-deps --no-index --target "$site" "$wheel" || exit 2
# The checkout gives the tests only; what is tested is what was installed.
work=$(mktemp -d)
cp -r "$root/tests" "$root/benchmarks" "$root/pyproject.toml" "$work"
cd "$work"
export PYTHONPATH="$site" ECAMP_BENCH_STORE=1 ECAMP_SHARED="${ECAMP_SHARED:-$root/../shared}"
worst=0
part() {
  local name=$1 limit=$2
  shift 2
  echo "== $name"
  timeout "$limit" "$@" || { local code=$?; echo "== $name: exit $code"; worst=$code; }
}
{
  nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv
  python3 -c "import torch, ecamp; print(torch.__version__, torch.version.cuda, ecamp.__file__)"
} | tee "$out/environment.txt"
part "tests" 150 python3 -m pytest -q tests/ops/test_every_op.py --junitxml "$out/junit.xml"
test -d "$ECAMP_SHARED/golden" && part "golden vectors" 60 python3 -m ecamp.testing.golden "$ECAMP_SHARED/golden/dev"
part "roofline" 60 sh -c 'python3 -m ecamp kernels bench -f json > "$1"' - "$out/kernels.json"
part "benchmarks" 270 python3 -m pytest -q benchmarks -s --benchmark-json "$out/benchmarks.json"
cp benchmarks/baselines/*.json "$out/ratios.json" 2> /dev/null
if command -v compute-sanitizer > /dev/null; then
  part "compute-sanitizer" 120 compute-sanitizer --error-exitcode 9 python3 -m pytest -q tests/ops/test_every_op.py -k "a_gpu_computes"
fi
exit "$worst"
