"""What several commands share: arguments, checks that need the library, output."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from torch import nn

    from sqlib.datasets import Calibration
    from sqlib.experiments import Cell
    from sqlib.recipes import Recipe
    from sqlib.training import Crops

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


class UsageError(Exception):
    """An argument that is wrong in itself: exit status 2."""


class Failure(Exception):
    """The command ran and its answer is no: exit status 1."""


def bits(text: str) -> int | tuple[int, int]:
    """``"4"`` or ``"8,4"`` (weights, activations)."""
    parts = text.split(",")
    try:
        values = [int(part) for part in parts]
    except ValueError:
        values = []
    if len(values) not in (1, 2) or not all(2 <= value <= 8 or value == 32 for value in values):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not 2 to 8, nor two such as 8,4 (weights,activations; 32 = left as is)"
        )
    if all(value == 32 for value in values):
        raise argparse.ArgumentTypeError(f"{text!r} quantizes nothing; leave --recipe out")
    return values[0] if len(values) == 1 else (values[0], values[1])


def positive(text: str) -> int:
    """An integer of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer of 1 or more")
    return int(text)


def seed(text: str) -> int:
    """An integer of 0 or more."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer of 0 or more")
    return int(text)


def seconds(text: str) -> float:
    """A positive, finite number, of seconds or minutes."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value


def known(kind: str, name: str, names: Iterable[str]) -> str:
    """``name`` if it is one of ``names``, else a usage error that lists them."""
    choices = list(names)
    if name not in choices:
        near = difflib.get_close_matches(name.casefold(), choices, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"unknown {kind} {name!r}; expected one of {', '.join(choices)}{hint}")
    return name


def check_store(folder: str | None) -> None:
    """A usage error for ``--store`` of a command that only reads, unless it names a folder."""
    from pathlib import Path

    if folder is None:
        return
    if not folder or not Path(folder).expanduser().exists():
        raise UsageError(f"store {folder!r} does not exist; give the folder that reproduce wrote to")
    if not Path(folder).expanduser().is_dir():
        raise UsageError(f"store {folder!r} is not a folder; give the folder that reproduce wrote to")


def add_only(parser: argparse.ArgumentParser) -> None:
    """``--only``, which chooses among the cells of a plan."""
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="TEXT",
        help="only cells with TEXT in their line of the plan, such as 'DFSQ 4 bit'; repeatable: all of them",
    )


def only(cells: Iterable[Cell], texts: Sequence[str]) -> list[Cell]:
    """The cells that ``--only`` chooses; a usage error where it leaves none."""
    from sqlib.errors import InputError
    from sqlib.experiments.run import plan

    try:
        return plan.only(cells, texts)
    except InputError as error:
        raise UsageError(f"--{error}") from None


def option(text: str) -> tuple[str, Any]:
    """``"iterations=500"``: a name and a value, read as JSON (also True, False, None), else as text."""
    name, equals, value = text.partition("=")
    if not name.isidentifier() or not equals or not value.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=VALUE, such as iterations=500")
    words = {"True": True, "False": False, "None": None}
    if value in words:
        return name, words[value]
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def add_quantization(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    """``--recipe``, ``--bits`` and the calibration they need."""
    parser.add_argument("--recipe", required=required, help="quantize with this recipe, such as minmax")
    parser.add_argument(
        "--bits", type=bits, metavar="B", help="bits, or weight,activation bits; with --recipe (default 8)"
    )
    parser.add_argument(
        "--recipe-option",
        type=option,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of the recipe, such as schedule=laptop or iterations=500; repeatable",
    )
    parser.add_argument(
        "--skip",
        action="append",
        metavar="PATTERN",
        help="modules left in full precision, as in 'tail*' (default: the network's own); repeatable",
    )
    parser.add_argument("--calibration", metavar="SET", help="calibration images (default: builtin)")
    parser.add_argument(
        "--pairs",
        metavar="SETS",
        help="originals for recipes that train on pairs, as in bsds400+t91 (default: builtin)",
    )
    parser.add_argument("--seed", type=seed, help="of the calibration crops (default: 0)")


def add_quantized(parser: argparse.ArgumentParser) -> None:
    """``--quantized``, in place of weights and recipe."""
    parser.add_argument(
        "--quantized",
        metavar="FILE",
        help="the network as 'sqlib quantize' wrote it, with its weights; in place of --weights and --recipe",
    )


def add_weights(parser: argparse.ArgumentParser) -> None:
    """``--weights`` and whether unchecked ones may be fetched."""
    parser.add_argument(
        "--weights",
        metavar="PATH",
        help="checkpoint (default: shipped, else $SQLIB_WEIGHTS, else a download)",
    )
    parser.add_argument(
        "--allow-unverified",
        action="store_true",
        help="download a third party's checkpoint even where its content was never checked",
    )


def add_common(parser: argparse.ArgumentParser) -> None:
    """``--device`` and ``--data-dir``."""
    parser.add_argument("--device", default="cpu", help="torch device (default: %(default)s)")
    parser.add_argument("--data-dir", metavar="DIR", help="folder of the datasets (default: $SQLIB_DATA)")


def check_output_file(path: str, suffix: str, kind: str, *, inputs: Sequence[str], overwrite: bool) -> None:
    """Raise `UsageError` for a file to write of another kind, one that exists, or an input."""
    from sqlib._files import check_output
    from sqlib.errors import InputError

    if Path(path).suffix != suffix:
        raise UsageError(f"{path!r} is to be {kind}: end it in {suffix}")
    try:
        check_output(path, inputs=inputs, overwrite=overwrite)
    except InputError as error:
        raise UsageError(str(error)) from None


def quantization(args: argparse.Namespace, *, calibrates: bool = False) -> Recipe | None:
    """The recipe that is asked for, with its options checked before anything slow happens.

    ``args.recipe`` becomes the recipe's own name: ``MinMax``, ``2DQuant`` and ``DBDC+Pac`` are understood.
    ``calibrates``: the command uses calibration images without a recipe, too.
    """
    _check_source(args)
    if args.recipe is None:
        needless = [
            "bits",
            "recipe_option",
            "skip",
            "pairs",
            *(() if calibrates else ("calibration", "seed")),
        ]
        for name in needless:
            if getattr(args, name) not in (None, []):
                raise UsageError(f"--{name.replace('_', '-')} needs --recipe")
    given_pairs = args.pairs is not None
    for name, default in (("calibration", "builtin"), ("pairs", "builtin"), ("seed", 0)):
        if getattr(args, name) is None:
            setattr(args, name, default)
    if args.recipe is None:
        return None
    from sqlib import datasets, recipes
    from sqlib.errors import InputError

    args.recipe = recipes.canonical(args.recipe) or known("recipe", args.recipe, recipes.names())
    known("calibration set", args.calibration, datasets.names())
    for name in args.pairs.split("+"):
        known("set of originals", name, datasets.names())
    names = [name for name, _ in args.recipe_option]
    if "bits" in names:
        raise UsageError("--recipe-option bits: give --bits")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"--recipe-option {twice} is given {names.count(twice)} times")
    try:
        asked = {} if args.bits is None else {"bits": args.bits}
        found = recipes.create(args.recipe, **asked, **dict(args.recipe_option))
    except InputError as error:
        raise UsageError(str(error)) from None
    if given_pairs and not found.paired:
        raise UsageError(f"--pairs: {args.recipe} does not train on pairs; leave it out")
    return found


def _check_source(args: argparse.Namespace) -> None:
    """One place that the network comes from."""
    holds = "that file holds weights and quantizers; give one"
    rivals = {
        "quantized": {"recipe": holds, "weights": holds, "allow_unverified": "nothing is downloaded"},
        "weights": {"allow_unverified": "nothing is downloaded"},
    }
    for source, others in rivals.items():
        for name, why in others.items():
            if getattr(args, source, None) is not None and getattr(args, name) not in (None, False):
                raise UsageError(f"--{name.replace('_', '-')} with --{source}: {why}")


def network(args: argparse.Namespace, model: str, recipe: Recipe | None) -> nn.Module:
    """The network of a command: by name, with its own or given weights, quantized where asked."""
    from sqlib import models

    known("network", model, models.names())
    check_device(args.device)
    loaded: nn.Module
    if getattr(args, "quantized", None) is not None:
        from sqlib import load_quantized

        loaded = load_quantized(args.quantized, models.create(model, scale=args.scale))
        licence = getattr(loaded, "licence", None)
        if licence is not None:
            show(f"{args.quantized}: licence of its weights {licence}; see its terms before you pass it on")
        return loaded.to(args.device)
    if args.weights is not None:
        loaded = models.load(args.weights, model, scale=args.scale)
    else:
        loaded = models.pretrained(model, scale=args.scale, allow_unverified=args.allow_unverified, show=show)
    loaded = loaded.eval()
    if recipe is not None:
        from sqlib import quantize_model
        from sqlib.fit import progress

        schedule = getattr(recipe, "schedule", None)
        label = recipe.name if schedule is None else f"{recipe.name} (schedule {schedule})"
        shorter = schedule == "published" and "laptop" in getattr(recipe, "schedules", {})
        hint = "; --recipe-option schedule=laptop takes fewer" if shorter else ""
        with progress(label, hint):
            pairs = _pairs(args) if recipe.paired else None
            loaded = quantize_model(loaded, recipe, calibration(args), skip=args.skip, pairs=pairs).eval()
    return loaded.to(args.device)


def show(line: str) -> None:
    """A line beside the output."""
    print(line, file=sys.stderr)


def used(model: nn.Module) -> dict[str, Any]:
    """Name and bits of the recipe, None without one; licence of a third party's weights, None for others."""
    recipe = getattr(model, "recipe", None)
    known = {} if recipe is None else recipe.to_dict()
    return {
        "recipe": known.get("name"),
        "bits": known.get("bits"),
        "licence": getattr(model, "licence", None),
    }


def calibration(args: argparse.Namespace) -> Calibration:
    """32 crops of 48 x 48 LR pixels, as DFSQ takes them."""
    from sqlib import datasets

    return datasets.calibration(
        args.calibration, n=32, patch=48, scale=args.scale, seed=args.seed, data_dir=args.data_dir
    )


def _pairs(args: argparse.Namespace) -> Crops:
    """Crops of the originals to train on."""
    from sqlib import training

    return training.pairs(args.pairs, scale=args.scale, seed=args.seed, data_dir=args.data_dir)


def check_device(name: str) -> None:
    """A usage error for a device that torch does not know or that is not here."""
    from sqlib._device import usable_device
    from sqlib.errors import InputError

    try:
        usable_device(name)
    except InputError as error:
        raise UsageError(str(error)) from None


@contextlib.contextmanager
def quiet_stdout(active: bool) -> Iterator[None]:
    """With ``--json``, whatever a library prints goes to standard error: stdout carries one object only."""
    if not active:
        yield
        return
    with contextlib.redirect_stdout(sys.stderr):
        yield


def print_json(value: dict[str, Any]) -> None:
    """One JSON object on standard output."""
    from sqlib.experiments.store.cells import jsonable

    print(json.dumps(jsonable(value), indent=2, allow_nan=False))
