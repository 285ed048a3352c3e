"""What the recipes of imitation reach: minutes of each part, and success on both engines with its interval.

    python benchmarks/recipes.py                                    all of them: hours on two cores
    python benchmarks/recipes.py bc_pick_place flow_pick_place

Every run is `simscale recipe NAME --folder FOLDER/NAME`, which goes on where it was stopped; what its file says is what
is run, evaluated on the batched engine at its dt and on MuJoCo behind the gymnasium API at dt 0.002. A run's line is
added to benchmarks/results/recipes.json when it ends, and replaces an older one of that name.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

from figure_tables import RECIPES
from stamp import stamp

from simscaleai_jax.core.config import read_yaml
from simscaleai_jax.tools.commands import recipe

RESULTS = Path(__file__).parent / "results" / "recipes.json"
RATES = ("success_rate", "success_low", "success_high")


def main() -> None:
    """Runs the recipes in turn, prints a line for each, and writes the JSON file after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(RECIPES), help=f"of {', '.join(RECIPES)}; default: all")
    parser.add_argument("--folder", type=Path, default=Path("outputs/recipes"))
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    for name in options.names:
        found = measure(name, options.folder / name)
        print(json.dumps({name: found}), flush=True)
        known = json.loads(options.output.read_text())["runs"] if options.output.is_file() else {}
        report = {"benchmark": "recipes", **stamp(), "runs": known | {name: found}}
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(report, indent=1) + "\n")


def measure(name: str, folder: Path) -> dict[str, Any]:
    """Runs one recipe; see `summary`."""
    record = recipe.run(recipe.recipe_file(name), {}, str(folder))
    seconds = {part: each["seconds"] for part, each in record.items()}
    return summary(name, seconds, json.loads((folder / "run" / "eval.json").read_text()))


def summary(name: str, seconds: dict[str, float], judged: dict[str, Any]) -> dict[str, Any]:
    """{"seconds": part -> s, "engines": engine -> its success, ...} of a run and what `simscale eval` wrote of it."""
    said, engines = read_yaml(recipe.recipe_file(name)), {}
    for engine, result in judged.items():
        engines[engine] = {key: round(result[key], 4) for key in (*RATES, "dt")}
        if "blind" in result:
            engines[engine]["blind"] = {key: round(result["blind"][key], 4) for key in RATES}
    return {
        "model": said["train"]["model_name"],
        "demonstrations": said["datagen"]["n_episodes"],
        "episodes": said["eval"]["n_episodes"],
        "seed": said["eval"]["seed"],
        "seconds": {part: round(each, 1) for part, each in seconds.items()},
        "engines": engines,
        **{name: value for name, value in stamp().items() if name in ("date", "commit")},
        "load_average": round(os.getloadavg()[0], 1),
    }


if __name__ == "__main__":
    main()
