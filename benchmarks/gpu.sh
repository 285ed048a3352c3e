#!/usr/bin/env bash
# Everything worth measuring on one GPU that is lent for half an hour, in one command that goes on where it was stopped.
#
#   bash benchmarks/gpu.sh [FOLDER]      default: outputs/gpu; results, logs and curves go there
#
# Steps in the order of their worth: correctness, PPO on pick and place and on reach (engines warp, jax, c), throughput,
# pictures, VLA, time shares. A finished step leaves FOLDER/done/NAME and is not run again; a step that fails leaves
# FOLDER/logs/NAME.log, and the next one runs. No step starts or lasts beyond SIMSCALE_GPU_MINUTES (28) from the start.
#
#   SIMSCALE_GPU_WHEELS=DIR      install the wheels in DIR and nothing else. To make it, on a machine with a network:
#                                pip wheel --wheel-dir DIR '.[cuda,warp]' 'setuptools>=77' 'setuptools-scm>=8' wheel
#   SIMSCALE_GPU_PYTHON=PYTHON   an interpreter that has everything: nothing is installed
#   SIMSCALE_GPU_REHEARSAL=1     the same on a CPU at tiny sizes: a few minutes (make rehearse-gpu)
set -uo pipefail
cd "$(dirname "$0")/.."
out=$(mkdir -p "${1:-outputs/gpu}" && cd "${1:-outputs/gpu}" && pwd)
mkdir -p "$out/done" "$out/logs" "$out/results"
rehearsal=${SIMSCALE_GPU_REHEARSAL:-}
deadline=$((SECONDS + 60 * ${SIMSCALE_GPU_MINUTES:-28}))
failed=()

# step NAME MINUTES COMMAND...: runs it unless it is done, for at most so long
step() {
	local name=$1 limit=$((60 * $2)) left=$((deadline - SECONDS)) started=$SECONDS
	shift 2
	[ -e "$out/done/$name" ] && { echo "$name: done before"; return 0; }
	((left > 20)) || { echo "$name: no time left"; failed+=("$name"); return 1; }
	[ -z "$rehearsal" ] || limit=$left # a busy CPU takes its time
	((limit < left)) || limit=$left
	if timeout --kill-after=10 "$limit" "$@" >"$out/logs/$name.log" 2>&1; then
		touch "$out/done/$name"
		echo "$name: $((SECONDS - started)) s"
	else
		echo "$name: failed with status $? after $((SECONDS - started)) s; the end of $out/logs/$name.log:"
		tail -n 5 "$out/logs/$name.log"
		failed+=("$name")
		return 1
	fi
}

install() {
	local python cuda=cuda13
	for python in python3.12 python3.13 python3.14 python3; do
		"$python" -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null && break
	done
	nvidia-smi | grep -q 'CUDA Version: 12' && cuda=cuda12 # what the driver can run
	"$python" -m venv "$out/venv" || return 1
	if [ -n "${SIMSCALE_GPU_WHEELS:-}" ]; then
		"$out/venv/bin/pip" install --quiet --no-deps "$SIMSCALE_GPU_WHEELS"/*.whl &&
			"$out/venv/bin/pip" install --quiet --no-deps --no-build-isolation --editable .
	else
		"$out/venv/bin/pip" install --quiet --editable '.[warp]' "jax[$cuda]"
	fi
}

python=${SIMSCALE_GPU_PYTHON:-$out/venv/bin/python}
if [ -z "${SIMSCALE_GPU_PYTHON:-}" ]; then
	step install 8 bash -c "$(declare -f install); out='$out'; install" || exit 1
fi
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$out/cache}
export XLA_PYTHON_CLIENT_MEM_FRACTION=${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.6} # warp has its own memory

engines=(warp jax c) tasks=(pick_place reach)
check=() pick=configs/ppo_pick_place_gpu.yaml reach=configs/ppo_reach.yaml runs=(--n-episodes 500) scaling=(--on-gpu)
scaling+=(--num-envs 64 1024 4096 16384) render=(--batch 4096) large=() throughput=(--num-envs 1024 8192) shares=()
if [ -n "$rehearsal" ]; then
	export XLA_FLAGS="--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true ${XLA_FLAGS:-}"
	engines=(c) tasks=(reach)
	check=(--engines c jax --env-name reach --num-envs 4 --num-steps 5)
	pick=configs/ppo_pick_place.yaml runs=(--n-episodes 20 "--train=--ppo.total-timesteps 8192")
	scaling=(--quick --num-envs 1 8 --env-names reach) render=(--batch 4 --repeats 1) large=(--tiny)
	throughput=(--num-envs 8 --repeats 1 --no-ppo) shares=(--quick)
fi

step doctor 3 "$python" -m simscaleai_jax.tools.cli doctor
step check 5 "$python" benchmarks/gpu_check.py "${check[@]}" --output "$out/results/gpu_check.json"
for engine in "${engines[@]}"; do
	for recipe in "$pick" "$reach"; do
		name=$(basename "$recipe" .yaml)_$engine
		step "$name" 5 "$python" benchmarks/ppo_runs.py "$recipe" --seeds 0 --engine "$engine" \
			--output "$out/results/$name.json" "${runs[@]}"
	done
done
step machine 2 "$python" benchmarks/machine.py --quick --output "$out/results/machine.json"
for env in "${tasks[@]}"; do
	step "throughput_$env" 4 "$python" benchmarks/env_throughput.py --env-name "$env" --impl "${engines[@]}" \
		"${throughput[@]}" --output "$out/results/env_throughput_$env.json"
done
step scaling 6 "$python" benchmarks/env_scaling.py --impl "${engines[@]}" "${scaling[@]}" \
	--output "$out/results/env_scaling.json"
step render 3 "$python" benchmarks/render_throughput.py --no-opengl "${render[@]}" --output "$out/results/render.json"
step vla 4 "$python" benchmarks/model_throughput.py --large "${large[@]}" --output "$out/results/model_throughput_large.json"
step shares 4 "$python" benchmarks/time_shares.py "${shares[@]}" --output "$out/results/time_shares.json"

echo "Results: $out/results; ${#failed[@]} steps failed or are missing: ${failed[*]:-none}"
((${#failed[@]} == 0))
