"""Problems as the reasoner trains on them: tokens of question and answer, posteriors of the steps, computed once.

The VAE is frozen by then, so no training step needs to run it. Means and standard deviations are kept, standardised,
so that each step can draw its own sample.
"""

from __future__ import annotations

from pathlib import Path

import torch
from datasets import Dataset, Features, List, Value
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..training import map_once
from .block_splitter import BlockSplitter
from .configuration_ladir import LaDiRConfig
from .modeling_thought_vae import ThoughtVAE
from .pipeline_inputs import question_tokens
from .reconstruction import pad_right, tokenize_blocks
from .trainer_thought_vae import split_targets


def cache_thoughts(
    dataset: Dataset,
    vae: ThoughtVAE,
    tokenizer: PreTrainedTokenizerBase,
    splitter: BlockSplitter,
    config: LaDiRConfig,
    cache_dir: str | Path | None = None,
    batch_size: int = 256,
    num_proc: int | None = None,
) -> Dataset:
    """Return each problem's question and answer as token ids and its steps as posteriors.

    Args:
        dataset (`Dataset`): with the columns `prompt` and `target`, and `answer` where targets lack the splitter's
            prefix.
        vae ([`ThoughtVAE`]): with fitted statistics.
        tokenizer (`PreTrainedTokenizerBase`): of VAE and reasoner.
        splitter ([`BlockSplitter`]): how targets become blocks and answers.
        config ([`LaDiRConfig`]): of the reasoner; its special tokens and positions.
        cache_dir (`str` or `Path`, *optional*): where to keep the file for later runs; in memory by default.
        batch_size (`int`, *optional*, defaults to 256): problems at a time.
        num_proc (`int`, *optional*): processes that encode, on the CPU; see [`map_once`].

    Returns:
        `Dataset`: columns `question_ids` and `answer_ids` (with the end of text), and `means` and `stds`, each
        `blocks * latents_per_block * latent_dim` float32 values.

    Raises:
        ValueError: if the statistics of the VAE were not fitted, a column is missing, or a problem has no steps or
            does not fit into the LM's positions, or as [`map_once`].
    """
    if not vae.has_latent_statistics:
        raise ValueError(
            "The latent statistics of `vae` were never fitted. Train it with ThoughtVAETrainer, or call its "
            "set_latent_statistics with the posteriors of many training blocks."
        )
    if "prompt" not in dataset.column_names:
        raise ValueError(f"The data set has to have the column 'prompt', but has {dataset.column_names}.")
    limit = config.text_config.to_dict().get("max_position_embeddings")

    def encode(rows: dict[str, list[str]]) -> dict[str, list]:
        split = split_targets(Dataset.from_dict(rows), splitter)
        questions = question_tokens(tokenizer, rows["prompt"], config)
        answers = tokenizer([answer for _, answer in split], add_special_tokens=False)["input_ids"]
        answers = [[*ids, config.eos_token_id] for ids in answers]
        for prompt, question, answer, (blocks, _) in zip(rows["prompt"], questions, answers, split, strict=True):
            needed = len(question) + len(blocks) * (config.latents_per_block + 2) + len(answer)
            if limit is not None and needed > limit:
                raise ValueError(
                    f"`prompt` {prompt[:60]!r} and its target need {needed} positions, the LM has {limit}."
                )
        means, stds = _posteriors(vae, tokenizer, [blocks for blocks, _ in split])
        return {"question_ids": questions, "answer_ids": answers, "means": means, "stds": stds}

    features = {name: List(Value("int64")) for name in ("question_ids", "answer_ids")}
    features |= {name: List(Value("float32")) for name in ("means", "stds")}
    return map_once(
        dataset.select_columns([name for name in ("prompt", "target", "answer") if name in dataset.column_names]),
        encode,
        Features(features),
        vae,
        tokenizer,
        (splitter, config.bos_token_id, config.eos_token_id, config.latents_per_block, limit),
        cache_dir=cache_dir,
        name="thoughts",
        batch_size=batch_size,
        num_proc=num_proc,
    )


def collate_thoughts(rows: list[dict[str, list]], block: tuple[int, int]) -> dict[str, Tensor]:
    """Return a batch of cached problems.

    Args:
        rows (`list[dict[str, list]]`): of [`cache_thoughts`].
        block (`tuple[int, int]`): latent vectors in a block, and their size.

    Returns:
        `question_ids` and `answer_ids`, int64, with their bool masks, padded on the right; `means` and `stds`,
        `(batch, blocks, latents_per_block, latent_dim)` float32, zero where there is no block; `block_mask`, bool.
    """
    batch = {}
    for name in ("question", "answer"):
        padded = pad_right([row[f"{name}_ids"] for row in rows])
        batch[f"{name}_ids"], batch[f"{name}_mask"] = padded["input_ids"], padded["attention_mask"].bool()
    for name in ("means", "stds"):
        blocks = [torch.tensor(row[name], dtype=torch.float32).view(-1, *block) for row in rows]
        batch[name] = torch.nn.utils.rnn.pad_sequence(blocks, batch_first=True)
    counts = torch.tensor([len(row["means"]) // (block[0] * block[1]) for row in rows])
    batch["block_mask"] = torch.arange(int(counts.max())) < counts[:, None]
    return batch


def latent_moments(thoughts: Dataset, max_rows: int = 10_000) -> tuple[float, float]:
    """Return the mean and the standard deviation of the samples of evenly spread problems' posteriors."""
    rows = thoughts[:: max(1, len(thoughts) // max_rows)]
    means, stds = (torch.cat([torch.tensor(row) for row in rows[name]]) for name in ("means", "stds"))
    return means.mean().item(), (means.var() + stds.square().mean()).sqrt().item()


def _posteriors(
    vae: ThoughtVAE, tokenizer: PreTrainedTokenizerBase, problems: list[list[str]]
) -> tuple[list[list[float]], list[list[float]]]:
    """Return the standardised means and standard deviations of each problem's blocks, flattened."""
    distinct = list(dict.fromkeys(block for blocks in problems for block in blocks))
    tokens = tokenize_blocks(tokenizer, distinct)
    posterior = vae.posterior(tokens["input_ids"].to(vae.device), tokens["attention_mask"].to(vae.device))
    means = vae.standardize(posterior.mean).flatten(1).cpu()  # (blocks, latents x dim)
    stds = (posterior.std / vae.latent_std).flatten(1).cpu()
    place = {block: number for number, block in enumerate(distinct)}
    rows = [[place[block] for block in blocks] for blocks in problems]
    return [means[row].flatten().numpy() for row in rows], [stds[row].flatten().numpy() for row in rows]
