"""CABM's table and its look-up rule, against the rule as a loop."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sqlib.engine import Context
from sqlib.errors import InputError
from sqlib.quantizers import EdgeTable, QuantizerBank, TableBits, edge_scores
from sqlib.quantizers._saved import describe, rebuild

SCORES = torch.tensor([300, 10, 300, 300, 700, 10, 300])
BITS = torch.tensor([[8, 4], [4, 4], [4, 4], [4, 8], [8, 8], [4, 4], [8, 4]])
TABLE = EdgeTable(SCORES, BITS)


def test_rows_are_distinct_and_sorted_by_score_then_mean_then_widths():
    assert TABLE.scores.tolist() == [10, 300, 300, 300, 700] and len(TABLE) == 5
    assert TABLE.bits.tolist() == [[4, 4], [4, 4], [4, 8], [8, 4], [8, 8]]
    assert TABLE.means.tolist() == [4, 4, 6, 6, 8]
    assert TABLE.cheapest().scores.tolist() == [10, 300, 700]


def by_the_rule(scores, bits, asked, limit):
    """Decrease by 0.01, reflected at 0, until there is an entry whose cheapest one is below limit."""
    table: dict[int, list] = {}
    for s, b in zip(scores, bits, strict=True):
        table.setdefault(s, []).append((sum(b) / len(b), b))
    while True:
        found = min(table.get(abs(asked), [(1000, None)]))
        if found[0] < limit:
            return found[1]
        asked -= 1


@settings(deadline=None)
@given(st.data())
def test_look_up_is_the_rule(data):
    n = data.draw(st.integers(1, 12))
    scores = data.draw(st.lists(st.integers(0, 30), min_size=n, max_size=n))
    bits = data.draw(
        st.lists(st.lists(st.sampled_from([4, 6, 8]), min_size=3, max_size=3), min_size=n, max_size=n)
    )
    cheapest = min(sum(b) / 3 for b in bits)
    limit = data.draw(st.sampled_from([5.0, 6.0, 7.0, 100.0]).filter(lambda limit: cheapest < limit))
    asked = data.draw(st.lists(st.integers(0, 60), min_size=1, max_size=6))
    table = EdgeTable(torch.tensor(scores), torch.tensor(bits))
    want = [by_the_rule(scores, bits, a, limit) for a in asked]
    assert table.find(torch.tensor(asked), limit).tolist() == want
    context = a_pass(len(asked))
    context.data["edge scores, white 1, saturated False"] = torch.tensor(asked)
    columns = [TableBits(table, i, limit=limit)(None, None, context).tolist() for i in range(3)]
    assert [list(row) for row in zip(*columns, strict=True)] == want


def a_pass(samples, image=None):
    context = Context()
    context.begin((torch.rand(samples, 3, 8, 8) if image is None else image,), {})
    return context


def test_scores_below_the_first_and_above_the_last():
    assert TABLE.find(torch.tensor([0, 9, 10, 11, 299, 300, 10**9])).tolist() == [
        [4, 4], [4, 4], [4, 4], [4, 4], [4, 4], [4, 4], [8, 8]
    ]  # fmt: skip


def test_dear_configurations_are_passed_over():
    assert TABLE.find(torch.tensor([800]), 8.0).tolist() == [[4, 4]]  # not below 8
    assert TABLE.find(torch.tensor([800]), 8.01).tolist() == [[8, 8]]
    dear_first = EdgeTable(torch.tensor([0, 500]), torch.tensor([[8], [4]]))
    assert dear_first.find(torch.tensor([0, 3]), 6.0).tolist() == [[4], [4]]  # reflected at 0


def test_a_table_of_one_row_always_hits():
    one = EdgeTable(torch.tensor([500]), torch.tensor([[6, 4]]))
    assert one.find(torch.tensor([0, 500, 99999])).tolist() == [[6, 4]] * 3


@pytest.mark.parametrize(
    ("scores", "bits", "message"),
    [
        (torch.zeros(0, dtype=torch.int64), torch.zeros(0, 2, dtype=torch.int64), "one or more patches"),
        (torch.tensor([1]), torch.zeros(1, 0, dtype=torch.int64), "at least one bank"),
        (torch.tensor([1, 2]), torch.tensor([[4]]), r"scores \(2,\) and bits \(1, 1\)"),
        (torch.tensor([1.5]), torch.tensor([[4]]), "expected integers"),
        (torch.tensor([-1]), torch.tensor([[4]]), "scores of at least 0"),
        (torch.tensor([1]), torch.tensor([[1]]), "bits from 2 to 16"),
        (torch.tensor([1]), torch.tensor([[32]]), "bits from 2 to 16"),
    ],
)
def test_bad_tables(scores, bits, message):
    with pytest.raises(InputError, match=message):
        EdgeTable(scores, bits)


def test_a_limit_below_every_configuration_is_refused():
    with pytest.raises(InputError, match=r"below limit=4 bits, the cheapest has 4.00; give a higher limit"):
        TABLE.find(torch.tensor([1]), 4.0)
    with pytest.raises(InputError, match="below limit=4 bits"):
        TableBits(TABLE, 0, limit=4.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(bank=2), "bank=2"),
        (dict(limit=0), "limit=0"),
        (dict(limit=101), "limit=101"),
        (dict(data_range=0), "data_range=0"),
        (dict(data_range=1.0), "data_range=1.0"),
        (dict(saturated=1), "saturated=1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        TableBits(TABLE, **{"bank": 0, **options})


def contrasts():
    """Patches with more and more edges."""
    x = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return 0.5 + (x - 0.5) * torch.tensor([0.0, 0.01, 0.05, 1.0]).view(4, 1, 1, 1)


@pytest.mark.parametrize("saturated", [False, True])
@pytest.mark.parametrize("white", [1, 255])
def test_a_selector_looks_at_the_images_of_the_pass(saturated, white):
    x = contrasts() * white
    scores = edge_scores(x, data_range=white, saturated=saturated)
    table = EdgeTable(torch.tensor([0, 100, 5000]), torch.tensor([[4, 8], [6, 8], [8, 8]]))
    for bank in (0, 1):
        q = TableBits(table, bank, limit=100, data_range=white, saturated=saturated)
        assert torch.equal(q(None, None, a_pass(4, x)), table.find(scores)[:, bank])
    if not saturated:
        assert table.find(scores)[:, 0].tolist() == [4, 6, 6, 8]


def test_the_limit_can_be_changed_afterwards():
    q = TableBits(TABLE, 0, limit=6)
    context = a_pass(2)
    context.data["edge scores, white 1, saturated False"] = torch.tensor([10, 900])
    assert q(None, None, context).tolist() == [4, 4]
    q.limit.fill_(100)
    assert q(None, None, context).tolist() == [4, 8]


def test_without_a_pass_there_is_no_image():
    with pytest.raises(InputError, match="its tensors are none"):
        TableBits(TABLE, 0)(None, None, None)


def test_widths_that_the_bank_has_not_are_refused():
    bank = QuantizerBank({w: nn.Identity() for w in (4, 6)}, TableBits(TABLE, 0, limit=100))
    context = a_pass(2)
    context.data["edge scores, white 1, saturated False"] = torch.tensor([10, 900])
    with pytest.raises(InputError, match="TableBits chose 8 bits, expected some of 4, 6"):
        bank.choose(torch.zeros(2, 3), None, context)


@pytest.mark.parametrize("limit", [5.5, 100])
def test_description_and_rebuilding(limit):
    q = TableBits(TABLE, 1, limit=limit, data_range=255, saturated=True)
    made = rebuild(*describe(q))
    assert isinstance(made, TableBits) and made.options() == q.options()
    for one in (made, copy.deepcopy(q)):
        assert all(torch.equal(v, one.state_dict()[k]) for k, v in q.state_dict().items())
    assert made.half().means.dtype == torch.float64


def test_a_file_with_an_unsorted_table_is_refused():
    entry, tensors = describe(TableBits(TABLE, 0, limit=100))
    with pytest.raises(InputError, match="not sorted"):
        rebuild(entry, {**tensors, "scores": tensors["scores"].flip(0)})


def test_state_of_another_table_is_refused():
    other = TableBits(EdgeTable(torch.tensor([1]), torch.tensor([[4]])), 0)
    with pytest.raises(RuntimeError, match="size mismatch"):
        TableBits(TABLE, 0).load_state_dict(other.state_dict())
    saturated = TableBits(TABLE, 0, saturated=True)
    with pytest.raises(RuntimeError, match="saturated=1, here it is saturated=False"):
        TableBits(TABLE, 0).load_state_dict(saturated.state_dict())
