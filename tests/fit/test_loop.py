"""The loop on a task of three numbers: schedules, clipping, average, checkpoints, guards, progress."""

from __future__ import annotations

import io
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sqlib.errors import DataError, InputError
from sqlib.fit.loop import Average, Bar, Group, Loop, NotFinite, Task, checkpoint, fit, progress
from sqlib.fit.loop.schedule import Schedule, annealed, constant, cosine, step_decay


class Point(Task):
    """Three numbers on their way to noisy targets."""

    name = "the walk"

    def __init__(self, steps: int = 12, rate: Schedule | None = None, decay: float = 0.0) -> None:
        self.steps, self.rate = steps, rate or cosine(0.1, steps)
        self.place = nn.Parameter(torch.tensor([3.0, -2.0, 1.0]))
        self.generator = torch.Generator().manual_seed(0)
        self.judged: list[tuple[int, int]] = []
        if decay:
            self.average = Average([self.place], [self.place.detach().clone()], decay)

    def groups(self) -> list[Group]:
        return [Group([self.place], self.rate)]

    def loss(self, step: int) -> torch.Tensor:
        return (self.place - torch.rand(3, generator=self.generator)).square().sum()

    def judge(self, step: int, losses: Any) -> None:
        self.judged.append((step, len(losses)))

    def state(self) -> dict[str, Any]:
        return {"place": self.place, "generator": self.generator.get_state()}

    def restore(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            self.place.copy_(state["place"])
        self.generator.set_state(state["generator"])


def rates_of(make: Any, steps: int) -> list[float]:
    """The rates of one of torch's schedulers."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    scheduler, rates = make(optimizer), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("steps", [1, 7, 100])
def test_schedules_are_those_of_torch(steps: int) -> None:
    lr = torch.optim.lr_scheduler
    expected = rates_of(partial(lr.CosineAnnealingLR, T_max=steps), steps)
    assert [annealed(0.3, steps)(i) for i in range(steps)] == expected  # to the bit
    assert [cosine(0.3, steps)(i) for i in range(steps)] == pytest.approx(expected, abs=1e-12)
    low = rates_of(partial(lr.CosineAnnealingLR, T_max=steps, eta_min=0.1), steps)
    assert [cosine(0.3, steps, final=0.1)(i) for i in range(steps)] == pytest.approx(low)
    stepped = rates_of(partial(lr.StepLR, step_size=3, gamma=0.5), steps)
    assert [step_decay(0.3, steps, every=3)(i) for i in range(steps)] == pytest.approx(stepped)
    assert {constant(0.3, steps)(i) for i in range(steps)} == {0.3}


def test_it_is_adam_with_clipping_and_an_average() -> None:
    """The same by hand."""
    task = Point(rate=constant(0.1, 12), decay=0.5)
    place = nn.Parameter(task.place.detach().clone())
    average, other = place.detach().clone(), Point()
    adam = torch.optim.Adam([place], lr=0.1)
    losses = []
    for step in range(12):
        adam.zero_grad()
        other.place = place
        loss = other.loss(step)
        loss.backward()
        place.grad *= min(1.0, 0.7 / (float(place.grad.norm()) + 1e-6))
        adam.step()
        share = min(0.5, (step + 1) / (step + 11))
        average = share * average + (1 - share) * place.detach()
        losses.append(loss.item())
    fitted = fit(task, clip=0.7, every=5)
    assert fitted == (12, pytest.approx(losses), True)
    torch.testing.assert_close(task.place, place)
    torch.testing.assert_close(task.average.values[0], average)
    assert task.judged == [(5, 5), (10, 5), (12, 2)]


@pytest.mark.parametrize("at", [1, 4, 6, 11])
def test_it_continues_bit_for_bit(tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Point(decay=0.9)
    expected = fit(whole)

    class Killed(BaseException):
        pass

    def kill(self: Point) -> None:
        if len(steps) == at:
            raise Killed
        steps.append(1)

    steps: list[int] = []
    monkeypatch.setattr(Point, "stepped", kill)
    with pytest.raises(Killed):
        fit(Point(decay=0.9), file=tmp_path / "new" / "a.pt", every=3)
    monkeypatch.undo()
    cut = Point(decay=0.9)
    assert fit(cut, file=tmp_path / "new" / "a.pt", every=3) == expected
    assert torch.equal(cut.place, whole.place)
    assert torch.equal(cut.average.values[0], whole.average.values[0])
    assert cut.judged[0][0] == at // 3 * 3 + 3
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.pt"]


def test_a_checkpoint_belongs_to_what_it_was_made_for(tmp_path: Path) -> None:
    file = tmp_path / "a.pt"
    fit(Point(), file=file, identity={"configuration": {"later": ((1, 2),)}})
    fit(Point(), file=file, identity={"configuration": {"later": [[1, 2]]}})  # as a card gives it back
    with pytest.raises(InputError, match=r"a\.pt belongs to configuration .* not to 'other'"):
        fit(Point(), file=file, identity={"configuration": "other"})
    state = torch.load(file, weights_only=True)
    for wrong in (state["step"], {**state, "format": 3}, {**state, "format": checkpoint.FORMAT + 1}, {}):
        torch.save(wrong, file)
        with pytest.raises(InputError, match="no training checkpoint of format 4; restore it, or"):
            fit(Point(), file=file)


def written(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def flipped(data: bytes) -> bytes:
    """With other bits in the middle of a tensor, which `torch.load` does not notice."""
    at = data.index(torch.tensor([3.0, -2.0, 1.0]).numpy().tobytes())
    return data[: at + 5] + bytes([data[at + 5] ^ 255]) + data[at + 6 :]


START = torch.tensor([3.0, -2.0, 1.0])
FOREIGN = {
    "empty": (b"", "it is empty"),
    "text": (b"not one", "it is a text file that begins with 'not one'"),
    "page": (b"<!DOCTYPE html><html></html>", "it is a web page"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "a Git-LFS pointer"),
    "module": (
        written(nn.Linear(1, 1)),
        r"a pickled Python object \(torch.nn.modules.linear.Linear\), which could run code; restore",
    ),
    "cut": (written({"format": checkpoint.FORMAT, "place": START})[:-9], "it is damaged or cut off"),
    "flipped": (
        flipped(written({"format": checkpoint.FORMAT, "place": START})),
        "it is damaged in archive/data/0, by its checksum",
    ),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_what_a_damaged_or_foreign_file_is(tmp_path: Path, case: str) -> None:
    """In words of ours: PyTorch advises to switch off safe loading, in colours."""
    data, message = FOREIGN[case]
    (tmp_path / "a.pt").write_bytes(data)
    with pytest.raises(InputError, match=f"a.pt cannot be read as a checkpoint: .*{message}") as caught:
        fit(Point(), file=tmp_path / "a.pt")
    text = str(caught.value)
    assert text.endswith("; restore it or remove it to begin anew")
    assert "weights_only" not in text and "\x1b" not in text and "state_dict" not in text


@pytest.mark.parametrize("key", ["identity", "step", "losses", "optimizer", "task", "average"])
@pytest.mark.parametrize("value", [None, "other"])
def test_a_checkpoint_that_lacks_parts(tmp_path: Path, key: str, value: str | None) -> None:
    file, identity = tmp_path / "a.pt", {"configuration": 1}
    fit(Point(decay=0.9), file=file, identity=identity)
    state = torch.load(file, weights_only=True)
    del state[key]
    torch.save(state if value is None else {**state, key: value}, file)
    wrong = f"has no '{key}'" if value is None else "does not fit this training: "
    with pytest.raises(InputError, match=f"a.pt is an incomplete or foreign checkpoint: it {wrong}.*restore"):
        fit(Point(decay=0.9), file=file, identity=identity)


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, (str(Evil.folder),)

    folder: Path


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    Evil.folder = tmp_path / "made"
    torch.save({"format": checkpoint.FORMAT, "task": Evil()}, tmp_path / "a.pt")
    with pytest.raises(InputError, match="cannot be read as a checkpoint"):
        checkpoint.read(tmp_path / "a.pt")
    assert not Evil.folder.exists()


def test_a_full_disk_keeps_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.pt"
    fit(Point(3), file=file)
    good = file.read_bytes()

    def full(path: Path, data: bytes) -> None:
        raise DataError(f"cannot write {path}: full") from OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_atomically", full)
    with pytest.raises(DataError, match=r"\(No space left on device\).*The one before it is kept"):
        fit(Point(9), file=file, every=1)
    assert file.read_bytes() == good
    with pytest.raises(DataError, match="Nothing is kept so far"):  # before the first step
        fit(Point(9), file=tmp_path / "b.pt")


@pytest.mark.parametrize("check_every", [1, 4])
@pytest.mark.parametrize("kept", [False, True])
def test_what_is_not_finite_is_named_and_undone(tmp_path: Path, kept: bool, check_every: int) -> None:
    """Found late where a CPU looks seldom, and still named by its own step."""

    class Failing(Point):
        def loss(self, step: int) -> torch.Tensor:
            return super().loss(step) * (torch.inf if step == 5 else 1)

    task, good = Failing(), Point()
    good.steps = 3
    fit(good)
    file = tmp_path / "a.pt" if kept else None
    with pytest.raises(InputError, match=r"the walk stopped at step 5: the loss is inf; lower the") as error:
        fit(task, file=file, every=3, check_every=check_every)
    assert f"of step 3, is in {file or 'place'}" in str(error.value)
    assert torch.equal(task.place, good.place)


def test_gradients_parameters_and_the_tasks_own_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    class Steep(Point):
        def loss(self, step: int) -> torch.Tensor:
            return super().loss(step) + (self.place - self.place.detach()).sum().sqrt()

    with pytest.raises(InputError, match="step 0: a gradient is not finite"):
        fit(Steep())

    class Wild(Point):
        def stepped(self) -> None:
            with torch.no_grad():
                self.place.fill_(torch.inf)

    wild = Wild()
    with pytest.raises(InputError, match=r"step 1: a parameter is not finite.* of step 0, is in place"):
        fit(wild, every=1)
    assert torch.equal(wild.place, Point().place)

    def refuse(self: Point) -> None:
        raise NotFinite("the walk left the map")

    monkeypatch.setattr(Point, "stepped", refuse)
    with pytest.raises(InputError, match="step 0: the walk left the map"):
        fit(Point())


def test_a_loss_without_gradient_moves_nothing() -> None:
    class Detached(Point):
        def loss(self, step: int) -> torch.Tensor:
            return super().loss(step).detach()

    task = Detached(3)
    assert fit(task).finished and torch.equal(task.place, Point().place)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_keeps_the_step_at_hand(tmp_path: Path, number: signal.Signals) -> None:
    class Interrupted(Point):
        def stepped(self) -> None:
            if len(self.judged) == 1:
                os.kill(os.getpid(), number)

    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt, match="the walk: interrupted; step 6 of 12 is in"):
        fit(Interrupted(), file=tmp_path / "a.pt", every=5)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    loop = Loop(Point(), file=tmp_path / "a.pt")
    loop.restore(checkpoint.read(tmp_path / "a.pt"))
    assert loop.step == 6
    again = Point()
    fit(again, file=tmp_path / "a.pt", every=5)
    assert again.judged[0] == (10, 5)  # what was done before the interruption counts, too


def test_a_bar_is_one_line_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    fit(Point())
    assert capsys.readouterr().err == ""  # nobody asked
    with progress("walking", "; hint"):
        fit(Point())
        with Bar(3, label="images of x", unit="image") as bar:
            bar.skip(1)
            for _ in range(2):
                bar.update()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(", about")[0] for line in lines] == [
        "sqlib: walking: 12 steps",
        "sqlib: images of x: 3 images",
    ]
    assert all(line.endswith("; hint") and ", about 00:0" in line for line in lines)


def test_a_bar_on_a_terminal_is_tqdms(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with progress("walking"):
        fit(Point())
    shown = capsys.readouterr().err
    assert "walking: 100%" in shown and "12/12" in shown and "about" not in shown
