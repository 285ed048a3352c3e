"""`simscale dagger`: rounds of labels and training on reach, gone on with; what it refuses."""

import json

import numpy as np
import pytest

from simscaleai_jax.core.demonstrations import DemonstrationFile
from simscaleai_jax.tools import cli
from simscaleai_jax.tools.commands import dagger, datagen, train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on four demonstrations of reach, its folder."""
    folder = tmp_path_factory.mktemp("dagger")
    demos, where = str(folder / "demos.h5"), str(folder / "run")
    words = ["--env-name", "reach", "--policy", "scripted", "--n-episodes", "4", "--env.dt", "0.01"]
    assert cli.main(["datagen", *words, "--env.max-episode-steps", "30", "--output", demos]) == 0
    words = ["--max-steps", "40", "--batch-size", "32", "--lr", "1e-3", "--checkpoint-dir", where]
    assert cli.main(["train", "--dataset", demos, "--model.hidden-dim", "32", *words]) == 0
    return folder / "run"


@pytest.mark.wide
def test_rounds_are_taught_and_gone_on_with(run, capsys, monkeypatch):
    words = ["dagger", str(run), "--n-episodes", "5", "--max-steps", "300", "--eval-episodes", "20"]
    assert cli.main([*words, "--rounds", "1"]) == 0
    shown = capsys.readouterr().out
    assert f"simscale eval {run / 'dagger' / 'round_1'}" in shown
    calls = []
    monkeypatch.setattr(datagen, "generate", spied(datagen.generate, calls))
    assert cli.main([*words, "--rounds", "2"]) == 0
    assert len(calls) == 1, "the first round was made before"
    rounds = json.loads((run / "dagger" / "dagger.json").read_text())["rounds"]
    assert [row["episodes"] for row in rounds] == [4, 9, 14]
    second = DemonstrationFile(run / "dagger" / "round_2.h5")
    assert rounds[2]["labels"] - rounds[1]["labels"] == second.lengths.sum()
    assert rounds[2]["success_rate"] > rounds[0]["success_rate"]
    difference = second.read(0, "actions") - second.read(0, "actions_executed")
    assert np.abs(difference).max() > 1e-3
    trained = json.loads((run / "dagger" / "round_2" / "run.json").read_text())["settings"]
    assert trained["init_from"] == str(run / "dagger" / "round_1")
    assert cli.main([*words, "--rounds", "2", "--expert", "elsewhere"]) == 1


def spied(function, calls):
    def call(*arguments):
        calls.append(arguments)
        return function(*arguments)

    return call


def test_what_cannot_be_taught_is_named(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(train, "train", lambda options: pytest.fail("trained"))
    other = ["--output", str(tmp_path / "out")]
    for words, message in [
        ([str(tmp_path)], "holds no run of `simscale train` on demonstrations"),
        ([str(run), "--expert", str(tmp_path / "none"), *other], "none"),
    ]:
        assert cli.main(["dagger", *words]) == 1
        assert message in " ".join(capsys.readouterr().err.split())
    with pytest.raises(SystemExit):
        cli.main(["dagger", str(run), "--rounds", "0"])
    assert "--rounds must be at least 1, got 0" in " ".join(capsys.readouterr().err.split())
    (tmp_path / "out").mkdir()
    settings = dagger.DaggerOptions(str(run), n_episodes=7)
    record = {"settings": dagger._settings(settings), "rounds": []}
    (tmp_path / "out" / "dagger.json").write_text(json.dumps(record))
    assert cli.main(["dagger", str(run), "--n-episodes", "8", *other]) == 1
    assert "choose another --output" in " ".join(capsys.readouterr().err.split())


def test_an_expert_alone_labels_nothing(capsys, tmp_path):
    assert cli.main(["datagen", "--expert", "scripted", "--output", str(tmp_path / "a.h5")]) == 1
    assert "without one, --policy acts alone" in " ".join(capsys.readouterr().err.split())
