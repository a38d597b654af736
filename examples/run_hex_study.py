"""Compare ways to vote: the rows of HEX's tables, drawn from one pool of paths, with paired errors.

    python examples/run_hex_study.py examples/recipes/hex/exact_sigma_0 --output results/hex/exact_sigma_0.json
    python examples/run_hex_study.py examples/recipes/hex/gsm8k.yaml --override task.path=gsm8k_{split}.jsonl

A recipe names a model, a task and what to vote over. Every path is written to a file as it comes, so a study goes on where it
was broken off. The best schedule and temperature for a half of the problems are chosen on the other half.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from time import perf_counter

import torch
from transformers import AutoModelForCausalLM

from ldlm_hf import ExactDenoiser, ExactDenoiserConfig, HexPipeline, MaskedDiffusionScheduler, Vote, get_task
from ldlm_hf.evaluation import environment, write_results
from ldlm_hf.hex import hex_preset, random_block_schedules
from ldlm_hf.hex.configuration_exact_denoiser import exact_denoiser_tokenizer, is_terse, read_answer
from ldlm_hf.hex.draws import Outcome, VotePool, paired_difference
from ldlm_hf.hex.paths import list_candidates
from ldlm_hf.loading import load_complete, load_tokenizer
from ldlm_hf.noise import row_generators
from ldlm_hf.result_log import ResultLog
from ldlm_hf.training import read_recipe
from ldlm_hf.votes import spelled


FULL_BLOCK = ("low_confidence", "topk_margin", "random")
GATE = 0.85  # a model that is nearly always right, or never, shows nothing about voting


@dataclass
class Study:
    """What a recipe says; the arguments of [`HexPipeline`] have the meaning they have there.

    Attributes:
        output_dir (`str`): where paths are kept.
        gen_length, num_inference_steps, temperature, remasking: of every path.
        block_lengths (`list[int]`): schedules of the vote.
        num_seeds (`int`): of each schedule in one vote.
        pool_seeds (`int`): of each schedule in the pool; draws are random choices among them.
        num_problems (`int`): held-out problems, or as many as there are.
        pipeline, model, exact_denoiser: a saved pipeline, a model of the Hub, or the fields of [`ExactDenoiserConfig`].
        task (`dict`): name and arguments of the task; the exact denoiser has its own.
        split (`str`): of the task.
        dtype (`str`): of the model's weights.
        temperatures (`list[float]`): further ones for votes over the seeds of one schedule.
        num_draws (`int`): votes drawn for each figure.
        random_schedules (`int`): random block schedules in the pool; 0 for none.
        keep_agreement (`list[float]`): shares for votes that share work.
        n_mc (`int`): draws of the bound for the selection by likelihood; 0 leaves it out. elbo_problems (`int`): for so many
            problems; all by default.
        batch_size (`int`): rows in a forward pass; problems_at_once (`int`): problems between two writes.
        suppress_confidence_of_eos (`bool`): add the single path that commits end-of-text last.
        published (`dict`): accuracies of the paper, by row, in percent.
    """

    output_dir: str
    gen_length: int
    block_lengths: list[int]
    num_problems: int
    num_inference_steps: int | None = None
    temperature: float = 0.9
    remasking: str = "low_confidence"
    num_seeds: int = 5
    pool_seeds: int = 5
    pipeline: str | None = None
    model: str | None = None
    exact_denoiser: dict | None = None
    task: dict = field(default_factory=dict)
    split: str = "test"
    dtype: str = "float32"
    temperatures: list[float] = field(default_factory=list)
    num_draws: int = 5
    random_schedules: int = 0
    keep_agreement: list[float] = field(default_factory=list)
    n_mc: int = 0
    elbo_problems: int | None = None
    batch_size: int = 256
    problems_at_once: int = 100
    suppress_confidence_of_eos: bool = False
    published: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that there are as many paths of one schedule, and of random ones, as a vote over all schedules casts."""
        needed = self.num_seeds * len(self.block_lengths)
        for name, there in (("pool_seeds", self.pool_seeds), ("random_schedules", self.random_schedules or needed)):
            if there < needed:
                raise ValueError(
                    f"`{name}` has to be at least {needed}, `num_seeds` times the block lengths, so that all votes are "
                    f"equally many, but is {there}."
                )


def main(arguments: list[str] | None = None) -> None:
    """Run what is missing of a study, and write down what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", type=Path, help="YAML file, or the name of a recipe in a table beside it")
    parser.add_argument("--override", nargs="*", default=[], metavar="key=value")
    parser.add_argument("--output", type=Path, help="JSON file for the results; in output_dir by default")
    args = parser.parse_args(arguments)
    values = read_recipe(args.recipe, args.override)
    if "recipes" in values:
        raise ValueError(
            f"`recipe` {str(args.recipe)!r} is a table; name one of its recipes, {sorted(values['recipes'])}."
        )
    study = Study(**values)
    torch.manual_seed(0)
    start, runner = perf_counter(), Runner(study)
    results = runner.run()
    shown = [str(args.recipe), *(["--override", *args.override] if args.override else [])]
    results["command"] = shlex.join(["python", "examples/run_hex_study.py", *shown])
    results |= {"seconds": round(perf_counter() - start, 1), "environment": environment(), "study": asdict(study)}
    path = args.output or Path(study.output_dir) / "results.json"
    write_results(path, results)
    print(json.dumps(results["rows"], indent=1))
    print(f"wrote {path}", file=sys.stderr)


class Runner:
    """The model, the problems and the paths of a study."""

    def __init__(self, study: Study) -> None:
        """Load the model, list the problems."""
        self.study = study
        self.pipeline, self.problems, self.read, self.judge = load(study)
        self.pipeline.set_progress_bar_config(disable=True)
        half = len(self.problems) // 2
        self.halves = (slice(0, half), slice(half, None))
        self.chosen: dict[str, list[dict]] = {}

    def run(self) -> dict:
        """Return every row of the table, what they differ by, the curve of votes, and the costs."""
        study = self.study
        main = self.pool("main", study.temperature, study.block_lengths, study.pool_seeds, select="one_step_nll")
        pools = {study.temperature: main}
        for temperature in study.temperatures:
            name = f"temperature-{temperature}"
            pools[temperature] = self.pool(name, temperature, study.block_lengths, study.pool_seeds)
        draws = main.draw_seeds(study.block_lengths, study.num_seeds, study.num_draws)
        hex_vote = main.hold(draws)
        outcomes = {"hex": hex_vote, **self.single_schedules(pools)}
        if study.random_schedules:
            outcomes["random_schedules"] = self.random_schedules()
        outcomes["one_step_nll"] = main.hold(draws, select="score")
        if study.n_mc:
            arguments = {"select": "elbo", "n_mc": study.n_mc, "num_problems": study.elbo_problems}
            judged = self.pool("elbo", study.temperature, study.block_lengths, study.num_seeds, **arguments)
            every = judged.draw_seeds(study.block_lengths, study.num_seeds, 1)
            outcomes["elbo"] = judged.hold(every, select="score")
        rows = [{"name": name, **outcome.summary()} for name, outcome in outcomes.items()]
        for row in rows:
            other = outcomes[row["name"]]
            row["num_problems"] = len(other.accuracy)
            row["hex_minus_this"] = paired_difference(hex_vote.first(row["num_problems"]), other)
            if row["name"] in study.published:
                row["published"] = study.published[row["name"]]
        single = next(row for row in rows if row["name"] == "single_path_best_on_dev")
        return {
            "rows": rows,
            "gate": {"single_path": single["answer_accuracy"], "limit": GATE, "passed": self.passes(single)},
            "best_on_dev": self.chosen,
            "single_paths": self.single_paths(),
            "curve": self.curve(main),
            "work": self.work(main),
            "num_problems": len(self.problems),
        }

    def passes(self, single: dict) -> bool:
        """Whether a single path is clearly right sometimes and clearly wrong sometimes; else voting shows nothing."""
        return 3 * single["standard_error"] < single["answer_accuracy"] < GATE

    def single_schedules(self, pools: dict[float, VotePool]) -> dict[str, Outcome]:
        """Return single paths and votes over seeds, for each schedule, their mean, and the best on other problems."""
        study = self.study
        votes = min(len(study.block_lengths) * study.num_seeds, study.pool_seeds)
        found: dict[str, dict[tuple, Outcome]] = {"single_path": {}, "one_schedule": {}}
        for temperature, pool in pools.items():
            for length in study.block_lengths:
                single = pool.draw_seeds([length], 1, study.pool_seeds)
                found["single_path"][temperature, length] = pool.hold(single)
                drawn = pool.draw_seeds([length], votes, study.num_draws if votes < study.pool_seeds else 1)
                found["one_schedule"][temperature, length] = pool.hold(drawn)
        rows = {}
        for kind, outcomes in found.items():
            for (temperature, length), outcome in outcomes.items():
                suffix = "" if temperature == study.temperature else f"_t{temperature}"
                rows[f"{kind}_b{length}{suffix}"] = outcome
            own = [outcomes[study.temperature, length] for length in study.block_lengths]
            rows[f"{kind}_mean"] = Outcome.mean(own)
            rows[f"{kind}_best_on_dev"] = self.best_on_dev(kind, outcomes)
        return rows

    def best_on_dev(self, kind: str, outcomes: dict[tuple, Outcome]) -> Outcome:
        """Return for each half of the problems what is best on the other half."""
        chosen = [
            max(outcomes, key=lambda key: outcomes[key].accuracy[other].mean()) for other in reversed(self.halves)
        ]
        self.chosen[kind] = [dict(zip(("temperature", "block_length"), best, strict=True)) for best in chosen]
        return Outcome.join([outcomes[best].part(half) for best, half in zip(chosen, self.halves, strict=True)])

    def random_schedules(self) -> Outcome:
        """Return the vote over random block schedules, each with one seed."""
        study, votes = self.study, len(self.study.block_lengths) * self.study.num_seeds
        generator = torch.Generator().manual_seed(0)
        drawn = random_block_schedules(study.gen_length, study.random_schedules, study.block_lengths, generator)
        schedules = [drawn_one if len(drawn_one) > 1 else drawn_one[0] for drawn_one in drawn]
        pool = self.pool("random", study.temperature, schedules, 1)
        chosen = [
            torch.randperm(len(schedules), generator=generator)[:votes].sort().values for _ in range(study.num_draws)
        ]
        return pool.hold([[(schedules[int(i)], 0) for i in draw] for draw in chosen])

    def single_paths(self) -> list[dict]:
        """Return accuracy and collapse of single greedy paths, by the rule and the block: the paper's Table 1, whole."""
        rows, study = [], self.study
        eos = list(self.pipeline.end_token_ids)
        arms = [(rule, False) for rule in FULL_BLOCK]
        if study.suppress_confidence_of_eos:
            arms.append(("low_confidence", True))
        for rule, suppressed in arms:
            for length in sorted({*study.block_lengths, study.gen_length}):
                own = self.pipeline.scheduler
                if suppressed:
                    changes = {"suppress_confidence_token_ids": eos}
                    self.pipeline.scheduler = MaskedDiffusionScheduler.from_config(own.config, **changes)
                preset = hex_preset(f"full_block_{rule}", study.gen_length) | {"block_lengths": [length]}
                name = f"greedy-{rule}-{length}" + ("-suppressed" if suppressed else "")
                limits = {"num_inference_steps": study.num_inference_steps, "max_batch_size": study.batch_size}
                votes, correct = self.paths(name, preset | limits)
                self.pipeline.scheduler = own
                kept = range(len(votes))
                row = {"remasking": rule, "block_length": length, "eos_confidence_suppressed": suppressed}
                row["answer_accuracy"] = sum(correct[i] for i in kept) / len(kept)
                row["no_answer"] = sum(votes[i].answer is None for i in kept) / len(kept)
                row["only_end_of_text"] = sum(votes[i].is_empty for i in kept) / len(kept)
                if length == study.gen_length and not suppressed and f"full_block_{rule}" in study.published:
                    row["published"] = study.published[f"full_block_{rule}"]
                if study.exact_denoiser is not None:
                    row["answer_only"] = sum(is_terse(votes[i].text) for i in kept) / len(kept)
                rows.append(row)
        return rows

    def curve(self, pool: VotePool) -> list[dict]:
        """Return accuracy and tie rate against the number of votes, over all schedules and over the seeds of each."""
        study, points = self.study, []
        for seeds in range(1, study.num_seeds + 1):
            drawn = pool.draw_seeds(study.block_lengths, seeds, study.num_draws)
            outcomes = [("schedules", pool.hold(drawn))]
            count = seeds * len(study.block_lengths)
            if count <= study.pool_seeds:
                own = [pool.hold(pool.draw_seeds([b], count, study.num_draws)) for b in study.block_lengths]
                outcomes.append(("seeds", Outcome.mean(own)))
            points += [{"voters": name, **outcome.summary()} for name, outcome in outcomes]
        for count in range(1, min(12, study.pool_seeds) + 1):  # odd and even numbers apart
            own = [pool.hold(pool.draw_seeds([b], count, study.num_draws)) for b in study.block_lengths]
            points.append({"voters": "few_seeds", **Outcome.mean(own).summary()})
        return points

    def work(self, pool: VotePool) -> list[dict]:
        """Return accuracy against forward passes: full votes, votes that end early, and votes that share work."""
        study, rows = self.study, []
        for seeds in sorted({1, 2, study.num_seeds}):
            candidates = list_candidates(study.block_lengths, seeds, smallest_first=True)
            names = [(path.block_length, path.seed) for path in candidates.paths]
            row = {"num_seeds": seeds, "num_votes": len(names)}
            for way, order in (("full", None), ("early_stop", candidates.order)):
                outcome = pool.hold([names]) if order is None else pool.hold_until_decided(names, order)
                rows.append({"way": way, **row, **outcome.summary()})
            for share in study.keep_agreement:
                arguments = self.arguments(study.temperature, study.block_lengths, seeds, keep_agreement=share)
                answers, passes = self.answers(f"keep-{share}-{seeds}", arguments)
                rows.append({"way": f"keep_{share}", **row, "answer_accuracy": fmean(answers), "nfe": fmean(passes)})
        return rows

    def arguments(self, temperature: float, block_lengths: list, num_seeds: int, **changes) -> dict:
        """Return the arguments of a call of the pipeline."""
        study = self.study
        return {
            "gen_length": study.gen_length,
            "block_lengths": block_lengths,
            "num_seeds": num_seeds,
            "temperature": temperature,
            "remasking": study.remasking,
            "num_inference_steps": study.num_inference_steps,
            "max_batch_size": study.batch_size,
            **changes,
        }

    def pool(
        self,
        name: str,
        temperature: float,
        block_lengths: list,
        num_seeds: int,
        num_problems: int | None = None,
        **changes,
    ) -> VotePool:
        """Return a pool of paths, sampled or read."""
        arguments = self.arguments(temperature, block_lengths, num_seeds, early_stop=False, **changes)
        return VotePool(*self.paths(name, arguments, num_problems))

    def paths(self, name: str, arguments: dict, num_problems: int | None = None) -> tuple[list[Vote], list[bool]]:
        """Return every path of all problems, and whether each is right."""
        rows = [row for part in self.parts(name, arguments, path_rows, num_problems) for row in part]
        return [vote_of(row) for row in rows], [row["is_correct"] for row in rows]

    def answers(self, name: str, arguments: dict) -> tuple[list[bool], list[int]]:
        """Return whether the answer of each problem's vote is right, and the forward passes it took."""
        rows = [row for part in self.parts(name, arguments, answer_rows) for row in part]
        return [row["is_correct"] for row in rows], [row["nfe"] for row in rows]

    def parts(
        self, name: str, arguments: dict, describe: Callable, num_problems: int | None = None
    ) -> Iterator[list[dict]]:
        """Yield what became of the problems, a few at a time; what is in the file already is not run again."""
        source = {name: getattr(self.study, name) for name in ("pipeline", "model", "exact_denoiser", "task", "split")}
        size, asked = self.study.problems_at_once, self.problems[:num_problems]
        settings = {**source, "num_problems": len(asked), "problems_at_once": size, "arguments": arguments}
        log = ResultLog(Path(self.study.output_dir) / f"{name}.jsonl", settings)
        yield from log
        for start in range(len(log) * size, len(asked), size):
            problems = asked[start : start + size]
            output = self.pipeline(
                [prompt for prompt, _ in problems],
                generator=row_generators(0, 0, start, len(problems)),
                answer_fn=self.read,
                **arguments,
            )
            part = describe(output, start, problems, self.judge)
            log.append(part)
            print(f"{name}: {start + len(problems)} of {len(asked)}", file=sys.stderr)
            yield part


def load(study: Study) -> tuple[HexPipeline, list[tuple[str, str]], Callable | None, Callable]:
    """Return the pipeline, the problems as `(prompt, answer)`, what reads answers, and what judges texts."""
    if study.exact_denoiser is not None:
        config = ExactDenoiserConfig(**{"num_questions": study.num_problems, **study.exact_denoiser})
        model = ExactDenoiser(config).eval()
        pipeline = HexPipeline(model, MaskedDiffusionScheduler(), exact_denoiser_tokenizer(config))
        problems = [(model.prompt(i), model.right_answer(i)) for i in range(study.num_problems)]
        return pipeline, problems, read_answer, lambda text, prompt, answer: read_answer(text) == answer
    if study.pipeline is not None:
        pipeline = HexPipeline.from_pretrained(study.pipeline, dtype=getattr(torch, study.dtype))
    else:
        model = load_complete(AutoModelForCausalLM, study.model, dtype=getattr(torch, study.dtype))
        pipeline = HexPipeline(model, MaskedDiffusionScheduler(), load_tokenizer(study.model))
    if torch.cuda.is_available():
        pipeline.to("cuda")
    task = pipeline.task if not study.task else get_task(**study.task)
    count = min(study.num_problems, task.num_problems(study.split))
    problems = [task.problem(study.split, i) for i in range(count)]
    asked = [problem.prompt if pipeline.task is not None else task.instruct(problem.prompt) for problem in problems]
    pairs = list(zip(asked, [problem.answer for problem in problems], strict=True))
    return pipeline, pairs, task.parse_answer, task.is_correct


def path_rows(output, start: int, problems: list[tuple[str, str]], judge: Callable) -> list[dict]:
    """Return the votes of an output as rows, without what can be found again."""
    rows = []
    for vote in output.votes:
        prompt, answer = problems[vote.question]
        row = asdict(vote) | {"question": start + vote.question, "block_length": spelled(vote.block_length)}
        rows.append(row | {"is_correct": vote.answer is not None and bool(judge(vote.text, prompt, answer))})
    return rows


def answer_rows(output, start: int, problems: list[tuple[str, str]], judge: Callable) -> list[dict]:
    """Return what each question was answered, and what it took."""
    columns = zip(output.texts, output.answers, output.nfe.tolist(), problems, strict=True)
    return [
        {"is_correct": given is not None and bool(judge(text, prompt, answer)), "nfe": nfe}
        for text, given, nfe, (prompt, answer) in columns
    ]


def vote_of(row: dict) -> Vote:
    """Return the vote of a row of [`path_rows`]."""
    lengths = [int(length) for length in row["block_length"].split()]
    fields = {key: value for key, value in row.items() if key != "is_correct"}
    return Vote(**{**fields, "block_length": lengths[0] if len(lengths) == 1 else tuple(lengths)})


if __name__ == "__main__":
    main()
