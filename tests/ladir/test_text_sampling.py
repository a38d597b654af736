"""Texts of a causal LM, and answers from given latents, against plain passes and the pipeline."""

from __future__ import annotations

import pytest
import torch

from ldlm_hf.ladir.text_sampling import write_continuations, write_from_latents

from .tiny_ladir import LATENTS, tiny_lm, tiny_pipeline, tokenizer


PROMPTS = ["3,4", "7,7,2", "1,9", "5"]


def write(temperature: float, num_samples: int = 1, prompts=PROMPTS, length: int = 6, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return write_continuations(tiny_lm(), tokenizer(), prompts, temperature, num_samples, length, generator)


@torch.no_grad()
def test_without_a_temperature_each_token_is_the_most_probable():
    model, coder = tiny_lm(), tokenizer()
    for prompt, texts in zip(PROMPTS, write(0.0), strict=True):
        ids = [0, *coder(prompt, add_special_tokens=False)["input_ids"]]
        start = len(ids)
        while len(ids) < start + 6 and ids[-1] != 2:
            ids.append(model(torch.tensor([ids])).logits[0, -1].argmax().item())
        kept = ids[start:-1] if ids[-1] == 2 else ids[start:]
        assert texts == [coder.decode(kept, skip_special_tokens=True)]


@torch.no_grad()
def test_samples_of_the_first_token_follow_the_tempered_distribution():
    ids = torch.tensor([[0, *tokenizer()("5", add_special_tokens=False)["input_ids"]]])
    logits = tiny_lm()(ids).logits[0, -1]
    shares = (logits / 2.0).softmax(-1)
    texts = write(2.0, num_samples=4000, prompts=["5"], length=1)[0]
    likeliest = text_of(shares.argmax().item())
    alike = [token for token in range(len(shares)) if text_of(token) == likeliest]
    assert texts.count(likeliest) / len(texts) == pytest.approx(shares[alike].sum().item(), abs=0.03)


def text_of(token: int) -> str:
    """Return what a token reads as."""
    return tokenizer().decode([token], skip_special_tokens=True)


def test_each_prompt_gets_as_many_samples_in_its_own_place():
    texts = write(1.5, num_samples=5)
    assert [len(row) for row in texts] == [5] * 4
    assert len(set(texts[0])) > 1
    assert write(1.5, num_samples=5) == texts
    assert write(1.5, num_samples=5, seed=1) != texts


def test_answers_from_the_latents_of_a_pipeline_are_those_that_it_gave():
    pipeline = tiny_pipeline()
    settings = {"num_inference_steps": 2, "max_blocks": 3, "max_new_tokens": 5, "select": "first"}
    generators = [torch.Generator().manual_seed(seed) for seed in range(4)]
    output = pipeline(PROMPTS, generator=generators, **settings)
    blocks = [latents[:count] for latents, count in zip(output.latents, output.num_blocks.tolist(), strict=True)]
    assert write_from_latents(pipeline.model, tokenizer(), PROMPTS, blocks, 5) == output.texts


def test_answers_after_chains_of_different_lengths_equal_those_of_each_alone():
    model, shape = tiny_pipeline().model, (LATENTS, 8)
    blocks = [torch.randn(count, *shape, generator=torch.Generator().manual_seed(count)) for count in (2, 1, 3, 2)]
    together = write_from_latents(model, tokenizer(), PROMPTS, blocks, 4)
    alone = [
        write_from_latents(model, tokenizer(), [prompt], [own], 4)[0]
        for prompt, own in zip(PROMPTS, blocks, strict=True)
    ]
    assert together == alone
