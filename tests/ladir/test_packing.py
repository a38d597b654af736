"""The packed sequence: its mask against a rule by loops, its positions against separate sequences."""

import pytest
import torch

from ldlm_hf.ladir.packing import ANSWER, CLEAN, NOISY, QUESTION, additive_mask, pack


QUESTIONS, ANSWERS, COUNTS = [3, 1], [2, 4], [1, 3]


def columns(row: int, latents: int, copies: int) -> list[tuple]:
    """Return (kind, block, copy, place, is real, position) of each column of a row, written out."""
    found = [("Q", -1, -1, i, i < QUESTIONS[row], i) for i in range(max(QUESTIONS))]
    start = QUESTIONS[row]
    for b in range(max(COUNTS)):
        real = b < COUNTS[row]
        found += [("clean", b, -1, i, real, start + b * (latents + 2) + i) for i in range(latents + 2)]
    after = start + COUNTS[row] * (latents + 2)
    found += [("A", -1, -1, i, i <= ANSWERS[row], after + i) for i in range(max(ANSWERS) + 1)]
    for b in range(max(COUNTS)):
        for c in range(copies):
            for i in range(latents + 3):
                place = start + b * (latents + 2) + max(0, i - 1)
                found.append(("noisy", b, c, i, b < COUNTS[row], place))
    return found


def sees(query: tuple, key: tuple) -> bool:
    """The rule in words: see the module's docstring."""
    kind, block, copy, place, *_ = query
    other, other_block, other_copy, other_place, is_real, _ = key
    if query == key:
        return True
    if not is_real:
        return False
    if other == "Q":
        return kind != "Q" or other_place <= place
    if other == "clean":
        if kind == "clean":
            return other_block <= block
        return (kind == "A") or (kind == "noisy" and other_block < block)
    if other == "A":
        return kind == "A" and other_place <= place
    return kind == "noisy" and (other_block, other_copy) == (block, copy)


def layout(latents: int, copies: int):
    masks = [torch.arange(max(lengths)) < torch.tensor(lengths)[:, None] for lengths in (QUESTIONS, COUNTS, ANSWERS)]
    return pack(*masks, latents, copies)


@pytest.mark.parametrize(("latents", "copies"), [(2, 1), (1, 3), (3, 0)])
def test_the_mask_is_the_rule_by_loops(latents, copies):
    mask = layout(latents, copies).attention_mask(torch.float32)
    for row in range(2):
        places = columns(row, latents, copies)
        assert mask.shape[2:] == (len(places), len(places))
        for i, query in enumerate(places):
            for j, key in enumerate(places):
                assert (mask[row, 0, i, j] == 0) == sees(query, key), (query, key)
    assert set(mask.unique().tolist()) <= {0.0, torch.finfo(torch.float32).min}


@pytest.mark.parametrize(("latents", "copies"), [(2, 1), (1, 3), (3, 0)])
def test_positions_are_those_of_separate_sequences(latents, copies):
    found = layout(latents, copies)
    kinds = {"Q": QUESTION, "clean": CLEAN, "A": ANSWER, "noisy": NOISY}
    for row in range(2):
        places = columns(row, latents, copies)
        assert found.kind.tolist() == [kinds[place[0]] for place in places]
        assert found.block.tolist() == [place[1] for place in places]
        assert found.copy.tolist() == [place[2] for place in places]
        assert found.is_real[row].tolist() == [place[4] for place in places]
        assert found.position_ids[row].tolist() == [place[5] if place[4] else 0 for place in places]


def test_no_row_of_a_mask_is_empty():
    assert ((layout(2, 2).attention_mask(torch.bfloat16) == 0).any(-1)).all()
    mask = additive_mask(torch.tensor([[[True, False]]]), torch.float16)
    assert mask.shape == (1, 1, 1, 2)
    assert mask.dtype == torch.float16
    assert mask.isfinite().all()
