"""`simscale list-...` names what there is."""

from simscaleai_jax.models import registry
from simscaleai_jax.sim.registry import USER_ENVS
from simscaleai_jax.tools import cli


def test_list_envs_shows_a_class_that_needs_settings_of_its_own(capsys, monkeypatch):
    class Needy:
        def __init__(self, render_mode, cameras):
            raise ValueError("needs a map")

    monkeypatch.setitem(USER_ENVS, "needy", Needy)
    assert cli.main(["list-envs"]) == 0
    shown = capsys.readouterr().out
    assert "needs a map" in shown
    assert "reach" in shown


def test_lists_name_what_there_is(capsys):
    assert cli.main(["list-envs"]) == 0
    assert cli.main(["list-models"]) == 0
    shown = capsys.readouterr().out
    for name in ("reach", "bc", "vla"):
        assert name in shown


def test_list_models_describes_each_in_a_line(capsys, monkeypatch):
    class Mine:
        """Maps [state] to actions.

        Second paragraph.
        """

    class Silent:
        __doc__ = None

    monkeypatch.setattr(registry, "_classes", {**registry._classes, "mine": Mine, "silent": Silent})
    monkeypatch.setenv("COLUMNS", "200")
    assert cli.main(["list-models"]) == 0
    rows = [line.split("│") for line in capsys.readouterr().out.splitlines() if "│" in line]
    shown = {name.strip(): text.strip() for _, name, text, _ in rows}
    assert shown["mine"] == "Maps [state] to actions."
    assert shown["silent"] == ""
    assert shown["bc"].startswith("Predicts one action from the state")
    assert shown["vla"].startswith("Predicts one action, or with")
