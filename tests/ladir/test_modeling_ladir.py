"""The reasoner: packed = separate passes, cached = uncached, rollouts, dropping, saving."""

import pytest
import torch

from ldlm_hf.ladir.denoising import append_answer, append_block, predict_latents, read_question, roll_out
from ldlm_hf.ladir.losses import PREDICTION_TYPES
from ldlm_hf.ladir.modeling_ladir import LaDiRForReasoning
from tests.ladir.plain_ladir import (
    clean_piece,
    plain_losses,
    plain_prediction,
    plain_rollout,
    plain_states,
    question_piece,
)
from tests.ladir.tiny_ladir import DIM, FAMILIES, LATENTS, randn, tiny_batch, tiny_lm, tiny_reasoner


def rows_of(batch: dict) -> list[tuple]:
    """Return each problem by itself: question, blocks, answer, times, noise."""
    rows = []
    for i in range(3):
        count = int(batch["block_mask"][i].sum())
        question = batch["question_ids"][i][batch["question_mask"][i]]
        answer = batch["answer_ids"][i][batch["answer_mask"][i]]
        blocks = list(batch["block_latents"][i, :count])
        rows.append((question, blocks, answer, batch["times"][i, :count], batch["noise"][i, :count]))
    return rows


def gradients(model) -> list[torch.Tensor]:
    found = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    return found


def assert_close(one, other, tolerance=1e-5):
    torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize(
    ("family", "copies", "prediction_type"),
    [(family, copies, "flow") for family in FAMILIES for copies in (1, 3)]
    + [("llama", 3, kind) for kind in PREDICTION_TYPES if kind != "flow"],
)
def test_the_packed_pass_equals_separate_passes_in_losses_and_gradients(family, copies, prediction_type):
    model, batch = tiny_reasoner(family, prediction_type=prediction_type), tiny_batch(copies)
    dropped = torch.tensor([False, True, False])
    output = model(**batch, condition_dropped=dropped)
    output.loss.backward()
    packed = gradients(model)
    losses = []
    for row, is_dropped in zip(rows_of(batch), dropped.tolist(), strict=True):
        losses.append(plain_losses(model, question_piece(model, row[0], is_dropped), *row[1:]))
    flow = torch.stack([loss[0] for loss in losses]).mean()
    answer, stop = (torch.stack([losses[0][i], losses[2][i]]).mean() for i in (1, 2))
    assert_close(output.flow_loss, flow)
    assert_close(output.answer_loss, answer)
    assert_close(output.stop_loss, stop)
    (5 * flow + answer + stop).backward()
    for one, other in zip(packed, gradients(model), strict=True):
        assert_close(one, other, 2e-5)


def test_nothing_of_a_block_or_the_answer_leaks_into_its_prediction():
    model, batch = tiny_reasoner(), tiny_batch()
    before = model(**batch).prediction
    changed = {**batch, "block_latents": batch["block_latents"].clone(), "answer_ids": batch["answer_ids"] + 1}
    changed["block_latents"][:, 1] += 1
    t = batch["times"][..., None, None]
    shift = torch.zeros_like(batch["noise"])
    shift[:, 1] = -((1 - t) / t)[:, 1]  # so that the noised latents stay the same
    after = model(**{**changed, "noise": batch["noise"] + shift}).prediction
    assert_close(before[:, :2], after[:, :2], 1e-4)
    assert not torch.allclose(before[1, 2], after[1, 2], atol=1e-3)  # block 2 sees block 1


def test_rows_of_another_length_change_nothing():
    model, batch = tiny_reasoner(), tiny_batch()
    alone = {name: tensor[2:] for name, tensor in batch.items()}
    alone |= {name: alone[name][:, :2] for name in ("answer_ids", "answer_mask")}
    alone |= {name: alone[name][:, :1] for name in ("block_latents", "block_mask", "times", "noise")}
    together, single = model(**batch), model(**alone)
    assert_close(together.prediction[2, :1], single.prediction[0])
    assert_close(together.answer_logits[2, :2], single.answer_logits[0])
    assert_close(together.stop_logits[2, :1], single.stop_logits[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_cached_denoising_equals_uncached(family):
    model, batch = tiny_reasoner(family), tiny_batch()
    noised, t = randn(3, LATENTS, DIM, seed=5), torch.tensor([0.3, 0.9, 0.5])
    dropped = torch.tensor([False, False, True])
    prefix = read_question(model, batch["question_ids"], batch["question_mask"], dropped)
    for number in range(3):
        for _ in range(2):  # the prefix is not used up
            prediction = predict_latents(model, prefix, noised, t)
        extended, stops = append_block(model, prefix, batch["block_latents"][:, number])
        for i, row in enumerate(rows_of(batch)):
            question, clean = question_piece(model, row[0], bool(dropped[i])), batch["block_latents"][i]
            assert_close(prediction[i], plain_prediction(model, question, clean[:number], noised[i], t[i]))
            pieces = [question, *(clean_piece(model, block) for block in clean[: number + 1])]
            assert_close(stops[i], model.stop_head(plain_states(model, pieces)[-1]))
        prefix = extended


def test_the_answer_is_scored_as_in_the_packed_pass():
    model, batch = tiny_reasoner(), tiny_batch()
    expected = model(**batch).answer_logits
    for i, row in enumerate(rows_of(batch)):
        prefix = read_question(model, row[0][None], torch.ones(1, len(row[0])))
        for block in row[1]:
            prefix, _ = append_block(model, prefix, block[None])
        prefix, logits = append_answer(model, prefix, None)
        for place, token in enumerate(row[2]):
            assert_close(logits[0], expected[i, place])
            prefix, logits = append_answer(model, prefix, token.view(1, 1))


def test_prefixes_can_be_chosen_and_repeated():
    model, batch = tiny_reasoner(), tiny_batch()
    prefix = read_question(model, batch["question_ids"], batch["question_mask"])
    noised, t = randn(3, LATENTS, DIM), torch.tensor(0.4)
    expected = predict_latents(model, prefix, noised, t)
    chosen = torch.tensor([2, 0])
    assert_close(predict_latents(model, prefix.select(chosen), noised[chosen], t), expected[chosen])
    repeated = predict_latents(model, prefix.repeat(2), noised.repeat_interleave(2, 0), t)
    assert_close(repeated, expected.repeat_interleave(2, 0))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_fresh_reasoner_predicts_zero(family):
    assert tiny_reasoner(family, randomized=False)(**tiny_batch()).prediction.abs().max() == 0


def test_the_prediction_depends_on_time_and_on_the_question():
    model, batch = tiny_reasoner(), tiny_batch()
    prefix = read_question(model, batch["question_ids"], batch["question_mask"])
    noised = randn(3, LATENTS, DIM)
    one, other = (predict_latents(model, prefix, noised, torch.tensor(t)) for t in (0.5, 0.501))
    assert (one - other).abs().max() > 1e-3  # times close together are told apart
    null = read_question(model, batch["question_ids"], batch["question_mask"], torch.ones(3, dtype=torch.bool))
    assert (predict_latents(model, null, noised, torch.tensor(0.5)) - one).abs().max() > 1e-2


@pytest.mark.parametrize("context", ["oracle", "generated"])
def test_a_rollout_equals_plain_passes_in_losses_and_gradients(context):
    model, batch = tiny_reasoner().train(), tiny_batch(1)
    noise = randn(3, 3, LATENTS, DIM, seed=7)
    output = model(**batch, rollout_noise=noise, rollout_steps=3, rollout_flow_context=context)
    output.loss.backward()
    found = gradients(model)
    flows, answers, stops = [], [], []
    for i, (question, blocks, answer, times, eps) in enumerate(rows_of(batch)):
        question = question_piece(model, question)
        generated = plain_rollout(model, question, noise[i, : len(blocks)], 3)
        assert_close(output.generated_latents[i, : len(blocks)], torch.stack(generated), 5e-5)
        _, answer, stop = plain_losses(model, question, generated, answer, times[:, :0], eps[:, :0])
        answers.append(answer), stops.append(stop)
        seen, errors = blocks if context == "oracle" else generated, []
        for b, block in enumerate(blocks):
            t = times[b, 0]
            prediction = plain_prediction(model, question, seen[:b], (1 - t) * block + t * eps[b, 0], t)
            errors.append((prediction - (eps[b, 0] - block)).square().mean())
        flows.append(torch.stack(errors).mean())
    loss = 5 * torch.stack(flows).mean() + torch.stack(answers).mean() + torch.stack(stops).mean()
    assert_close(output.loss, loss, 5e-5)
    loss.backward()
    for one, other in zip(found, gradients(model), strict=True):
        torch.testing.assert_close(one, other, atol=2e-4, rtol=2e-3)


def test_the_answer_teaches_the_latents_through_the_rollout():
    model, batch = tiny_reasoner(flow_weight=0.0, stop_weight=0.0), tiny_batch(1)
    noise = randn(3, 3, LATENTS, DIM, seed=7)
    model(**batch).loss.backward()
    assert model.latent_out.weight.grad is None or model.latent_out.weight.grad.abs().max() == 0
    model(**batch, rollout_noise=noise, rollout_steps=2).loss.backward()
    assert model.latent_out.weight.grad.abs().max() > 0


def test_the_rollout_refuses_what_would_drop_its_keys_and_values():
    model, batch, noise = tiny_reasoner().train(), tiny_batch(1), randn(3, 3, LATENTS, DIM)
    with pytest.raises(ValueError, match="rollout_flow_context"):
        model(**batch, rollout_noise=noise, rollout_flow_context="both")
    model.gradient_checkpointing_enable()
    assert model(**batch).loss.isfinite()
    with pytest.raises(ValueError, match="gradient_checkpointing"):
        model(**batch, rollout_noise=noise)


def test_what_is_rolled_out_is_zero_where_there_is_no_block():
    model, batch, noise = tiny_reasoner(), tiny_batch(1), randn(3, 3, LATENTS, DIM)
    latents = roll_out(model, *(batch[name] for name in ("question_ids", "question_mask", "block_mask")), noise, 2)
    assert (latents.flatten(2).abs().sum(2) > 0).equal(batch["block_mask"])


@pytest.mark.parametrize("family", FAMILIES)
def test_it_starts_from_the_language_model_and_comes_back_from_disk(family, tmp_path):
    lm = tiny_lm(family, tie_word_embeddings=True)
    fresh = LaDiRForReasoning.from_causal_lm(lm, latents_per_block=LATENTS, latent_dim=DIM)
    own = fresh.language_model.state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in lm.state_dict().items())
    model = tiny_reasoner(family)
    model.save_pretrained(tmp_path)
    loaded = LaDiRForReasoning.from_pretrained(tmp_path)
    assert torch.equal(loaded(**tiny_batch()).loss, model(**tiny_batch()).loss)
    (tmp_path / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(OSError, match="unreadable"):
        LaDiRForReasoning.from_pretrained(tmp_path)


def test_a_fresh_answer_is_scored_as_the_language_model_would():
    # Without blocks before it nothing but the marker differs from the LM's own continuation.
    model = tiny_reasoner()
    prefix = read_question(model, torch.tensor([[0, 5, 6]]), torch.ones(1, 3))
    _, logits = append_answer(model, prefix, torch.tensor([[7]]))
    torch.testing.assert_close(logits, model.language_model(torch.tensor([[0, 5, 6, 7]])).logits[:, -1])


def test_wrong_shapes_and_fields_are_refused():
    model, batch = tiny_reasoner(), tiny_batch()
    with pytest.raises(ValueError, match="block_latents"):
        model(**{**batch, "block_latents": batch["block_latents"][..., :3]})
    with pytest.raises(ValueError, match="noise"):
        model(**{**batch, "noise": batch["noise"][:, :2]})
    with pytest.raises(ValueError, match="latent_size"):
        LaDiRForReasoning.from_causal_lm(tiny_lm(), latent_size=3)
    with pytest.raises(Exception, match="prediction_type"):
        tiny_reasoner(prediction_type="score")
    with pytest.raises(Exception, match="time_embedding_dim"):
        tiny_reasoner(time_embedding_dim=15)
