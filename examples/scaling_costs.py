"""What answers cost: their work as counted, and machine hours and money for a million of them; no measuring, only arithmetic.

The work of an answer is its matrix products (`FlopCounterMode`), the operations that a GPU would run as kernels of their own,
and the bytes of weights that they read, at two bytes each. Of a GPU, which was not measured, three things bound the time of an
answer from below, and the largest of them counts: products at an assumed share of its peak, weights at its bandwidth, and kernels
at an assumed time each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count
from transformers import BartConfig
from transformers.modeling_outputs import BaseModelOutput

from ldlm_hf import LatentDiT, LLaDAConfig, LLaDAForMaskedDiffusion, TextLatentAutoencoder, TextLatentAutoencoderConfig


MILLION = 1_000_000
HOUR = 3600
PAPER_BATCH = 256  # answers or paths of a paper's model that a GPU works on at a time
KNEE = 0.8  # of the best throughput
LINEAR = 0.9  # exponent from which a quantity counts as growing in proportion


@dataclass(frozen=True)
class Work:
    """What a call takes.

    Attributes:
        flops (`int`): operations of matrix products, two for a multiplication with an addition.
        kernels (`int`): operations that are not only another view of a tensor.
        weight_bytes (`int`): bytes of weights that are read, at two bytes each, as often as they are.
    """

    flops: int
    kernels: int
    weight_bytes: int

    def times(self, count: int) -> Work:
        """Return the work of `count` such calls."""
        return Work(self.flops * count, self.kernels * count, self.weight_bytes * count)

    def plus(self, other: Work) -> Work:
        """Return the work of both."""
        return Work(self.flops + other.flops, self.kernels + other.kernels, self.weight_bytes + other.weight_bytes)


@dataclass(frozen=True)
class Assumptions:
    """What was not measured here.

    Attributes:
        usd_per_cpu_hour (`float`): price of an hour of a CPU machine like the one measured.
        usd_per_gpu_hour (`float`): price of an hour of a GPU.
        peak_flops (`float`): of a GPU, dense bfloat16 products a second; the default is NVIDIA's figure for the H200.
        bandwidth (`float`): of its memory, bytes a second; likewise.
        lowest_utilisation, highest_utilisation (`float`): share of the peak that products reach.
        seconds_per_kernel (`float`): time of a kernel that does next to nothing, started from Python.
        gpu_batch_size (`int`): answers of a small model that a GPU works on at a time.
    """

    usd_per_cpu_hour: float = 0.10
    usd_per_gpu_hour: float = 4.00
    peak_flops: float = 989e12
    bandwidth: float = 4.8e12
    lowest_utilisation: float = 0.1
    highest_utilisation: float = 0.4
    seconds_per_kernel: float = 5e-6
    gpu_batch_size: int = 4096


def count_work(action: Callable[[], object], models: Sequence[torch.nn.Module]) -> Work:
    """Return what an action takes whose weights are those of some models, which stop to require gradients."""
    for model in models:
        model.requires_grad_(False)  # the counter of operations follows modules by hooks on gradients
    counter = _KernelCounter(models)
    attention = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}  # not known to torch
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=attention) as flops, counter:
        action()
    return Work(flops.get_total_flops(), counter.kernels, counter.weight_bytes)


def million_on_cpu(seconds_per_problem: float, cores: int, assumed: Assumptions) -> dict[str, float]:
    """Return hours and price of a million problems on a machine whose cores all answer.

    Args:
        seconds_per_problem (`float`): processor time of an answer while all cores are at work.
        cores (`int`): of the machine.
        assumed ([`Assumptions`]): prices.
    """
    hours = seconds_per_problem * MILLION / cores / HOUR
    return {"hours": hours, "usd": hours * assumed.usd_per_cpu_hour}


def million_on_gpu(work: Work, batch_size: int, assumed: Assumptions) -> dict:
    """Return hours and price of a million problems on a GPU, at the highest and the lowest utilisation, and what binds there.

    Args:
        work ([`Work`]): of `batch_size` answers together.
        batch_size (`int`): of the call.
        assumed ([`Assumptions`]): of the GPU.

    Returns:
        `dict` with `seconds_per_problem`, `hours`, `hours_on_8` and `usd`, each a list of the least and the most, and `binds`, a
        list of what is the longest at either end: `"products"`, `"weights"` or `"kernels"`.
    """
    ends, binds = [], []
    for utilisation in (assumed.highest_utilisation, assumed.lowest_utilisation):
        seconds = {
            "products": work.flops / (utilisation * assumed.peak_flops),
            "weights": work.weight_bytes / assumed.bandwidth,
            "kernels": work.kernels * assumed.seconds_per_kernel,
        }
        binds.append(max(seconds, key=seconds.__getitem__))
        ends.append(max(seconds.values()) / batch_size)
    hours = [seconds * MILLION / HOUR for seconds in ends]
    return {
        "seconds_per_problem": ends,
        "hours": hours,
        "hours_on_8": [value / 8 for value in hours],  # problems are independent, nothing is exchanged
        "usd": [value * assumed.usd_per_gpu_hour for value in hours],
        "binds": binds,
    }


def linear_work(one: Work, several: Work, several_count: int, count: int) -> Work:
    """Return the work of `count` answers or layers, given that of one and of a few: a part for the call, and one for each."""
    values = []
    for name, first in asdict(one).items():
        each = (getattr(several, name) - first) / (several_count - 1)
        values.append(round(first + each * (count - 1)))
    return Work(*values)


def paper_size_rows(assumed: Assumptions, cpu_flops: float) -> list[dict]:
    """Return what a million answers of the papers' models would take, by counting only; no such model was run.

    Args:
        assumed ([`Assumptions`]): of machine and prices.
        cpu_flops (`float`): products a second of a CPU machine.
    """
    encode, step, write = latent_work()
    answers = {
        f"BART-base and a DiT of 24 layers, {steps:,} steps, 64 tokens in and out": encode.plus(
            step.times(steps)
        ).plus(write)
        for steps in (1000, 20)
    }
    answers["LLaDA-8B, 100 tokens in and 256 out, 128 steps, one path"] = path = llada_work().times(128)
    answers["the same with HEX: 25 paths, none ended early"] = path.times(25)
    rows = []
    for name, work in answers.items():
        together = Work(work.flops * PAPER_BATCH, work.kernels, work.weight_bytes)
        gpu = million_on_gpu(together, PAPER_BATCH, assumed)
        rows.append(
            {"model": name, "flops": work.flops, "cpu": million_on_cpu(work.flops / cpu_flops, 1, assumed), "gpu": gpu}
        )
    return rows


def latent_work(prompt_length: int = 64, answer_length: int = 64) -> tuple[Work, Work, Work]:
    """Return the work of reading a prompt, of a denoising step and of writing an answer, at the size of the LDLM paper."""
    with torch.device("meta"):
        sizes = {"d_model": 768, "encoder_layers": 6, "decoder_layers": 6, "vocab_size": 50265}
        feed_forward = {"encoder_ffn_dim": 3072, "decoder_ffn_dim": 3072}
        heads = {"encoder_attention_heads": 12, "decoder_attention_heads": 12}
        bart = BartConfig(**sizes, **feed_forward, **heads)
        fields = {"latent_length": 16, "latent_dim": 256, "decoder_length": 32, "num_layers": 3}
        config = TextLatentAutoencoderConfig(seq2seq_config=bart, num_attention_heads=12, **fields)
        autoencoder = TextLatentAutoencoder(config).eval()
        autoencoder.seq2seq.set_attn_implementation("eager")  # whose products are counted wherever it runs
        prompt, answer = (torch.zeros(1, length, dtype=torch.long) for length in (prompt_length, answer_length))
        latents = torch.zeros(1, 16, 256)

        def read() -> None:
            states = autoencoder.seq2seq.get_encoder()(prompt).last_hidden_state
            autoencoder.to_latent(autoencoder.compressor(states, None))

        def write() -> None:  # all tokens in one pass: the products of writing one after the other with a cache
            states = BaseModelOutput(last_hidden_state=autoencoder.expand(latents))
            mask = torch.zeros(1, 1, answer_length, answer_length)  # one that is given is not looked at
            inputs = {"decoder_input_ids": answer, "decoder_attention_mask": mask}
            autoencoder.seq2seq(encoder_outputs=states, **inputs, use_cache=False)

        reading = count_work(read, [autoencoder])
        once = count_work(write, [autoencoder])
    step = linear_work(_denoiser_work(1), _denoiser_work(2), 2, 24)  # layers are alike
    return reading, step, Work(once.flops, once.kernels * answer_length, once.weight_bytes * answer_length)


def llada_work(length: int = 356) -> Work:
    """Return the work of one forward pass of LLaDA-8B over `length` tokens, with logits at all of them."""
    with torch.device("meta"):
        model = LLaDAForMaskedDiffusion(LLaDAConfig(attn_implementation="eager")).eval()
        return count_work(lambda: model(torch.zeros(1, length, dtype=torch.long)), [model])


def _denoiser_work(num_layers: int) -> Work:
    sizes = {"hidden_size": 768, "num_layers": num_layers, "num_attention_heads": 12, "diffusion_length": 16}
    denoiser = LatentDiT(latent_length=16, latent_dim=256, learned_variance=True, **sizes).eval()
    latents = torch.zeros(1, 16, 256)
    return count_work(lambda: denoiser(latents, torch.zeros(1), latents), [denoiser])


def summarize_system(points: list[dict], single: Work, several: Work, several_size: int, machine: dict) -> dict:
    """Return of one system where throughput stops to grow and memory would end, and what an answer takes.

    Args:
        points (`list[dict]`): measured, with `panel`, `value`, `num_problems`, `processor_seconds` and `bytes`.
        single ([`Work`]): of one answer.
        several ([`Work`]): of `several_size` answers together.
        several_size (`int`): more than one.
        machine (`dict`): `cores`, `bytes`, `resident_bytes` of a process, and `matrix_flops` of a core.
    """
    panels = {
        name: sorted((point for point in points if point["panel"] == name), key=lambda point: point["value"])
        for name in ("problems", "batch", "length", "processes")
    }
    values = {name: [point["value"] for point in line] for name, line in panels.items()}
    each = {name: [p["processor_seconds"] / p["num_problems"] for p in line] for name, line in panels.items()}
    used = {name: [point["bytes"] for point in line] for name, line in panels.items()}
    # What processes give together on cores that nothing else needs: each core does a second of work a second.
    cores = [min(count, machine["cores"]) for count in values["processes"]]
    together = [count / seconds for count, seconds in zip(cores, each["processes"], strict=True)]
    busiest = together.index(max(together))
    work = [linear_work(single, several, several_size, size).flops / size for size in values["batch"]]
    pairs = zip(work, each["batch"], strict=True)
    shares = [flops / seconds / machine["matrix_flops"] for flops, seconds in pairs]
    first, last = panels["problems"][0], panels["problems"][-1]
    knees = {
        "batch": knee(values["batch"], [1 / seconds for seconds in each["batch"]]),
        "length": linear_from(values["length"], each["length"]),
        "processes": knee(values["processes"], together),
    }
    free = machine["bytes"] - machine["resident_bytes"]
    ends = {
        "batch": value_at_limit(values["batch"], used["batch"], free),
        "processes": machine["bytes"] / (used["processes"][-1] / values["processes"][-1]),
    }
    reached = {name: knees[name] or values[name][-1] for name in ends}
    return {
        "flops_per_problem": several.flops / several_size,
        "seconds_alone": each["batch"][0],
        "seconds_at_best": min(each["batch"]),
        # The best batch, slowed down as a batch is by those of other processes.
        "seconds_with_all_cores": min(each["batch"]) * each["processes"][busiest] / each["processes"][0],
        "slowed_down_by": each["processes"][busiest] / each["processes"][0],
        "share_of_matrix_rate": {"alone": shares[0], "best": max(shares)},
        "problems_per_second_of_processes": together,
        "exponent_in_problems": _exponent(
            [first["value"], last["value"]], [first["processor_seconds"], last["processor_seconds"]]
        ),
        "knees": knees,
        "memory_ends": ends,
        "binds_first": {
            name: "memory" if (end or math.inf) < reached[name] else "cores" for name, end in ends.items()
        },
    }


def knee(values: Sequence[float], throughputs: Sequence[float]) -> float | None:
    """Return the smallest value at which throughput is within a fifth of its best, `None` if that is the last value."""
    best = max(throughputs)
    found = next(value for value, rate in zip(values, throughputs, strict=True) if rate >= KNEE * best)
    return None if found == values[-1] else found


def linear_from(values: Sequence[float], seconds: Sequence[float]) -> float | None:
    """Return the first value from which on time grows at least almost with it, `None` if it does not yet."""
    for i in range(len(values) - 1):
        if _exponent(values[i : i + 2], seconds[i : i + 2]) >= LINEAR:
            return values[i]
    return None


def value_at_limit(values: Sequence[float], measured: Sequence[float], limit: float) -> float | None:
    """Return where a quantity would reach a limit, by the power law through its last two points; `None` if it levels off."""
    exponent = _exponent(values[-2:], measured[-2:])
    if exponent < LINEAR:
        return None
    return values[-1] * (limit / measured[-1]) ** (1 / exponent)


def _exponent(values: Sequence[float], measured: Sequence[float]) -> float:
    return math.log(measured[1] / measured[0]) / math.log(values[1] / values[0])


def _attention_flops(query: tuple, key: tuple, value: tuple, *args: object, **kwargs: object) -> int:
    return sdpa_flop_count(query, key, value)


class _KernelCounter(TorchDispatchMode):
    """Counts operations that compute, and the weights that they read."""

    def __init__(self, models: Sequence[torch.nn.Module]) -> None:
        super().__init__()
        self.kernels = self.weight_bytes = 0
        self._weights = {weight.untyped_storage()._cdata for model in models for weight in model.parameters()}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        is_view = any(each.alias_info is not None and not each.alias_info.is_write for each in func._schema.returns)
        if is_view:
            return result
        self.kernels += 1
        if func is not torch.ops.aten.embedding.default:  # which reads a few rows only
            tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
            self.weight_bytes += 2 * sum(
                each.numel() for each in tensors if each.untyped_storage()._cdata in self._weights
            )
        return result
