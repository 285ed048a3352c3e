"""README and docs say what the benchmarks wrote."""

import importlib
import importlib.util
import json
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "figures.py"


@pytest.fixture
def figures(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("figures", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_figure_is_that_of_its_file(figures, capsys):
    assert figures.main(["--check"]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("name", ["pods", "tpu_step"])
def test_tables_of_programs_compiled_for_tpus_are_those_of_their_files(name, monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    script, root = importlib.import_module(name), SCRIPT.parent.parent
    found = json.loads((root / "benchmarks" / "results" / f"{name}.json").read_text())
    rows = found["rows"]
    page = (root / script.PAGE).read_text()
    assert script.between(page, script.MARKS, script.table(rows)) == page
    if "fits" in found:
        assert script.between(page, script.FIT_MARKS, script.table_of_fits(found["fits"])) == page
    changed = page.replace("MiB", "MB")
    assert script.between(changed, script.MARKS, script.table(rows)) != changed


def test_recipes_say_at_their_head_what_they_reach(figures):
    runs = figures.load("recipes")["runs"]
    assert runs
    for name, run in runs.items():
        lines = (SCRIPT.parent.parent / "configs" / f"{name}.yaml").read_text().splitlines()
        head = " ".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))
        for found in run["engines"].values():
            assert figures.tables.interval(found) in head, name


def test_a_figure_that_was_typed_is_found(figures, tmp_path, monkeypatch, capsys):
    for name in ("README", "PAGE", "PERFORMANCE", "CLIENTS", "PPO", "IMITATION", "LANGUAGE"):
        path = getattr(figures, name)
        copy = tmp_path / path.name
        typed = path.read_text().replace("env steps/s", "env steps/h")
        copy.write_text(typed.replace(figures.MARKS[0], figures.MARKS[0] + "\n\nenv steps/h"))
        monkeypatch.setattr(figures, name, copy)
    assert figures.main(["--check"]) == 1
    assert capsys.readouterr().err.count("run python benchmarks/figures.py") == 7
    assert figures.main([]) == 0
    assert figures.main(["--check"]) == 0
    assert "env steps/h" not in figures.PAGE.read_text() + figures.PERFORMANCE.read_text()


@pytest.mark.wide
def test_a_plot_of_other_results_is_found(figures, tmp_path, monkeypatch, capsys):
    shown = figures.drawable(figures.plots.PLOTS)
    monkeypatch.setattr(figures, "IMAGES", tmp_path)
    assert figures.main(["--check"]) == 1
    assert capsys.readouterr().err.count(".png") == len(shown) > 0
    assert figures.main([]) == 0
    assert figures.main(["--check"]) == 0
    source = figures.source_of(shown[0])
    figures.plots.draw(shown[0], source | {"date": "another"}, tmp_path / f"{shown[0]}.png")
    assert figures.main(["--check"]) == 1
    assert shown[0] in capsys.readouterr().err


def test_results_of_every_kind_become_tables_and_plots(figures, tmp_path, monkeypatch):
    """What is measured by scripts that need other libraries or hours, here from results made up in their form."""
    rates = {"ours": 4e4, "ours_vector": 3e4, "theirs": 1e4, "our_bare": 5e4}
    pair = {"peer": "envpool", "package": "envpool", "env": "PandaPickCube-v1", "ours": "pick_place", "goal": 2.0}
    pair |= {"physics_steps": 4, "num_envs": 128, "our_num_envs": 128}
    measured = pair | {"steps_per_second": rates, "times_faster": 4.0, "times_faster_vector": 3.0, "share_of_bare": 0.8}
    run = {"variant": "brax", "seed": 0, "rows": [[100, 1.0, 0.5]], "last": {}}
    each = {"reached": 0, "seeds": 1, "median_seconds": 600.0, "median_steps": 1e6, "highest_success": 0.5}
    point = {"num_envs": 1, "steps_per_second": 10.0, "physics_steps_per_second": 50.0, "start_seconds": 1.0}
    point |= {"first_call_seconds": 2.0, "megabytes": 300.0}
    program = {"parts_ms": {"physics (bare `mujoco.batch.Batch`)": 2.0, "rest": 2.0}, "whole_ms": 5.0, "flops": 1e6}
    program |= {"minibatch_flops": 1e6, "minibatch_ms": 1.0, "bytes_written": 1e6}
    spread = {"median": 1.0, "lowest": 1.0, "highest": 1.0}
    rate = {"success_rate": 0.9, "success_low": 0.85, "success_high": 0.93, "dt": 0.01}

    def run_of(found):
        seconds = {"datagen": 5.0, "train": 90.0, "eval": 3.0}
        return {"engines": {"c": found}, "seconds": seconds, "demonstrations": 100, "episodes": 200}

    made_up = {
        "peers_env": {"cases": [measured, pair | {"missing": "not installed: pip install envpool"}]},
        "peers_ppo": {
            "goal": 0.95,
            "runs": [run, {"variant": "sb3", "seed": 0, "missing": "not installed: pip install stable-baselines3"}],
            "summary": {"brax": each | {"times_ours": 30.0}},
        },
        "peers_imitation": {
            "cases": [
                {"variant": "bc", "times": 1.0, "success_rate": 1.0, "success_low": 0.9, "success_high": 1.0}
                | {"seconds": 10.0, "updates": 100},
                {"variant": "robomimic", "times": 1.0, "missing": "not installed: pip install robomimic"},
            ]
        },
        "env_scaling": {"curves": [{"env_name": "reach", "impl": "c", "points": [point], "saturates_at": 1}]},
        "startup": {
            "python": spread,
            "imports": {"jax": spread},
            "first_step": [{"env_name": "reach", "what": "host", "first": spread, "later": spread}],
        },
        "machine": {
            "matmul_flops": {"float32": 1e11},
            "memory_bytes_per_second": {"xla": 1e10},
            "physics": {"reach": {"batch_steps_per_second": 1e5, "rollout_steps_per_second": 1e5}},
        },
        "recipes": {"runs": {"bc_pick_place": run_of(rate), "vla_reach_language": run_of(rate | {"blind": rate})}},
        "imitation": {
            "cases": [rate | {"model": "bc", "demonstrations": 25, "seed": 0, "n_episodes": 200, "seconds": 9.0}]
        },
        "dagger": {
            "settings": {"eval_episodes": 200},
            "runs": {"0": [{"labels": 100, "dagger": 0.9, "plain_labels": 110, "plain": 0.5}]},
        },
        "time_shares": {
            "matmul_flops": 1e11,
            "memory_bytes_per_second": 1e10,
            "programs": dict.fromkeys(figures.PROGRAMS, program),
        },
    }
    head = {"date": "2026-01-01", "commit": "abc", "versions": {"jax": "1"}}
    head["hardware"] = {"cpu": "CPU", "cores": 2, "device": "cpu"}
    (tmp_path / "quick").mkdir()
    for path in figures.RESULTS.glob("*.json"):
        (tmp_path / path.name).write_text(path.read_text())
    for name, content in made_up.items():
        (tmp_path / f"{name}.json").unlink(missing_ok=True)
        (tmp_path / "quick" / f"{name}.json").write_text(json.dumps(head | content))
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    assert "not measured" in figures.imitation(), "the other recipes"
    text = figures.page() + figures.performance() + figures.imitation() + figures.language()
    assert "not measured yet" not in text.lower()
    assert "not installed: pip install envpool" in text
    assert "quick sizes; 2026-01-01" in text
    assert "| at least 30.0 |" in text
    for name in figures.drawable(figures.plots.PLOTS):
        figures.plots.draw(name, figures.source_of(name), tmp_path / f"{name}.png")
    assert {path.stem for path in tmp_path.glob("*.png")} == set(figures.plots.PLOTS)


def test_the_readme_shows_few_of_them(figures):
    shown = [claim for section in figures.SECTIONS for claim in section.claims if claim.in_readme]
    assert 1 <= len(shown) <= 8
