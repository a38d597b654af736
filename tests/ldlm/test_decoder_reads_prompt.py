"""The two improvements of the paper's §3.3: a decoder that also reads the prompt, and noise on the encoder's states."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy, pad
from transformers.modeling_outputs import BaseModelOutput

from ldlm_hf import (
    AutoencoderTrainer,
    AutoencoderTrainingArguments,
    DenoiserTrainer,
    DenoiserTrainingArguments,
    TextLatentAutoencoder,
)
from ldlm_hf.ldlm.recipe import LatentReasoningRecipe, train_autoencoder, train_denoiser, train_seq2seq
from ldlm_hf.ldlm.reconstruction import reconstruction_accuracy
from ldlm_hf.ldlm.trainer_autoencoder import TextCollator, tokenize_texts
from tests.tiny import tiny_autoencoder, tiny_bart_config, tiny_denoiser, tiny_problems, tiny_scheduler, tiny_tokenizer


BART_SIZES = ("d_model", "encoder_layers", "decoder_layers", "encoder_attention_heads", "decoder_attention_heads")
SHIPPED = Path(__file__).parents[2] / "model_cards" / "ldlm-addition"


def tokens(column: str, rows: slice = slice(6)) -> dict[str, torch.Tensor]:
    """Return a padded batch of a column of the problems."""
    return dict(tiny_tokenizer()(tiny_problems(size=16)[column][rows], padding=True, return_tensors="pt"))


def prompts(rows: slice = slice(6), cut: bool = True) -> dict[str, torch.Tensor]:
    """Return a padded batch of prompts, cut to several lengths, named as the decoder reads them."""
    texts = enumerate(tiny_problems(size=16)["prompt"][:])
    texts = [text.rsplit("+", row % 3)[0] if cut else text for row, text in texts][rows]
    batch = tiny_tokenizer()(texts, padding=True, return_tensors="pt")
    return {f"prompt_{name}": tensor for name, tensor in batch.items()}


def reader(**fields) -> TextLatentAutoencoder:
    """Return a random autoencoder whose decoder reads the prompt; its embeddings are of a trained size."""
    return tiny_autoencoder(decoder_reads_prompt=True, seq2seq_config=tiny_bart_config(init_std=0.3), **fields)


def trainer(folder, max_steps=4, size=40, **fields) -> AutoencoderTrainer:
    settings = {"per_device_train_batch_size": 8, "learning_rate": 1e-2, "disable_tqdm": True, "save_strategy": "no"}
    return AutoencoderTrainer(
        tiny_autoencoder(fitted=False, seq2seq_config=tiny_bart_config(init_std=0.3), **fields),
        AutoencoderTrainingArguments(output_dir=str(folder), max_steps=max_steps, logging_steps=1, **settings),
        tiny_problems(size=size),
        tiny_tokenizer(),
        eval_dataset=tiny_problems("validation", 8),
    )


def losses(run: AutoencoderTrainer) -> list[float]:
    run.train()
    return [entry["loss"] for entry in run.state.log_history if "loss" in entry]


def test_the_decoder_attends_to_the_latents_and_then_to_the_tokens_of_the_prompt():
    model, batch, read = reader(), tokens("target"), prompts()
    output = model(**batch, **read)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    start = torch.full((6, 1), model.config.seq2seq_config.decoder_start_token_id)
    inputs, expanded = torch.cat([start, batch["input_ids"][:, :-1]], dim=1), model.expand(output.latents)
    for row in range(6):  # each text alone and without any padding
        ids = read["prompt_input_ids"][row][read["prompt_attention_mask"][row] == 1][None]
        prompt = model.seq2seq.get_encoder()(ids).last_hidden_state
        states = torch.cat([expanded[row : row + 1], prompt], dim=1)
        hidden = model.seq2seq.get_decoder()(input_ids=inputs[row : row + 1], encoder_hidden_states=states)
        logits = hidden.last_hidden_state @ model.seq2seq.get_input_embeddings().weight.T
        torch.testing.assert_close(output.logits[row : row + 1], logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(output.loss, cross_entropy(output.logits.flatten(0, 1), labels.flatten()))


@torch.no_grad()
def test_what_is_written_is_the_likeliest_token_after_token():
    model, read = reader(), prompts()
    latents = model.encode(**tokens("target"))
    written = model.decode(latents, **read, max_new_tokens=6, min_new_tokens=6)
    labels = torch.cat([written[:, 1:], written[:, :1]], dim=1)
    logits = model(**tokens("target"), **read, labels=labels).logits[:, : written.shape[1] - 1]
    logits[..., model.config.eos_token_id] = -torch.inf  # the minimum length forbids it
    assert torch.equal(logits.argmax(-1), written[:, 1:])


@torch.no_grad()
def test_a_batch_is_written_like_its_singles_and_padding_of_the_prompt_has_no_influence():
    model, read, batch = reader(), prompts(), tokens("target")
    assert read["prompt_attention_mask"].sum(1).unique().numel() > 1
    latents = model.encode(**batch)
    together = model.decode(latents, **read, max_new_tokens=8, min_new_tokens=8)
    padded = {name: pad(tensor, (0, 4), value=int(name.endswith("ids"))) for name, tensor in read.items()}
    assert torch.equal(together, model.decode(latents, **padded, max_new_tokens=8, min_new_tokens=8))
    for row in range(6):
        ids = read["prompt_input_ids"][row][read["prompt_attention_mask"][row] == 1][None]
        alone = model.decode(latents[row : row + 1], prompt_input_ids=ids, max_new_tokens=8, min_new_tokens=8)
        assert torch.equal(together[row], alone[0])
    torch.testing.assert_close(model(**batch, **read).loss, model(**batch, **padded).loss)


@torch.no_grad()
def test_a_prompt_without_tokens_leaves_the_latents_alone():
    model, batch, read = reader(), tokens("target"), prompts()
    other = reader()
    other.config.decoder_reads_prompt = False
    read["prompt_attention_mask"][:3] = 0
    logits, expected = model(**batch, **read).logits, other(**batch).logits
    torch.testing.assert_close(logits[:3], expected[:3])
    assert (logits[3:] - expected[3:]).abs().max() > 0.01


def test_beams_keep_to_the_prompt_of_their_text():
    model, read = reader(), prompts()
    latents = model.encode(**tokens("target")).detach()
    several = model.decode(latents, **read, max_new_tokens=6, num_beams=3, num_return_sequences=3)
    alone = model.decode(latents[3:4], **prompts(slice(3, 4)), max_new_tokens=6, num_beams=3, num_return_sequences=3)
    length = min(several.shape[1], alone.shape[1])
    assert torch.equal(several[9:12, :length], alone[:, :length])


@pytest.mark.parametrize(
    ("on", "read"), [(True, {}), (False, prompts()), (False, {"prompt_attention_mask": torch.ones(6, 3)})]
)
def test_a_prompt_is_neither_missing_nor_given_in_vain(on, read):
    model, batch = tiny_autoencoder(decoder_reads_prompt=on), tokens("target")
    with pytest.raises(ValueError, match="prompt_input_ids.*decoder_reads_prompt"):
        model(**batch, **read)
    with pytest.raises(ValueError, match="prompt_input_ids.*decoder_reads_prompt"):
        model.decode(model.encode(**batch), **read)


def test_a_prompt_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="prompt_attention_mask"):
        reader()(**tokens("target"), **prompts(slice(5)))


def test_without_the_option_the_language_model_is_called_as_it_always_was():
    model, batch = tiny_autoencoder(), tokens("target")
    output = model(**batch)
    states = BaseModelOutput(last_hidden_state=model.expand(output.latents))
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    assert torch.equal(output.logits, model.seq2seq(encoder_outputs=states, labels=labels, use_cache=False).logits)


def test_an_older_checkpoint_loads_with_both_options_off_and_still_reconstructs():
    model = TextLatentAutoencoder.from_pretrained(SHIPPED / "autoencoder")
    assert "decoder_reads_prompt" not in (SHIPPED / "autoencoder" / "config.json").read_text()
    assert not model.config.decoder_reads_prompt
    assert model.config.encoder_noise == 0
    tokenizer = type(tiny_tokenizer()).from_pretrained(SHIPPED / "tokenizer")
    problems = tiny_problems("test", 64)
    exact = reconstruction_accuracy(model, tokenizer, problems["target"][:], prompts=problems["prompt"][:])
    assert exact == 1


def test_saving_and_loading_keeps_the_options(tmp_path):
    model = reader(encoder_noise=0.5)
    model.save_pretrained(tmp_path)
    loaded = TextLatentAutoencoder.from_pretrained(tmp_path)
    assert loaded.config.encoder_noise == 0.5
    assert torch.equal(model(**tokens("target"), **prompts()).logits, loaded(**tokens("target"), **prompts()).logits)


def test_targets_come_with_their_prompts_and_prompts_with_nothing():
    tokenizer, problems = tiny_tokenizer(), tiny_problems(size=5)
    rows = tokenize_texts(problems, tokenizer, with_prompts=True)
    batch = TextCollator(tokenizer)(list(rows))
    for name, texts in (
        ("input_ids", [*problems["prompt"], *problems["target"]]),
        ("prompt_input_ids", [*[""] * 5, *problems["prompt"]]),
    ):
        assert tokenizer.batch_decode(batch[name], skip_special_tokens=True) == texts
    assert batch["prompt_attention_mask"][:5].sum(1).tolist() == [2] * 5
    assert set(tokenize_texts(problems, tokenizer).column_names) == {"input_ids", "attention_mask"}


def test_reconstruction_and_the_gate_hand_the_prompts_on(tmp_path):
    model, problems = reader(), tiny_problems("validation", 8)
    texts = (model, tiny_tokenizer(), problems["target"][:])
    with pytest.raises(ValueError, match="prompts"):
        reconstruction_accuracy(*texts)
    with pytest.raises(ValueError, match="5 for 8"):
        reconstruction_accuracy(*texts, prompts=problems["prompt"][:5])
    assert reconstruction_accuracy(*texts, prompts=problems["prompt"][:]) < 1
    args = DenoiserTrainingArguments(output_dir=str(tmp_path), reconstruction_gate=0.99)
    parts = (tiny_denoiser(), args, model, tiny_scheduler(), tiny_problems(size=8), tiny_tokenizer())
    with pytest.raises(ValueError, match="reconstruction_gate"):  # and not for want of a prompt
        DenoiserTrainer(*parts, eval_dataset=problems)


def test_a_recipe_trains_such_an_autoencoder_and_measures_it_with_its_prompts(tmp_path):
    steps = {"max_steps": 2, "per_device_train_batch_size": 4, "disable_tqdm": True, "save_strategy": "no"}
    sizes = {"latent_length": 4, "latent_dim": 8, "num_layers": 1, "num_attention_heads": 2}
    recipe = LatentReasoningRecipe(
        output_dir=str(tmp_path),
        task="addition",
        tokenizer={"model_max_length": 32},
        seq2seq={name: value for name, value in tiny_bart_config().to_dict().items() if name in BART_SIZES},
        seq2seq_training=steps,
        autoencoder={**sizes, "decoder_reads_prompt": True, "encoder_noise": 0.1},
        autoencoder_training=steps,
        denoiser={"hidden_size": 32, "num_layers": 1, "num_attention_heads": 2},
        denoiser_training={**steps, "reconstruction_gate": 1e-9},
    )
    data, heldout = tiny_problems(size=40), tiny_problems("validation", 8)
    train_seq2seq(recipe, data, False)
    record = train_autoencoder(recipe, data, heldout, False)
    assert (record["exact_reconstruction"], record["num_texts"]) == (0, 8)
    with pytest.raises(ValueError, match="reconstruction_gate"):
        train_denoiser(recipe, data, heldout, False)


def test_the_decoder_learns_to_read_the_prompt(tmp_path):
    # Under this noise the latents say nothing, so whatever is known of a target comes from its prompt.
    run = trainer(tmp_path, max_steps=150, size=8, decoder_reads_prompt=True, latent_noise=1e4)
    run.train()
    model, batch = run.model.eval(), tokens("target", slice(8))
    noise = 1e4 * torch.randn(8, *model.latent_mean.shape, generator=torch.Generator().manual_seed(0))
    right = prompts(slice(8), cut=False)
    wrong = {name: tensor.roll(1, 0) for name, tensor in right.items()}
    assert model(**batch, **right, latent_noise=noise).loss < 0.7 * model(**batch, **wrong, latent_noise=noise).loss
    assert "eval_exact_reconstruction" in run.evaluate()


@pytest.mark.parametrize("layers", [[-1], [0, -1]])
@pytest.mark.parametrize("axis", ["feature", "sequence"])
def test_encoder_noise_is_relative_to_the_size_of_each_texts_states(layers, axis):
    model, batch = tiny_autoencoder(encoder_layers=layers, encoder_layers_axis=axis), tokens("target")
    noise = torch.randn(*batch["input_ids"].shape, len(layers), 32)
    hidden = model.seq2seq.get_encoder()(**batch, output_hidden_states=True).hidden_states
    expected = []
    for index, layer in enumerate(layers):
        states = hidden[layer].clone()
        for row, kept in enumerate(batch["attention_mask"].bool()):
            states[row] += states[row, kept].square().mean().sqrt() * noise[row, :, index]
        expected.append(states)
    states = model._encoder_states(**batch, noise=noise)
    torch.testing.assert_close(states, torch.cat(expected, dim=-1 if axis == "feature" else 1))
    assert torch.equal(model.encode(**batch, encoder_noise=0 * noise), model.encode(**batch))
    assert not torch.allclose(model.encode(**batch, encoder_noise=noise), model.encode(**batch))


def test_encoder_noise_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"encoder_noise.*6, length \d+, 1, 32"):
        tiny_autoencoder().encode(**tokens("target"), encoder_noise=torch.zeros(6, 1, 32))


def test_encoder_noise_is_a_rows_own_whatever_it_is_padded_with(tmp_path):
    run, mask = trainer(tmp_path, encoder_noise=0.5, encoder_layers=[0, -1]), tokens("target")["attention_mask"]
    run.model.train()  # else each batch is the next one of an evaluation
    together = run._encoder_noise(run.generators(6), mask)
    assert together.shape == (*mask.shape, 2, 32)
    assert together[mask == 0].abs().sum() == 0
    padded = run._encoder_noise(run.generators(6), pad(mask, (0, 3)))
    assert torch.equal(padded[:, :-3], together)
    length = int(mask[0].sum())
    assert torch.equal(run._encoder_noise(run.generators(1), mask[:1, :length])[0], together[0, :length])
    strengths = [together[row, kept].std() for row, kept in enumerate(mask.bool())]
    assert max(strengths) < 0.6
    assert len(set(strengths)) == 6


def test_encoder_noise_is_of_training_only_and_does_not_depend_on_the_global_state(tmp_path):
    run = trainer(tmp_path, encoder_noise=1.0)
    batch, values = TextCollator(tiny_tokenizer())([*run.train_dataset][:4]), []
    run.model.train().seq2seq.eval()  # without dropout, which does depend on it
    for seed in (1, 2):
        torch.manual_seed(seed)
        values.append(run.compute_loss(run.model, batch))
    assert torch.equal(*values)
    assert not torch.equal(values[0], run.model(**batch).loss)
    run.model.eval()
    assert torch.equal(run.compute_loss(run.model, batch), run.model(**batch).loss)


def test_encoder_noise_leaves_the_latent_noise_what_it_was(tmp_path):
    # The noise of the latents has to come out of each row's generator first, as it did before there was any other.
    with_latent_noise = trainer(tmp_path, latent_noise=0.5, encoder_noise=1e-9)
    assert losses(with_latent_noise) == pytest.approx(losses(trainer(tmp_path, latent_noise=0.5)), abs=1e-4)
