"""A VAE whose decoder also reads the question and the steps before a block: plain passes, padding, training, pipelines."""

import pytest
import torch

from ldlm_hf import ThoughtVAE
from ldlm_hf.ladir.reconstruction import (
    reconstruction_accuracy,
    reconstruction_report,
    tokenize_blocks,
    tokenize_contexts,
    write_blocks,
)
from ldlm_hf.ladir.trainer_thought_vae import blocks_of, collate_blocks, contexts_of, tokenized_blocks
from tests.ladir.test_pipeline_ladir import PROMPTS, call
from tests.ladir.tiny_ladir import (
    DIM,
    FAMILIES,
    LATENTS,
    SPLITTER,
    Stop,
    randn,
    sums,
    tiny_pipeline,
    tiny_vae,
    tokenizer,
    vae_trainer,
)


BLOCKS = ["3+4=7", "7", "12+30=42"]
CONTEXTS = [("3,4,2",), ("1,2", "1+2=3"), ("7,7,7,1", "7+7=4", "4+7=1")]


def reader(family: str = "llama", **fields) -> ThoughtVAE:
    return tiny_vae(family, decoder_reads_context=True, **fields)


def batch(rows: slice = slice(3)) -> dict[str, torch.Tensor]:
    tokens = tokenize_blocks(tokenizer(), BLOCKS[rows])
    return {
        "input_ids": tokens["input_ids"],
        "attention_mask": tokens["attention_mask"],
        **tokenize_contexts(tokenizer(), CONTEXTS[rows]),
    }


def context(rows: slice = slice(3)) -> dict[str, torch.Tensor]:
    return tokenize_contexts(tokenizer(), CONTEXTS[rows])


def test_what_stands_before_a_block_is_the_question_and_the_steps_so_far():
    problems = sums(3)
    contexts = contexts_of(problems, SPLITTER)
    assert [len(one) for one in contexts] == [1, 1, 2, 1, 2, 3]
    assert [one[0] for one in contexts] == [problems["prompt"][i] for i in (0, 1, 1, 2, 2, 2)]
    assert contexts[5][1:] == tuple(blocks_of(problems, SPLITTER)[3:5])
    ids = context()["context_ids"][2]
    assert ids[0] == tokenizer().bos_token_id
    assert tokenizer().decode(ids[1:]).replace(" ", "") == "7,7,7,17+7=44+7=1"
    with pytest.raises(ValueError, match="prompt"):
        contexts_of(problems.remove_columns("prompt"), SPLITTER)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_is_the_cross_entropy_of_the_block_behind_context_and_latents(family):
    vae, losses = reader(family), []
    for row in range(3):
        tokens = batch(slice(row, row + 1))
        embed = vae.decoder.get_input_embeddings()
        latents = vae.from_latent(vae.posterior(tokens["input_ids"]).mean)
        embedded = torch.cat([embed(tokens["context_ids"]), latents, embed(tokens["input_ids"])], dim=1)
        labels = [*tokens["input_ids"][0].tolist(), vae.config.eos_token_id]
        scores = vae.decoder(inputs_embeds=embedded).logits[0, -len(labels) :].log_softmax(-1)
        losses.append(-torch.stack([scores[i, label] for i, label in enumerate(labels)]).mean())
        torch.testing.assert_close(vae(**tokens).reconstruction_loss, losses[-1], atol=1e-5, rtol=1e-4)
    # Together their contexts are padded, each by another length.
    torch.testing.assert_close(vae(**batch()).reconstruction_loss, torch.stack(losses).mean(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_written_is_the_greedy_choice_behind_context_and_latents(family):
    vae, tokens = reader(family), batch()
    latents = vae.encode(tokens["input_ids"], tokens["attention_mask"])
    written = vae.decode(latents, 5, **context())
    raw = latents * vae.latent_std + vae.latent_mean
    for row in range(3):
        embed, chosen = vae.decoder.get_input_embeddings(), []
        states = torch.cat(
            [embed(context(slice(row, row + 1))["context_ids"]), vae.from_latent(raw[row : row + 1])], 1
        )
        while len(chosen) < 5 and (not chosen or chosen[-1] != vae.config.eos_token_id):
            chosen.append(vae.decoder(inputs_embeds=states).logits[0, -1].argmax().item())
            states = torch.cat([states, embed(torch.tensor([[chosen[-1]]]))], dim=1)
        assert written[row, : len(chosen)].tolist() == chosen
    assert not torch.equal(
        written, vae.decode(latents, 5, **tokenize_contexts(tokenizer(), CONTEXTS[1:] + CONTEXTS[:1]))
    )


def test_the_posterior_does_not_see_the_context():
    vae, tokens = reader(), batch()
    others = {**tokens, **tokenize_contexts(tokenizer(), CONTEXTS[::-1])}
    one, other = vae(**tokens), vae(**others)
    assert torch.equal(one.latents, other.latents)
    assert not torch.allclose(one.reconstruction_loss, other.reconstruction_loss, atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"context_ids": None, "context_mask": None}, "context_ids"),
        ({"context_ids": torch.zeros(2, 4, dtype=torch.long), "context_mask": None}, "context_ids"),
        ({"context_ids": torch.zeros(3, 4), "context_mask": None}, "context_ids"),
        ({"context_ids": torch.full((3, 4), 999), "context_mask": None}, "context_ids"),
        ({"context_mask": torch.ones(3, 1, dtype=torch.long)}, "context_mask"),
        ({"context_ids": torch.zeros(3, 94, dtype=torch.long), "context_mask": None}, "positions"),
    ],
)
def test_contexts_that_do_not_fit_are_refused_by_name(changes, named):
    with pytest.raises(ValueError, match=named):
        reader()(**{**batch(), **changes})
    latents = randn(3, LATENTS, DIM)
    with pytest.raises(ValueError, match=named):
        reader().decode(latents, 5, **{**context(), **changes})


def test_a_decoder_that_reads_none_takes_none():
    vae = tiny_vae()
    with pytest.raises(ValueError, match="decoder_reads_context"):
        vae(**batch())
    with pytest.raises(ValueError, match="decoder_reads_context"):
        vae.decode(randn(3, LATENTS, DIM), 5, **context())
    with pytest.raises(ValueError, match="contexts"):
        reconstruction_accuracy(reader(), tokenizer(), BLOCKS)
    with pytest.raises(ValueError, match="contexts"):
        reconstruction_report(reader(), tokenizer(), BLOCKS, contexts=CONTEXTS[:2])


def test_it_comes_back_from_disk(tmp_path):
    vae = reader()
    vae.save_pretrained(tmp_path)
    loaded = ThoughtVAE.from_pretrained(tmp_path)
    assert loaded.config.decoder_reads_context
    assert torch.equal(loaded(**batch()).logits, vae(**batch()).logits)


def test_reconstructions_are_those_of_single_blocks():
    vae = reader()
    shares = [
        reconstruction_accuracy(vae, tokenizer(), BLOCKS, batch_size=size, contexts=CONTEXTS, noise=0.1)
        for size in (1, 3)
    ]
    assert shares[0] == shares[1]


def test_a_killed_run_resumes_to_the_same_bits(tmp_path):
    def trainer(folder, **settings):
        model = reader(fitted=False, freeze_decoder=False, latent_noise=0.1, token_substitution=0.1)
        return vae_trainer(tmp_path / folder, model=model, **settings)

    straight = trainer("straight")
    straight.train()
    with pytest.raises(KeyboardInterrupt):
        trainer("killed", callbacks=[Stop(5)]).train()
    torch.manual_seed(123)  # a new process starts from another state
    resumed = trainer("killed")
    resumed.train(resume_from_checkpoint=True)
    pairs = zip(straight.model.state_dict().values(), resumed.model.state_dict().values(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)


def test_rows_carry_their_contexts_and_are_padded_apart():
    rows = tokenized_blocks(sums(3), tokenizer(), SPLITTER, with_contexts=True)
    tokens = collate_blocks(list(rows))
    lengths = [1 + len(tokenizer().tokenize("".join(one))) for one in contexts_of(sums(3), SPLITTER)]
    assert tokens["context_mask"].sum(1).tolist() == lengths
    assert tokens["input_ids"].shape[1] < tokens["context_ids"].shape[1]
    assert "context_ids" not in collate_blocks(list(tokenized_blocks(sums(3), tokenizer(), SPLITTER)))


def test_with_its_context_a_block_is_learned_through_noise_that_drowns_its_latents(tmp_path):
    shares, blocks, contexts = [], blocks_of(sums(24), SPLITTER), contexts_of(sums(24), SPLITTER)
    for is_read in (False, True):
        fields = {"latent_noise": 3.0, "latent_noise_unit": "relative", "decoder_reads_context": is_read}
        vae = tiny_vae(fitted=False, freeze_decoder=False, **fields)
        settings = {"learning_rate": 2e-3, "save_strategy": "no", "lr_scheduler_type": "cosine", "logging_steps": 100}
        trainer = vae_trainer(tmp_path / str(is_read), model=vae, max_steps=400, size=24, **settings)
        trainer.train()
        shares.append(reconstruction_accuracy(vae, tokenizer(), blocks, contexts=contexts))
    assert shares[0] < 0.35
    assert shares[1] > 0.65
    assert {"eval_exact_reconstruction", "eval_shuffled_reconstruction"} <= set(trainer.evaluate())


def test_thoughts_are_read_after_the_question_and_what_earlier_ones_read_as():
    pipeline = tiny_pipeline(vae=reader())
    output = call(pipeline, output_type="trajectory", num_trajectories=3, stop_threshold=0.6)
    for row, (prompt, texts) in enumerate(zip(PROMPTS, output.thoughts, strict=True)):
        for number, text in enumerate(texts):
            latents, before = output.latents[row : row + 1, number], (prompt, *texts[:number])
            assert [text] == write_blocks(pipeline.vae, tokenizer(), latents, 5, [before])
    for step in output.trajectory:
        for row, text in enumerate(step.texts):
            if text is not None:
                before = (PROMPTS[row], *output.thoughts[row][: step.block])
                assert [text] == write_blocks(pipeline.vae, tokenizer(), step.latents[row : row + 1], 5, [before])
    latents = output.latents, output.num_blocks, 5
    assert pipeline.read_thoughts(*latents, PROMPTS) == output.thoughts
    assert pipeline.read_thoughts(*latents, PROMPTS[::-1]) != output.thoughts
    with pytest.raises(ValueError, match="prompts"):
        pipeline.read_thoughts(*latents)
    with pytest.raises(ValueError, match="prompts"):
        pipeline.read_thoughts(*latents, PROMPTS[:2])
