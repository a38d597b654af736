"""What a thought VAE's latents hold: how often a probe reads each symbol of an equation out of them.

python examples/measure_latent_content.py model_cards/ladir-countdown/vae --tokenizer model_cards/ladir-countdown/tokenizer --output results/ladir/countdown_2_to_4/content_plain-0.json
python examples/measure_latent_content.py runs/ladir-2-to-4/seed-0-readout/vae/model --output results/ladir/countdown_2_to_4/content_readout-0.json

A decoder that writes `102-9=93` may work out the 93 when it has written `102-9=`, and then nothing makes the latents hold it; a
reasoner, which reads latents and not what is written, has to do the sum again to go on. A probe, linear or of one hidden layer,
is trained on the latents of four in five distinct equations of the training problems, and read on the rest. The autoencoder has
seen all of them. For the share of an ignorant guess there is that of the most frequent symbol.
"""

from __future__ import annotations

import argparse
import random
import re
import shlex
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from ldlm_hf.evaluation import environment, write_results
from ldlm_hf.ladir.block_splitter import BlockSplitter
from ldlm_hf.ladir.modeling_thought_vae import ThoughtVAE
from ldlm_hf.ladir.recipe import LaDiRRecipe
from ldlm_hf.ladir.reconstruction import tokenize_blocks
from ldlm_hf.ladir.trainer_thought_vae import blocks_of
from ldlm_hf.loading import load_complete, load_tokenizer
from ldlm_hf.training import read_recipe, read_section


RECIPE = Path(__file__).parent / "recipes" / "ladir" / "countdown_2_to_4.yaml"
EQUATION = re.compile(r"(\d+)([-+*])(\d+)=(\d+)")
SYMBOLS = ("first number", "sign", "second number", "result")
HELD_OUT = 0.2
STEPS, BATCH, HIDDEN = 600, 512, 512
NOISE = 0.1  # standard deviations, so that a probe does not learn single latents by heart


def main(arguments: list[str] | None = None) -> None:
    """Measure the autoencoder that the command line names and print the shares."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("vae", type=Path, help="folder of the trained autoencoder")
    parser.add_argument("--tokenizer", type=Path, help="folder of its tokenizer; the same by default")
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="YAML file with the task and the splitter")
    parser.add_argument("--train_size", type=int, default=12_000, help="problems whose equations are looked at")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    values = read_recipe(args.recipe, [])
    recipe = read_section(
        LaDiRRecipe, {key: value for key, value in values.items() if key not in ("system", "variants")}
    )
    problems = recipe.make_task().to_dataset("train", args.train_size)
    equations = sorted(set(blocks_of(problems, BlockSplitter(**recipe.splitter))))
    random.Random(args.seed).shuffle(equations)
    vae = load_complete(ThoughtVAE, args.vae, dtype=torch.float32).eval()
    tokenizer = load_tokenizer(args.tokenizer or args.vae)
    result = {
        "shares": probe_equations(vae, tokenizer, equations, args.seed),
        "latent_size": vae.config.latents_per_block * vae.config.latent_dim,
        "readout_weight": vae.config.readout_weight,
        "equations": len(equations),
        "command": shlex.join(["python", "examples/measure_latent_content.py", *arguments]),
        "environment": environment(),
    }
    write_results(args.output, result)
    for kind, shares in result["shares"].items():
        print(kind, {name: f"{share:.1%}" for name, share in shares.items()})


def probe_equations(vae: ThoughtVAE, tokenizer, equations: list[str], seed: int) -> dict[str, dict[str, float]]:
    """Return the share of each symbol that probes read from latents of the last equations, trained on those before.

    Raises:
        ValueError: for a text that is no equation of two numbers.
    """
    parts = [EQUATION.fullmatch(equation.replace(" ", "")) for equation in equations]
    if None in parts:
        raise ValueError(
            f"The blocks have to be equations such as '3+4=7', but one is {equations[parts.index(None)]!r}."
        )
    tokens = tokenize_blocks(tokenizer, equations)
    with torch.no_grad():
        latents = vae.encode(tokens["input_ids"], tokens["attention_mask"]).flatten(1)  # (equations, latents * dim)
    first = len(equations) - round(HELD_OUT * len(equations))  # of those held out
    shares: dict[str, dict[str, float]] = {"linear": {}, "hidden layer": {}, "most frequent": {}}
    for place, name in enumerate(SYMBOLS, start=1):
        symbols = [part[place] for part in parts]
        known = sorted(set(symbols))
        labels = torch.tensor([known.index(symbol) for symbol in symbols])
        guess = labels[:first].mode().values
        shares["most frequent"][name] = (labels[first:] == guess).float().mean().item()
        for kind in ("linear", "hidden layer"):
            shares[kind][name] = probe(latents, labels, first, len(known), kind == "linear", seed)
    return shares


def probe(latents: Tensor, labels: Tensor, first: int, num_classes: int, is_linear: bool, seed: int) -> float:
    """Train a probe on the `(rows, dim)` latents before row `first`; return how often it is right about the others."""
    torch.manual_seed(seed)
    dim = latents.shape[1]
    hidden = [nn.Linear(dim, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, num_classes)]
    network = nn.Linear(dim, num_classes) if is_linear else nn.Sequential(*hidden)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2 if is_linear else 3e-3)
    for _ in range(STEPS):
        drawn = torch.randint(first, (BATCH,))
        scores = network(latents[drawn] + NOISE * torch.randn(BATCH, dim))
        optimizer.zero_grad()
        nn.functional.cross_entropy(scores, labels[drawn]).backward()
        optimizer.step()
    with torch.no_grad():
        return (network(latents[first:]).argmax(-1) == labels[first:]).float().mean().item()


if __name__ == "__main__":
    main()
