"""Training steps per second of the models, against their torch twins on the same cores in the same run.

    python benchmarks/model_throughput.py --torch-python PATH  BC batch 256, VLA batch 32, two threads
    python benchmarks/model_throughput.py --large   VLA-large on a GPU: tokens/s, model FLOPs utilisation

Both sides: float32, AdamW, dropout 0.1, batch already in memory; forward, backward and update. Rounds alternate between
the two, and medians are compared. PATH defaults to SIMSCALE_TORCH_PYTHON. Writes benchmarks/results/NAME.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from stamp import stamp

THREADS = 2
CASES: dict[str, dict[str, Any]] = {
    "bc": {"model": "bc", "kwargs": {}, "batch": 256, "steps_per_dispatch": 20, "dispatches": 10, "goal": 2.0},
    "vla": {
        "model": "vla",
        "kwargs": {"image_size": 64, "patch_size": 8, "embed_dim": 128, "num_layers": 2},
        "batch": 32,
        "steps_per_dispatch": 1,
        "dispatches": 10,
        "goal": 1.0,
    },
}
LARGE = {
    "image_size": 224, "embed_dim": 1024, "num_heads": 16, "num_layers": 24, "dropout": 0.0, "dtype": "bfloat16",
    "scan_layers": True, "remat": True,
}  # fmt: skip
TINY = {**LARGE, "embed_dim": 64, "num_heads": 4, "num_layers": 2}
ROOT = Path(__file__).resolve().parents[1]
TORCH_SCRIPT = Path(__file__).with_name("model_throughput_torch.py")


def main() -> None:
    """Measures and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch-python", default=os.environ.get("SIMSCALE_TORCH_PYTHON"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", nargs="+", choices=sorted(CASES), default=sorted(CASES))
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--large-batch", type=int, default=64)
    parser.add_argument("--tiny", action="store_true", help="--large on whatever there is, with two small layers")
    parser.add_argument("--peak-tflops", type=float, default=989.0, help="dense bf16 peak of the GPU (H200: 989)")
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/NAME.json")
    options = parser.parse_args()
    if not options.large and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    sizes = TINY if options.tiny else LARGE
    batch = 2 if options.tiny else options.large_batch
    results = large(sizes, batch, options.peak_tflops) if options.large else compare(options)
    name = "model_throughput_large" if options.large else "model_throughput"
    file = options.output or ROOT / "benchmarks" / "results" / f"{name}.json"
    earlier = json.loads(file.read_text())["results"] if file.exists() else {}
    report = {"benchmark": name, **_stamp(options.torch_python), "results": earlier | results}
    file.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(results, indent=1))


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds per step of both sides for every case, and the speed-up."""
    if not options.torch_python:
        raise SystemExit("Name an interpreter that has torch: --torch-python PATH or SIMSCALE_TORCH_PYTHON.")
    results = {}
    for name in options.cases:
        case = CASES[name]
        runs = {rate: Run(case, rate) for rate in (0.1, 0.0)}
        times: dict[str, list[float]] = {"jax": [], "jax_without_dropout": [], "torch": [], "torch_fused_adamw": []}
        for _ in range(options.rounds):
            for key, milliseconds in torch_times(options.torch_python, case).items():
                times[key].append(milliseconds)
            times["jax"].append(runs[0.1].measure())
            times["jax_without_dropout"].append(runs[0.0].measure())
        medians = {key: statistics.median(values) for key, values in times.items()}
        best_torch = min(medians["torch"], medians["torch_fused_adamw"])
        speedup = best_torch / medians["jax"]
        results[name] = {
            "case": case,
            "milliseconds_per_step": medians,
            "all_rounds": times,
            "samples_per_second": {
                "jax": 1e3 * case["batch"] / medians["jax"],
                "torch": 1e3 * case["batch"] / best_torch,
            },
            "speedup_over_best_torch": speedup,
            "goal_met": speedup >= case["goal"],
            "compile_seconds": runs[0.1].compile_seconds,
        }
    return results


def _stamp(torch_python: str | None) -> dict[str, Any]:
    """Where and with what this was measured, torch's version included."""
    import flax

    head = stamp()
    versions = head["versions"] | {"flax": flax.__version__, "python": sys.version.split()[0]}
    if torch_python:
        code = "import torch; print(torch.__version__)"
        done = subprocess.run([torch_python, "-c", code], check=True, capture_output=True, text=True)
        versions["torch"] = done.stdout.strip()
    return head | {"versions": versions, "threads": THREADS, "load_average": os.getloadavg()[0]}


class Run:
    """A compiled training loop of one case with its donated state."""

    def __init__(self, case: dict[str, Any], dropout: float) -> None:
        import jax
        import optax
        from flax import nnx

        from simscaleai_jax.models import create_model
        from simscaleai_jax.models.specs import fake_batch

        model = create_model(case["model"], **{**case["kwargs"], "dropout": dropout})
        batch = jax.device_put(fake_batch(model.input_spec(case["batch"])))
        graphdef, params = nnx.split(model)
        optimizer = optax.adamw(1e-4)

        def step(carry: Any, _: None) -> tuple[Any, Any]:
            params, state, key = carry
            key, key_step = jax.random.split(key)
            loss, gradients = jax.value_and_grad(
                lambda params: nnx.merge(graphdef, params)(batch, key=key_step)["loss"]
            )(params)
            updates, state = optimizer.update(gradients, state, params)
            return (optax.apply_updates(params, updates), state, key), loss

        self.steps, self.dispatches = case["steps_per_dispatch"], case["dispatches"]
        self.carry: Any = (params, optimizer.init(params), jax.random.key(0))
        run = jax.jit(lambda carry: jax.lax.scan(step, carry, None, length=self.steps)[0], donate_argnums=0)
        start = time.perf_counter()
        self.run = run.lower(self.carry).compile()
        self.compile_seconds = time.perf_counter() - start

    def measure(self) -> float:
        """Median milliseconds per step, after one warm-up dispatch."""
        import jax

        times = []
        for _ in range(self.dispatches + 1):
            start = time.perf_counter()
            self.carry = jax.block_until_ready(self.run(self.carry))
            times.append(1e3 * (time.perf_counter() - start) / self.steps)
        return statistics.median(times[1:])


def torch_times(python: str, case: dict[str, Any]) -> dict[str, float]:
    """The torch twin's median milliseconds per step, from the interpreter that has torch."""
    request = json.dumps({**case, "threads": THREADS})
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [python, str(TORCH_SCRIPT), request], check=True, capture_output=True, text=True, env=environment
    )
    return json.loads(done.stdout.splitlines()[-1])


def large(sizes: dict[str, Any], batch: int, peak_tflops: float) -> dict[str, Any]:
    """Tokens per second and model FLOPs utilisation of VLA-large in bfloat16 (6 FLOPs a weight and token, no remat)."""
    import jax

    on_gpu = jax.default_backend() == "gpu"
    if not on_gpu and sizes is not TINY:
        raise SystemExit(f"--large needs a GPU; JAX sees {jax.devices()}.")
    kwargs = {**sizes, "attention": "cudnn"} if on_gpu else sizes
    case = {"model": "vla", "kwargs": kwargs, "batch": batch, "steps_per_dispatch": 1, "dispatches": 20}
    seconds = Run(case, 0.0).measure() / 1e3
    depth, width, patches, text = sizes["num_layers"], sizes["embed_dim"], (224 // 16) ** 2 + 1, 64
    fused = patches + text
    streams = ((patches, depth), (text, 2), (fused, depth // 2))
    weights = sum(tokens * layers * 12 * width**2 for tokens, layers in streams)
    attention = sum(layers * 2 * tokens**2 * width for tokens, layers in streams)
    flops = 6.0 * batch * (weights + attention)
    return {
        "case": case,
        "seconds_per_step": seconds,
        "tokens_per_second": batch * fused / seconds,
        "model_tflops": flops / seconds / 1e12,
        "mfu": flops / seconds / (peak_tflops * 1e12),
    }


if __name__ == "__main__":
    main()
