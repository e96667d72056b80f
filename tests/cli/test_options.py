"""Options that several commands share: none is empty, recipes go by any spelling, and take options."""

from __future__ import annotations

import argparse
import json

import pytest
import torch

from sqlib import quantize_model, recipes
from sqlib.cli import COMMANDS, main, parser
from sqlib.fit import progress
from sqlib.fit.loop import Bar

EVALUATE = ("evaluate", "edsr-small", "--scale", "4", "--dataset", "builtin", "--first", "1")


def text_arguments() -> list[tuple[str, argparse.Action]]:
    """Every argument of every command that takes free text."""
    top = parser()
    commands = next(a for a in top._actions if isinstance(a, argparse._SubParsersAction))
    names = [name.replace("_", "-") for name in COMMANDS]
    return [
        (name, action)
        for name in names
        for action in commands.choices[name]._actions
        if action.type is None and action.nargs not in (0, 2) and action.choices is None
    ]


def minimal(command: str) -> list[str]:
    """Valid arguments, apart from one that is replaced."""
    return {
        "evaluate": ["MODEL", "--scale", "4", "--dataset", "builtin"],
        "upscale": ["IN", "OUT", "--scale", "4"],
        "quantize": ["MODEL", "OUT", "--scale", "4", "--recipe", "minmax"],
        "export": ["MODEL", "OUT", "--scale", "4", "--recipe", "minmax"],
        "cost": ["MODEL", "--scale", "4", "--image", "64x64"],
        "reproduce": ["TABLE"],
        "verify": ["--sample", "1"],
        "package-records": ["STORE"],
        "migrate": ["OLD", "NEW"],
        "train": ["CONFIG", "--data", "d"],
        "run-notebooks": ["OUTDIR"],
    }.get(command, [])


@pytest.mark.parametrize("text", ["", " "])
@pytest.mark.parametrize(
    ("command", "action"), text_arguments(), ids=lambda value: getattr(value, "dest", value)
)
def test_no_argument_is_empty(command: str, action, text: str, fails, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    args = minimal(command)
    if action.option_strings:
        args = [*args, action.option_strings[-1], text]
    elif action.metavar in args:
        args[args.index(action.metavar)] = text
    else:
        args = [*args, text]
    error = fails(2, command, *args)
    assert f"got {text!r}" in error and (action.option_strings or [action.metavar])[-1] in error
    assert list(tmp_path.iterdir()) == []


def test_there_are_such_arguments() -> None:
    found = {(command, action.dest) for command, action in text_arguments()}
    wanted = {("status", "store"), ("train", "data"), ("upscale", "inputs"), ("run-notebooks", "outdir")}
    assert wanted <= found and len(found) > 30


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("MinMax", "minmax"),
        ("Min-Max", "minmax"),
        ("min max", "minmax"),
        ("DBDC+Pac", "dbdc-pac"),
        ("DBDC+PaC", "dbdc-pac"),
        ("dbdc_pac", "dbdc-pac"),
        ("PTQ4SR", "dbdc-pac"),
        ("DBDC", "density"),
        ("2DQuant", "twodquant"),
        ("TwoDQuant", "twodquant"),
        ("DFSQ", "dfsq"),
        ("dfsq+compensated", "dfsq-compensated"),
        ("BRECQ", "brecq"),
        ("QDrop", "qdrop"),
    ],
)
def test_recipes_go_by_any_spelling(spelling: str, name: str, fails) -> None:
    assert recipes.canonical(spelling) == name
    assert recipes.create(spelling, bits=4) == recipes.create(name, bits=4)
    assert f"recipe {name!r} has no option zzz" in fails(
        2, *EVALUATE, "--recipe", spelling, "--recipe-option", "zzz=1"
    )


def test_every_recipe_is_found_by_its_name_and_by_its_class() -> None:
    for name in recipes.names():
        assert recipes.canonical(name) == name
        assert recipes.canonical(type(recipes.create(name)).__name__) == name
    assert [recipes.canonical(odd) for odd in ("", "+", None, 3, "max", "minmax2")] == [None] * 6


@pytest.mark.parametrize(
    ("spelling", "hint"), [("BREQC", "brecq"), ("Qdropp", "qdrop"), ("minmx", "minmax"), ("XYZ", None)]
)
def test_an_unknown_recipe_suggests_the_nearest(spelling: str, hint: str | None, fails) -> None:
    error = fails(2, *EVALUATE, "--recipe", spelling)
    assert f"unknown recipe {spelling!r}; expected one of brecq" in error
    assert ("did you mean" in error) == (hint is not None) and f"{hint!r}" in error + "None"


def test_unknown_names_suggest_the_nearest(fails) -> None:
    assert "did you mean 'edsr-small'?" in fails(2, "cost", "EDSR_small", "--scale", 4, "--image", "64x64")
    assert "did you mean 'set5'?" in fails(2, "evaluate", "edsr-small", "--scale", 4, "--dataset", "Set-5")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (
            ("--recipe", "brecq", "--recipe-option", "iterations"),
            "'iterations' is not of the form NAME=VALUE",
        ),
        (("--recipe", "brecq", "--recipe-option", "iterations="), "not of the form NAME=VALUE"),
        (("--recipe", "brecq", "--recipe-option", "=3"), "not of the form NAME=VALUE"),
        (
            ("--recipe", "brecq", "--recipe-option", "iterations=many"),
            "iterations='many': expected an integer",
        ),
        (("--recipe", "brecq", "--recipe-option", "schedule=fast"), "one of published, laptop, custom"),
        (("--recipe", "brecq", "--recipe-option", "bits=3"), "give --bits"),
        (("--recipe", "percentile", "--recipe-option", "percentile=NaN"), "percentile=nan"),
        (("--recipe-option", "iterations=3"), "--recipe-option needs --recipe"),
        (
            ("--recipe", "mse", "--recipe-option", "steps=3", "--recipe-option", "steps=4"),
            "--recipe-option steps is given 2 times",
        ),
    ],
)
def test_bad_recipe_options_are_found_before_anything_slow(args, words: str, fails, monkeypatch) -> None:
    from sqlib import datasets, models

    for module, name in ((models, "pretrained"), (datasets, "load"), (datasets, "calibration")):
        monkeypatch.setattr(module, name, None)
    assert words in fails(2, *EVALUATE, *args)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=500", 500),
        ("a=1e-3", 1e-3),
        ("a=true", True),
        ("a=False", False),
        ("a=None", None),
        ("a=laptop", "laptop"),
        ("a=[20, 2]", [20, 2]),
        ('a=["blocks.*"]', ["blocks.*"]),
        ("a=b=c", "b=c"),
    ],
)
def test_values_of_recipe_options(text: str, value: object) -> None:
    from sqlib.cli._common import option

    assert option(text) == ("a", value) and type(option(text)[1]) is type(value)


def test_recipe_options_reach_the_recipe_and_stdout_is_one_json_object(capsys) -> None:
    args = ["--recipe", "Percentile", "--bits", "4", "--recipe-option", "percentile=99.0", "--json"]
    assert main([*EVALUATE, *args]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["recipe"] == "percentile" and found["recipe_options"] == {"percentile": 99.0}
    assert main([*EVALUATE, "--recipe", "percentile", "--bits", "4", "--json"]) == 0
    other = json.loads(capsys.readouterr().out)
    assert other["recipe_options"] == {} and abs(other["psnr"] - found["psnr"]) > 0.01


def test_a_long_fit_says_in_one_line_what_it_will_take(capsys) -> None:
    options = ["--recipe-option", "iterations=1", "--recipe-option", "activation_iterations=1"]
    assert main([*EVALUATE, "--recipe", "BRECQ", "--bits", "4", *options, "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["recipe"] == "brecq"
    # 8 blocks, twice; every step of the published schedule would be 20,000 such
    assert captured.err.count("\n") == 1 and captured.err.startswith(
        "sqlib: brecq (schedule custom): 16 steps, about"
    )


class Shuffle(torch.nn.Sequential):
    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(
            torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4, 3, 3, padding=1)
        )


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("name", ["brecq", "qdrop", "twodquant", "dbdc-pac"])
def test_every_learning_recipe_is_heard(name: str, terminal: bool, capsys, monkeypatch) -> None:
    given = {"iterations": 3, "batch": 1}
    if name == "dbdc-pac":
        given["weight_iterations"] = 2
    if name == "brecq":
        given["activation_iterations"] = 2
    recipe = recipes.create(name, bits=4, **given)
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
    heard: list[Bar] = []

    class Noted(Bar):
        def __init__(self, total: int) -> None:
            super().__init__(total)
            heard.append(self)

    monkeypatch.setattr("sqlib.fit.loop.loop.Bar", Noted)
    monkeypatch.setattr("sqlib.fit.reconstruction.optimize.Bar", Noted)
    calibration = [torch.rand(2, 3, 16, 16)]
    with progress(name, "; hint"):
        loud = quantize_model(Shuffle(), recipe, calibration, skip=[])
    assert heard and all(bar.done == bar.total > 0 for bar in heard)  # all that was announced was done
    error = capsys.readouterr().err
    assert ("step/s" in error or "s/step" in error) if terminal else error.endswith("; hint\n")
    quiet = quantize_model(Shuffle(), recipe, calibration, skip=[])
    assert capsys.readouterr().err == ""
    x = torch.rand(1, 3, 16, 16)
    assert torch.equal(loud(x), quiet(x))
