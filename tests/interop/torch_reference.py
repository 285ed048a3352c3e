"""Run by an interpreter with torch and without JAX: the torch twins' answers to `cases.inputs`.

python torch_reference.py FOLDER: for every NAME.safetensors in FOLDER, loads it strictly, reads NAME.inputs.npz, writes
NAME.outputs.npz, and for a fresh module its weights, NAME.state.npz, and answers, NAME.back.npz; at last report.json.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

from simscaleai_jax.interop import torch_mirror


def main(folder: Path) -> None:
    """Answers every export in the folder."""
    torch.manual_seed(0)
    report = {"counts": parameter_counts()}
    for file in sorted(folder.glob("*.safetensors")):
        record = torch_mirror.read(file)
        module = torch_mirror.load_model(file)
        data = {name: torch.from_numpy(value) for name, value in np.load(f"{folder}/{file.stem}.inputs.npz").items()}
        with torch.no_grad():
            found = outputs(file.stem, module, data)
        np.savez(folder / f"{file.stem}.outputs.npz", **{name: value.numpy() for name, value in found.items()})
        fresh = type(module)(**record["model_kwargs"])
        np.savez(
            folder / f"{file.stem}.state.npz", **{name: value.numpy() for name, value in fresh.state_dict().items()}
        )
        with torch.no_grad():
            found = outputs(file.stem, fresh.eval(), data)
        np.savez(folder / f"{file.stem}.back.npz", **{name: value.numpy() for name, value in found.items()})
    pt = torch_mirror.load_model(folder / "bc-as.pt")
    report["pt_keys"] = sorted(torch.load(folder / "bc-as.pt", weights_only=True))
    report["pt_loads"] = type(pt).__name__
    encoder = torch_mirror.SimpleLanguageEncoder(max_len=8, embed_dim=8, num_heads=1, num_layers=1)
    report["tokens"] = encoder.tokenize(["Ab 9.-", "é!", "abcdefghijk"]).tolist()
    report["jax_imported"] = "jax" in sys.modules
    (folder / "report.json").write_text(json.dumps(report))


def parameter_counts() -> list[int]:
    """Parameters of the four default modules."""
    modules = (
        torch_mirror.BehaviorCloning(),
        torch_mirror.VisionLanguageAction(),
        torch_mirror.MLPActionHead(),
        torch_mirror.ActorCritic(20, 4),
    )
    return [sum(parameter.numel() for parameter in module.parameters()) for module in modules]


def outputs(name: str, module: torch.nn.Module, data: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The numbers that `cases.outputs` computes with JAX."""
    kind = name.split("-")[0]
    if kind == "actor_critic":
        log_prob, value, entropy = module.evaluate_actions(data["features"], data["actions"])
        return {"mean": module(data["features"])[0].mean, "log_prob": log_prob, "value": value, "entropy": entropy}
    if kind == "mlp_head":
        return {"actions": module(data["features"])}
    if kind in ("diffusion_head", "flow_head"):
        return generative(module, data["features"], data)
    observations = {key: data[key] for key in ("state", "image", "front_image")}
    batch = {"observations": observations, "actions": data["actions"], "language": data["language"]}
    if name in ("vla-diffusion", "vla-flow", "diffusion", "flow-images"):
        features = module.features(batch)
        return {"features": features, **generative(module.action_head, features, data)}
    return module(batch)


def generative(head: torch.nn.Module, features: torch.Tensor, data: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Loss and estimate at given draws, and samples."""
    is_diffusion = isinstance(head, torch_mirror.DiffusionActionHead)
    draws = {"steps": data["steps"]} if is_diffusion else {"time": data["time"]}
    out = head(features, data["actions"], noise=data["noise"], **draws)
    samples = {f"sample{count}": head.sample(features, data["noise"], count) for count in (1, 4, 10)}
    return {"loss": out["loss"], "estimate": out["predicted_actions"], **samples}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
