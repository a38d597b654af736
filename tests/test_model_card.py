"""Cards: every figure is one of the results, sections without results are left out, shipped cards are the rendered ones."""

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from ldlm_hf.evaluation import environment, evaluate_pipeline, load_pipeline, write_results
from ldlm_hf.ldlm.published import PUBLISHED_TABLES
from ldlm_hf.model_card import load_results, render_model_card, write_model_card


SHIPPED = sorted((Path(__file__).parents[1] / "model_cards").glob("*/README.md"))
PUBLISHED = {figure for table in PUBLISHED_TABLES.values() for figure in table.rows.values()}
THE_PAPERS = {f"{figure:.{digits}f}" for figure in PUBLISHED for digits in range(3)}
EVALUATION = {
    "answer_accuracy": 0.99712,
    "standard_error": 0.000517,
    "exact_match": 0.98761,
    "step_accuracy": 0.99123,
    "consistency": 0.98345,
    "invalid_rate": 0.00021,
    "num_problems": 10779,
    "by_steps": [
        {"steps": 2, "answer_accuracy": 0.99991, "num_problems": 98},
        {"steps": 4, "answer_accuracy": 0.99654, "num_problems": 9871},
    ],
    "num_inference_steps": 20,
    "guidance_scale": 1.0,
    "scheduler": "DDPMScheduler",
    "seed": 0,
    "dtype": "float32",
    "split": "test",
    "command": "python examples/run_evaluate.py model_cards/tiny --output results.json",
}
MINIMAL = {"model_name": "tiny", "task": "addition", "evaluation": EVALUATION}
ROW = {"accuracies": [0.9412, 0.9534, 0.9487], "mean": 0.94777, "standard_error": 0.00356}
SECTIONS = {
    "parameters": {"autoencoder": 812345, "denoiser": 1334567, "total": 2146912},
    "chance": 0.02174,
    "majority": 0.07345,
    "split_overlap": 0,
    "known_targets": {"share": 0.813, "training_problems": 4321, "further_share": None},
    "training": {
        "stages": [
            {
                "name": "seq2seq",
                "steps": 1500,
                "batch_size": 128,
                "seconds": 211.4,
                "parameters": 612345,
                "threads": 2,
            },
            {
                "name": "denoiser",
                "steps": 8000,
                "batch_size": 128,
                "seconds": 1871.6,
                "parameters": 1334567,
                "threads": 2,
            },
        ],
        "total_seconds": 2083.0,
        "machine": {"processor": "a processor", "accelerator": None},
        "command": "python examples/run_train.py recipe.yaml",
    },
    "recipe": {"autoencoder": {"latent_length": 20}, "denoiser_task_arguments": {"extra_problems": 2345}},
    "reconstruction": {"exact_match": 0.99871, "num_texts": 10779},
    "decodability": [{"noise": 0.0, "exact_match": 0.99871}, {"noise": 0.3, "exact_match": 0.91234}],
    "steps_curve": [
        {"scheduler": "DDIMScheduler", "num_inference_steps": steps, "answer_accuracy": p, "num_problems": 1000}
        for steps, p in ((1, 0.6213), (50, 0.9971))
    ],
    "comparison": {
        "rows": [
            {"name": "the reasoner", "parameters": 2146912, "seconds": 611.2, **ROW},
            {"name": "sequence-to-sequence, answer first", "parameters": 2098765, "seconds": 544.1, **ROW},
        ],
        "num_problems": 2500,
        "steps": 3000,
        "batch_size": 64,
        "command": "python examples/run_comparison.py plan.yaml",
    },
    "ablations": {
        "rows": [{"name": "Min-SNR weights", **ROW}],
        "seeds": [0, 1, 2],
        "num_problems": 2500,
        "steps": 3000,
        "batch_size": 64,
        "command": "python examples/run_comparison.py plan.yaml --section ablations",
    },
    "table": {
        "title": "Single-digit additions",
        "number": "1",
        "rows": [
            {
                "name": "the reasoner",
                "published": 96.7,
                "parameters": 2146912,
                "num_problems": 987,
                "shipped": True,
                **ROW,
            },
            {
                "name": "BART",
                "published": 1.3,
                "parameters": 2098765,
                "num_problems": 987,
                "steps": [1250, 1750],
                "batch_size": 128,
                **ROW,
            },
            {"name": "GPT-3", "published": 57.0},
        ],
        "chance": 0.02174,
        "majority": 0.07345,
        "command": "python examples/run_evaluate.py --suite tables",
    },
    "vote_curve": [
        {"num_samples": 5, "select": "mbr", "answer_accuracy": 0.9976, "exact_match": 0.9934, "num_problems": 1000}
    ],
    "answer_decision": [
        {"timestep": 999, "share_final": 0.7123, "share_correct": 0.6987, "num_problems": 1000},
        {"timestep": 499, "share_final": 0.9912, "share_correct": 0.9921, "num_problems": 1000},
    ],
    "benchmark": {
        "matrix_rate_gflops": 412.3,
        "training": {
            "batch_size": 128,
            "steps_per_second_cached": 12.34,
            "speedup_of_cache": 5.67,
            "share_of_matrix_rate": 0.231,
        },
        "sampling": [
            {
                "batch_size": 32,
                "num_inference_steps": 20,
                "problems_per_second": 345.67,
                "baseline_problems_per_second": 234.56,
                "speed_relative_to_baseline": 1.4737,
            }
        ],
        "command": "python examples/run_benchmark.py",
    },
    "paper_size": {
        "rounds": 4,
        "hidden_size": 768,
        "batch_size": 128,
        "clock": "processor",
        "compiled": False,
        "rows": [
            {
                "conditioning": conditioning,
                "num_layers": depth,
                "mode": mode,
                "precision": "float32",
                "samples_per_second": 12.34,
                "share_of_matrix_rate": 0.871,
                "matrix_rate_gflops": 94.31,
            }
            for conditioning in ("in_context", "adaln_zero")
            for depth in (6, 12)
            for mode in ("training", "sampling")
        ],
        "cost": {
            "precision": "float32",
            "base": {"latents": 16, "layers": 2},
            **dict.fromkeys(
                ("training", "sampling"),
                {"gflops": 87.65, "seconds_per_layer": 0.0123, "median_error": 0.031, "largest_error": 0.172},
            ),
            "figure": "figures/cost_model.png",
        },
        "command": "python examples/run_paper_size.py",
    },
    "compilation": {
        "conditioning": "in_context",
        "num_layers": 6,
        "rounds": 5,
        "clock": "processor",
        "rows": [
            {**sizes, "precision": "float32", "speedup": 1.17, "range": [1.12, 1.22], "compile_seconds": 34.5}
            for width in (128, 768)
            for sizes in ({"hidden_size": width, "batch_size": 128, "mode": mode} for mode in ("training", "sampling"))
        ],
        "command": "python examples/run_compiled.py",
    },
    "environments": {name: environment() for name in ("evaluation", "benchmark", "paper_size", "compilation")},
}
HEADINGS = {  # section of the results → what the card then says
    "parameters": "parameters\n",
    "chance": "majority (the most frequent",
    "split_overlap": "Prompts that are in the training data",
    "known_targets": "Many problems come to the same",
    "training": "## Training",
    "reconstruction": "### The autoencoder",
    "decodability": "With Gaussian noise",
    "steps_curve": "### Denoising steps",
    "comparison": "### Against sequence-to-sequence",
    "table": "### Table 1 of the paper",
    "vote_curve": "### Voting",
    "answer_decision": "### When the answer is decided",
    "ablations": "### What differs from the paper",
    "benchmark": "### Speed\n",
    "paper_size": "### Speed at the paper's size",
    "compilation": "### Compiled",
}


def numbers(value: object) -> Iterator[float]:
    """Return every number in nested results."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from numbers(item)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def typed_figures(text: str, results: dict) -> set[str]:
    """Return the percentages and the grouped numbers of a card that no number of the results gives."""
    known = THE_PAPERS | {f"{100 * number:.{digits}f}" for number in numbers(results) for digits in range(6)}
    percentages = set(re.findall(r"(\d+(?:\.\d+)?) %", text)) - known
    grouped = {f"{number:,.0f}" for number in numbers(results)}
    prose = re.sub(r"`[^`]*`", "", text)  # a command may hold a list such as 20,50,100
    return percentages | (set(re.findall(r"\d{1,3}(?:,\d{3})+", prose)) - grouped)


@pytest.fixture
def full() -> dict:
    return copy.deepcopy({**MINIMAL, **SECTIONS})


def test_a_full_card_has_no_figure_that_is_not_in_the_results(full):
    text = render_model_card(full).text
    assert typed_figures(text, full) == set()
    for figure in ("99.71 %", "98.76 %", "99.12 %", "98.34 %", "99.65 %", "94.78 %", "91.2 %", "2,146,912", "10,779"):
        assert figure in text


def test_a_typed_figure_would_be_found(full):
    assert typed_figures(render_model_card(full).text + "\n99.93 % of 12,345", full) == {"99.93", "12,345"}


def test_the_metadata_is_what_the_hub_reads(full, hub):
    card = render_model_card(full)
    data = card.data
    assert (data.library_name, data.pipeline_tag, data.license) == ("ldlm_hf", "text-generation", "apache-2.0")
    result = data.eval_results[0]
    assert (result.metric_type, result.metric_value) == ("answer_accuracy", EVALUATION["answer_accuracy"])
    assert (result.dataset_type, result.dataset_split) == ("addition", "test")
    card.validate()


@pytest.mark.parametrize("section", [None, *HEADINGS])
def test_a_section_stands_only_if_there_are_results_for_it(full, section):
    results = MINIMAL if section is None else {key: value for key, value in full.items() if key != section}
    text = render_model_card(results).text
    left_out = set(HEADINGS) if section is None else {section}
    for key, heading in HEADINGS.items():
        assert (heading in text) == (key not in left_out)
    assert "None" not in text
    assert "nan" not in text.split()


def test_further_problems_of_the_denoiser_are_told(full):
    assert "`extra_problems=2345`" in str(render_model_card(full))


def test_tables_are_whole(full):
    for results in (full, MINIMAL):
        table: list[str] = []
        for line in [*render_model_card(results).text.splitlines(), ""]:
            if line.startswith("|"):
                table.append(line)
            elif table:
                assert re.fullmatch(r"(\|-+)+\|", table[1])
                assert len({row.count("|") for row in table}) == 1
                table = []


def test_the_published_figures_stand_beside_the_task_they_are_for():
    assert "97.3 %" in render_model_card(MINIMAL).text
    assert "97.3 %" not in render_model_card({**MINIMAL, "task": "rotation"}).text


def test_what_is_not_quite_everything_is_not_rounded_up_to_it():
    almost = {**EVALUATION, "answer_accuracy": 0.99999}
    text = render_model_card({**MINIMAL, "evaluation": almost}).text
    assert "99.999 %" in text
    assert "100.00 %" not in text


def test_one_seed_has_no_standard_error(full):
    for row in full["comparison"]["rows"]:
        row |= {"accuracies": [0.9412], "mean": 0.9412, "standard_error": None}
    assert "| 94.12 % | 94.12 % |" in render_model_card(full).text


@pytest.mark.parametrize("key", ["model_name", "task", "evaluation"])
def test_what_every_card_needs_is_asked_for(key):
    with pytest.raises(ValueError, match=key):
        render_model_card({name: value for name, value in MINIMAL.items() if name != key})


def test_a_figure_that_is_missing_is_not_left_blank():
    evaluation = {name: value for name, value in EVALUATION.items() if name != "seed"}
    with pytest.raises(ValueError, match="seed"):
        render_model_card({**MINIMAL, "evaluation": evaluation})


def test_results_are_merged_file_by_file(full, tmp_path):
    environments = full.pop("environments")
    for name in environments:
        write_results(tmp_path / f"{name}.json", {name: full.pop(name), "environment": environments[name]})
    write_results(tmp_path / "training.json", full)
    assert load_results(tmp_path) == {**MINIMAL, **SECTIONS}


def test_files_that_disagree_are_refused(tmp_path):
    write_results(tmp_path / "a.json", {"task": "addition", "chance": 0.1})
    write_results(tmp_path / "b.json", {"task": "addition", "chance": 0.2})
    with pytest.raises(ValueError, match="chance"):
        load_results(tmp_path)


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(OSError, match="no results"):
        load_results(tmp_path)


def test_a_written_card_loads_as_it_was_rendered(full, tmp_path):
    write_model_card(full, tmp_path / "README.md")
    loaded = ModelCard.load(tmp_path / "README.md")
    assert loaded.text.strip() == render_model_card(full).text.strip()
    assert loaded.data.to_dict() == render_model_card(full).data.to_dict()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parent.name)
def test_shipped_cards_are_rendered_from_their_results(path, hub, tmp_path):
    results = load_results(path.parent / "results")
    write_model_card(results, tmp_path / "README.md")
    assert path.read_text() == (tmp_path / "README.md").read_text()
    assert results["split_overlap"] == 0
    card = ModelCard.load(path)
    card.validate()
    assert typed_figures(card.text, json.loads(json.dumps(results))) == set()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parent.name)
def test_shipped_weights_answer_as_their_card_says(path):
    results = load_results(path.parent / "results")
    pipeline = load_pipeline(path.parent)
    count = results["evaluation"]["num_problems"]
    problems = pipeline.task.to_dataset(results["evaluation"]["split"], count if count < 500 else 200)
    steps = results["evaluation"]["num_inference_steps"]
    sampling = results["evaluation"].get("sampling", {})
    records = evaluate_pipeline(pipeline, problems, num_inference_steps=steps, show_progress=False, **sampling)
    accuracy = sum(record.is_correct for record in records) / len(records)
    expected = results["evaluation"]["answer_accuracy"]
    if "by_kind" in results["evaluation"]:  # the first problems may be of other kinds than all are
        kinds = {point["kind"]: point["answer_accuracy"] for point in results["evaluation"]["by_kind"]}
        expected = sum(kinds[pipeline.task.kind(record.prompt)] for record in records) / len(records)
    assert accuracy == pytest.approx(expected, abs=0.03)


def test_the_table_of_the_readme_is_that_of_the_shipped_results():
    from examples.write_results_table import with_tables

    root = Path(__file__).parents[1]
    readme = (root / "README.md").read_text()
    assert with_tables(readme, root) == readme


def test_the_study_of_settings_is_that_of_its_results():
    from examples.write_results_table import ablations

    root = Path(__file__).parents[1]
    place, tables = root / "results" / "ablations" / "results", root / "results" / "tables.json"
    text = (root / "model_cards" / "ldlm-addition" / "ABLATIONS.md").read_text()
    assert ablations(place, tables) == text
    cards = [load_results(card.parent / "results") for card in SHIPPED]
    runs = (root / "results" / "tables").glob("table*/*.json")
    files = [*place.glob("*.json"), *place.parent.glob("trials/*.json"), tables, *runs]
    results = [*cards, *(json.loads(path.read_text()) for path in files)]
    assert typed_figures(text, results) == set()


def test_a_masked_model_of_a_task_without_chains_has_a_card_but_a_latent_one_needs_them(full):
    chain = ("exact_match", "step_accuracy", "consistency")
    evaluation = {key: value for key, value in EVALUATION.items() if key not in chain} | {"tokens_per_forward": 2.0}
    results = {**MINIMAL, "parameters": full["parameters"], "task": "countdown", "evaluation": evaluation}
    with pytest.raises(ValueError, match="lacks.*exact_match"):
        render_model_card(results)
    text = render_model_card({**results, "system": "masked_diffusion"}).text
    assert "99.71 %" in text and "`countdown`" in text
