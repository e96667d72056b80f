"""A recipe from outside: the page's example in a file of its own, known everywhere by its import alone."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import sqlib
from sqlib import models, recipes
from sqlib.engine import registry
from sqlib.errors import InputError
from sqlib.recipes import MinMax, Recipe

ROOT = Path(__file__).resolve().parents[2]


def page() -> str:
    """The cells of the page that are the recipe."""
    notebook = json.loads((ROOT / "notebooks" / "21-your-own-recipe.ipynb").read_text(encoding="utf8"))
    cells = [c for c in notebook["cells"] if "recipe" in c["metadata"].get("tags", [])]
    assert len(cells) == 2
    return "\n\n".join("".join(cell["source"]) for cell in cells)


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is unknown after it."""
    recipes.names()
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))


@pytest.fixture
def sigma(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgotten: None) -> type[Recipe]:
    (tmp_path / "sigma_recipe.py").write_text(page(), encoding="utf8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sigma_recipe", raising=False)
    import sigma_recipe  # type: ignore[import-not-found]

    return sigma_recipe.Sigma  # type: ignore[no-any-return]


def test_the_recipe_is_known_by_name(sigma: type[Recipe]) -> None:
    assert "sigma" in recipes.names()
    made = recipes.create("Sigma", bits=(8, 4), width=3)
    assert made == sigma(bits=(8, 4), width=3.0)
    assert recipes.from_json(made.to_json()) == made
    with pytest.raises(InputError, match=r"width=0: expected a number above 0"):
        recipes.create("sigma", width=0)
    with pytest.raises(InputError, match="has no option widht; it has bits, width"):
        recipes.create("sigma", widht=3)


def test_its_bounds_are_what_it_says(sigma: type[Recipe], tmp_path: Path) -> None:
    network = models.create("edsr-small", scale=2)
    torch.manual_seed(0)
    batches = [torch.rand(2, 3, 12, 12), torch.rand(1, 3, 12, 12)]
    seen = sqlib.record_operands(network, batches)
    quantized = sqlib.quantize_model(network, sigma(bits=4, width=2), batches)
    checked = 0
    for (site, operand), tensors in seen.items():
        if operand != "input":
            continue
        values = torch.cat([t.flatten() for t in tensors]).double()
        mean, std = values.mean(), values.std(correction=0)
        found = quantized.activation_quantizer(quantized.sites[site], operand)
        assert found is not None
        assert float(found.lower) == pytest.approx(max(float(values.min()), float(mean - 2 * std)), rel=1e-6)
        assert float(found.upper) == pytest.approx(min(float(values.max()), float(mean + 2 * std)), rel=1e-6)
        checked += 1
    assert checked == 16
    # its weights are Min-Max's
    twin = sqlib.quantize_model(network, MinMax(bits=4), batches)
    for key in twin.weight_keys:
        one, other = quantized.weight_quantizer(key), twin.weight_quantizer(key)
        assert torch.equal(one.lower, other.lower) and torch.equal(one.upper, other.upper)  # type: ignore[union-attr, arg-type]
    quantized.save(tmp_path / "q.safetensors")
    again = sqlib.load_quantized(tmp_path / "q.safetensors", network)
    assert again.recipe == quantized.recipe and torch.equal(again(batches[0]), quantized(batches[0]))


def test_the_command_line_knows_it_by_its_import(tmp_path: Path) -> None:
    (tmp_path / "sigma.py").write_text(page(), encoding="utf8")
    program = (
        "import sigma, sys, sqlib.cli as c; sys.exit(c.main(['evaluate', 'edsr-small', '--scale', '4', "
        "'--dataset', 'builtin', '--recipe', 'sigma', '--bits', '3', '--recipe-option', 'width=5', "
        "'--json']))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 15 < json.loads(done.stdout)["psnr"] < 40


def test_a_name_that_is_taken(forgotten: None) -> None:
    @dataclasses.dataclass(frozen=True)
    class Mine(Recipe):
        """Nothing."""

    for name in ("minmax", "Min_Max", "2DQuant", "compensated", "dfsq"):
        with pytest.raises(InputError, match=rf"register\('{name}'\): .*Mine has a name that is taken by"):
            recipes.register(name)(Mine)
    Mine.spellings = ("DBDC+Pac",)
    with pytest.raises(InputError, match="taken by the recipe 'dbdc-pac'"):
        recipes.register("mine")(Mine)
    assert "mine" not in recipes.names() and recipes.create("minmax") == MinMax()


def test_the_same_class_again_replaces_itself(forgotten: None) -> None:
    """A cell that is run again, a module that is loaded anew."""
    source = (
        "from dataclasses import dataclass\nfrom sqlib.recipes import Recipe, register\n"
        "@register('again')\n@dataclass(frozen=True)\nclass Again(Recipe):\n    pass\n"
    )
    space: dict[str, object] = {"__name__": "somewhere"}
    exec(source, space)
    first = space["Again"]
    exec(source, space)
    assert type(recipes.create("again")) is space["Again"] is not first


@pytest.mark.parametrize("thing", [dict, torch.nn.Linear, 5])
def test_what_is_no_recipe(thing: object, forgotten: None) -> None:
    with pytest.raises(InputError, match=r"is no recipe; derive it from sqlib\.recipes\.Recipe"):
        recipes.register("thing")(thing)  # type: ignore[type-var]


def test_a_recipe_without_its_methods_says_which(forgotten: None) -> None:
    @recipes.register("empty")
    @dataclasses.dataclass(frozen=True)
    class Empty(Recipe):
        """Nothing."""

    network, data = models.create("edsr-small", scale=2), [torch.rand(1, 3, 8, 8)]
    with pytest.raises(InputError, match=r"blocks\.0\.conv1.*Empty does not say how .*: write \w+, or leave"):
        sqlib.quantize_model(network, Empty(), data)


@pytest.mark.parametrize("error", [ValueError("odd"), KeyError("odd"), TypeError("odd"), RuntimeError("odd")])
def test_a_recipe_that_fails_is_named_not_the_network(error: Exception) -> None:
    class Broken(MinMax):
        def activation_observer(self, site: object, operand: str) -> None:
            raise error

    network, data = models.create("edsr-small", scale=2), [torch.rand(1, 3, 8, 8)]
    expected = rf"'blocks\.0\.conv1' .*the recipe Broken cannot take it: {type(error).__name__}: .*odd"
    with pytest.raises(InputError, match=expected):
        sqlib.quantize_model(network, Broken(4), data)


def test_every_module_of_the_package_is_a_recipe_that_can_be_made() -> None:
    files = {p.stem for p in (ROOT / "sqlib" / "recipes").glob("[!_]*.py")}
    classes = registry.known()
    assert {
        cls.__module__.rpartition(".")[2] for cls in classes.values() if "sqlib" in cls.__module__
    } == files
    for name, cls in classes.items():
        assert recipes.create(name) == cls()
        assert getattr(recipes, cls.__name__, cls) is cls
