"""Comparisons and tables: every system trains and is scored, runs are not repeated, lines are counted right."""

import json
import shutil
from pathlib import Path

import pytest

from examples import make_tables, run_comparison, run_train
from ldlm_hf.ldlm.published import PUBLISHED_TABLES, published_of
from ldlm_hf.ldlm.recipe import LatentReasoningRecipe
from ldlm_hf.ldlm.recipe_baseline import SYSTEMS as BASELINES
from ldlm_hf.training import merge_recipes, read_section
from tests.tiny import tiny_autoencoder, tiny_denoiser, tiny_pipeline


STEPS = {"max_steps": 2, "per_device_train_batch_size": 8, "disable_tqdm": True, "logging_steps": 1}
SELECTION = {"eval_strategy": "steps", "eval_steps": 1, "save_steps": 1, "metric_for_best_model": "eval_loss"}
RECIPE = """
task: rotation
tokenizer: {model_max_length: 40}
seq2seq: {d_model: 32, encoder_layers: 1, decoder_layers: 1, encoder_attention_heads: 2, decoder_attention_heads: 2,
  encoder_ffn_dim: 32, decoder_ffn_dim: 32}
seq2seq_training: {max_steps: 2, per_device_train_batch_size: 4, disable_tqdm: true}
autoencoder: {latent_length: 4, latent_dim: 8, num_layers: 1, num_attention_heads: 2}
autoencoder_training: {max_steps: 2, per_device_train_batch_size: 4, disable_tqdm: true}
denoiser: {hidden_size: 32, num_layers: 1, num_attention_heads: 2}
denoiser_training: {max_steps: 2, per_device_train_batch_size: 4, reconstruction_gate: 0, disable_tqdm: true}
evaluation: {num_problems: 3}
"""


@pytest.fixture(scope="module")
def saved_pipeline(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "tiny"
    tiny_pipeline().save_pretrained(folder)
    return folder


def plan(folder: Path, pipeline: Path) -> dict:
    (folder / "all.yaml").write_text(RECIPE)
    denoiser = {**STEPS, "reconstruction_gate": 0, "ema_decay": 0.5, "save_strategy": "no"}
    rows = [
        {"name": "as saved", "system": "pipeline", "variants": [{"num_samples": 3}, {"scheduler": "DDIMScheduler"}]},
        {"name": "T = 50", "scheduler": {"num_train_timesteps": 50}},
        {"name": "all stages", "system": "recipe", "recipe": str(folder / "all.yaml"), "task": "rotation"},
        {"name": "answer first", "system": "sequence_to_sequence", "task": "rotation"},
        {"name": "a class", "system": "classifier", "task": "rotation", "early_stopping_patience": 1},
    ]
    shared = {
        "task": "addition",
        "pipeline": str(pipeline),
        "seeds": [0, 1],
        "num_problems": 3,
        "train_size": 40,
        "sampling": {"num_inference_steps": 2, "show_progress": False},
        "denoiser_training": denoiser,
        "baseline_training": {**STEPS, **SELECTION, "load_best_model_at_end": True},
        "num_parameters": 20_000,
        "num_layers": 1,
        "tokenizer": {"model_max_length": 40},
    }
    return {"output_dir": str(folder / "runs"), "shared": shared, "sections": {"one": {"rows": rows}}}


def test_every_system_is_trained_and_scored_and_no_run_is_repeated(tmp_path, saved_pipeline):
    plans = plan(tmp_path, saved_pipeline)
    assert run_comparison.run_section(plans, "one", "command", rows=[0, 1, 2], seeds=[0]) is None
    first = {path: path.read_bytes() for path in (tmp_path / "runs" / "one").glob("*.json")}
    assert len(first) == 3
    results = run_comparison.run_section(plans, "one", "command")
    assert all(path.read_bytes() == text for path, text in first.items())
    names = [row["name"] for row in results["rows"]]
    variants = ["as saved; num_samples 3", "as saved; scheduler DDIMScheduler"]
    assert names == ["as saved", *variants, "T = 50", "all stages", "answer first", "a class"]
    assert all(len(row["accuracies"]) == 2 and 0 <= row["mean"] <= 1 for row in results["rows"])
    assert [row["num_problems"] for row in results["rows"]] == [3] * 7
    written = json.loads((tmp_path / "runs" / "results" / "one.json").read_text())
    assert written["one"] == json.loads(json.dumps(results))
    assert not [path for path in (tmp_path / "runs" / "one").iterdir() if path.is_dir()]  # checkpoints are gone
    assert "exact_reconstruction" in json.loads((tmp_path / "runs" / "one" / "all-stages-0.json").read_text())


def test_rows_on_text_share_the_pipeline_that_their_recipe_makes(tmp_path, saved_pipeline):
    words = [f"w{i % 17}" for i in range(400)]
    (tmp_path / "texts.txt").write_text("\n\n".join(" ".join(words[i : i + 40]) for i in range(120)))
    plans = plan(tmp_path, saved_pipeline)
    subword = {"granularity": "subword", "vocab_size": 300, "model_max_length": 40}
    rows = [
        {"name": "one layer"},
        {"name": "two layers", "denoiser": {"num_layers": 2}},
        {"name": "left to right", "system": "sequence_to_sequence", "tokenizer": {**subword, "model_max_length": 6}},
        {"name": "chance", "system": "other_targets"},
        {"name": "ceiling", "system": "reconstructions"},
    ]
    made = {"pipeline": str(tmp_path / "made" / "pipeline"), "recipe": str(tmp_path / "all.yaml"), "seeds": [0]}
    task = {"task": f"continuation:{tmp_path / 'texts.txt'}", "task_arguments": {"num_words": 4}}
    section = {**made, **task, "metric": "mean_length_ratio", "train_size": None, "tokenizer": subword, "rows": rows}
    plans["sections"]["text"] = section
    first = run_comparison.run_section(plans, "text", "command", partial=True, rows=[0])
    assert len(first["rows"]) == 1
    weights = tmp_path / "made" / "pipeline" / "autoencoder" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    results = run_comparison.run_section(plans, "text", "command")
    assert weights.stat().st_mtime_ns == before
    lines = {row["name"]: row for row in results["rows"]}
    assert list(lines) == [row["name"] for row in rows]
    assert lines["chance"]["mean"] == pytest.approx(1, abs=0.2)
    assert lines["two layers"]["parameters"] > lines["one layer"]["parameters"]
    assert "parameters" not in lines["ceiling"]
    table = make_tables.make_table(PUBLISHED_TABLES["table5"], results)
    assert "| chance |  | 1" in make_tables.markdown({"table5": table}, "command")


def test_an_encoder_that_fails_is_told_of_before_anything_is_trained(tmp_path, saved_pipeline, monkeypatch):
    monkeypatch.setattr(run_comparison, "run_row", lambda *_: pytest.fail("a row was run"))
    plans = plan(tmp_path, saved_pipeline)
    encoder = {"model_type": str(tmp_path / "no-encoder"), "num_layers": 1}
    plans["sections"]["text"] = {"seeds": [0], "bertscore": encoder, "rows": [{"name": "any"}]}
    with pytest.raises(OSError, match="no-encoder"):
        run_comparison.run_section(plans, "text", "command")
    assert run_comparison.run_section(plans, "text", "command", partial=True, run=False)["rows"] == []


def test_a_section_that_is_none_is_refused(tmp_path, saved_pipeline):
    with pytest.raises(ValueError, match="section"):
        run_comparison.run_section(plan(tmp_path, saved_pipeline), "two", "command")


def test_lines_are_means_over_seeds():
    rows = [{"name": "a", "seeds": [0, 1, 2]}, {"name": "b", "seeds": [0]}, {"name": "c", "seeds": [0, 1]}]
    runs = {(0, seed): {"answer_accuracy": p, "seconds": 2} for seed, p in enumerate((0.5, 0.7, 0.9))}
    runs[1, 0] = {"answer_accuracy": 0.25, "seconds": 1}
    first, second = run_comparison.collect(rows, runs)  # the third row was not run
    assert first["mean"] == pytest.approx(0.7)
    assert first["standard_error"] == pytest.approx(0.2 / 3**0.5)
    assert (second["mean"], second["standard_error"]) == (0.25, None)


def test_the_plan_of_the_tables_names_published_rows_and_tasks():
    sections = make_tables.read_recipe(make_tables.PLAN)["sections"]
    for name, section in sections.items():
        table = PUBLISHED_TABLES[name]
        assert section["task"] == table.task
        named = {row["name"] for row in section["rows"]}
        assert {row for row in table.rows if not row.startswith("GPT")} <= named


@pytest.mark.parametrize("name", ["tables", "ablations"])
def test_what_rows_of_the_plans_train_are_recipes_to_their_last_key(name, tmp_path):
    plan = make_tables.read_recipe(make_tables.PLAN.with_name(f"{name}.yaml"))
    found = 0
    for section in plan["sections"].values():
        for row in section["rows"]:
            row = merge_recipes(merge_recipes(plan["shared"], {**section, "rows": None}), row)
            if row.get("system") == "recipe":
                recipe = read_section(LatentReasoningRecipe, run_comparison.recipe_values(row, 0, tmp_path))
                assert recipe.output_dir == str(tmp_path)
                for changed in ("tokenizer", "autoencoder", "task_arguments"):
                    assert row.get(changed, {}).items() <= getattr(recipe, changed).items()
            elif "recipe" in row and row.get("system") not in BASELINES:
                recipe = read_section(LatentReasoningRecipe, run_comparison.pipeline_values(row))
                assert recipe.output_dir == str(Path(row["pipeline"]).parent)
                assert {key: recipe.seq2seq[key] for key in row.get("seq2seq", {})} == row.get("seq2seq", {})
            else:
                continue
            found += 1
    assert found


def test_a_run_of_other_settings_is_refused_before_any_run(tmp_path, saved_pipeline):
    plans = plan(tmp_path, saved_pipeline)
    run_comparison.run_section(plans, "one", "command", rows=[0, 1, 2], seeds=[0])
    before = {path: path.read_bytes() for path in (tmp_path / "runs" / "one").glob("*.json")}
    run_comparison.run_section(plans, "one", "command", rows=[0, 1, 2], seeds=[0])  # the same: nothing to do
    recipe = tmp_path / "all.yaml"
    recipe.write_text(RECIPE.replace("denoiser: {hidden_size: 32", "denoiser: {hidden_size: 64"))
    with pytest.raises(ValueError, match=r"all-stages-0.json.*\['recipe'\]"):
        run_comparison.run_section(plans, "one", "command", rows=[2, 3], seeds=[0])
    recipe.write_text(RECIPE)
    plans["sections"]["one"]["num_problems"] = 4
    with pytest.raises(ValueError, match=r"t-50-0.json.*num_problems"):
        run_comparison.run_section(plans, "one", "command", rows=[3, 1], seeds=[0, 1])
    assert {path: path.read_bytes() for path in (tmp_path / "runs" / "one").glob("*.json")} == before
    with pytest.raises(ValueError, match="num_problems"):  # what is there answered three problems
        run_comparison.run_section(plans, "one", "command", partial=True, run=False)
    plans["sections"]["one"]["num_problems"] = 3
    plans["shared"]["num_parameters"] = 30_000  # what a row does not read does not count
    run_comparison.run_section(plans, "one", "command", rows=[0, 1, 2], seeds=[0])


def test_a_run_of_other_weights_is_refused(tmp_path, saved_pipeline):
    plans = plan(tmp_path, shutil.copytree(saved_pipeline, tmp_path / "retrained"))
    run_comparison.run_section(plans, "one", "command", rows=[0, 1], seeds=[0])
    tiny_pipeline(denoiser=tiny_denoiser(seed=1)).save_pretrained(tmp_path / "retrained")
    run_comparison.run_section(plans, "one", "command", rows=[1], seeds=[0])  # it has the autoencoder alone from there
    with pytest.raises(ValueError, match=r"as-saved-0.json.*\['weights'\]"):
        run_comparison.run_section(plans, "one", "command", rows=[0], seeds=[0])
    tiny_pipeline(autoencoder=tiny_autoencoder(seed=1)).save_pretrained(tmp_path / "retrained")
    with pytest.raises(ValueError, match=r"t-50-0.json.*\['weights'\]"):
        run_comparison.run_section(plans, "one", "command", rows=[1], seeds=[0])


def test_a_table_whose_runs_are_of_other_settings_stays_as_it_is(monkeypatch, tmp_path, saved_pipeline):
    plans = plan(tmp_path, saved_pipeline)
    rows = plans["sections"].pop("one")["rows"]
    plans["sections"] = {"table1": {"task": "addition", "rows": rows[:1], "seeds": [0]}}
    monkeypatch.setattr(make_tables, "read_recipe", lambda path: plans)
    output = tmp_path / "tables.json"
    before = make_tables.main(output, ["table1"], "first")["tables"]
    plans["shared"]["num_problems"] = 4
    assert make_tables.main(output, ["table1", "table2"], "second")["tables"] == {
        **before,
        "table2": make_tables.make_table(PUBLISHED_TABLES["table2"], None),
    }


def test_a_shipped_pipeline_says_so_and_how_long_it_was_trained(tmp_path, saved_pipeline):
    plans = plan(tmp_path, saved_pipeline)
    results = run_comparison.run_section(plans, "one", "command", partial=True, rows=[0, 1], seeds=[0])
    lines = {row["name"]: row for row in results["rows"]}
    assert lines["as saved"]["shipped"] and "steps" not in lines["as saved"]
    assert "shipped" not in lines["T = 50"] and lines["T = 50"]["steps"] == [2]
    trained = {"recipe": {"denoiser_training": {"max_steps": 1234, "per_device_train_batch_size": 16}}}
    shipped = tmp_path / "shipped"
    (shipped / "results").mkdir(parents=True)
    (shipped / "results" / "training.json").write_text(json.dumps(trained))
    assert run_comparison.steps_of(shipped) == {"steps": 1234, "batch_size": 16}
    row = {**lines["as saved"], "steps": [1234], "batch_size": 16, "published": None}
    assert "| 1,234 x 16, shipped |" in make_tables.markdown_row(row)


def test_a_table_shows_published_and_measured_side_by_side(monkeypatch, tmp_path, saved_pipeline):
    plans = plan(tmp_path, saved_pipeline)
    plans["sections"] = {"table4": {"task": "rotation", "rows": plans["sections"]["one"]["rows"][3:4]}}
    plans["sections"]["table4"]["rows"][0]["name"] = "BART, answer first"
    monkeypatch.setattr(make_tables, "read_recipe", lambda path: plans)
    results = make_tables.main(tmp_path / "tables.json", ["table4"], "the command")
    assert json.loads((tmp_path / "tables.json").read_text()) == results
    text = (tmp_path / "tables.md").read_text()
    assert "| latent diffusion, T = 1000 | 92.3 | not run | | | | |" in text
    assert "| BART, answer first | 0.0 | " in text
    assert "| chance | | 25.0 |" in text
    assert "the command" in text


def test_an_unknown_table_is_refused(tmp_path):
    with pytest.raises(ValueError, match="table9"):
        make_tables.main(tmp_path / "tables.json", ["table9"], "command")


def test_published_figures_are_found_by_task():
    assert published_of("rotation").rows["latent diffusion, T = 1000"] == 92.3
    assert published_of("continuation") is None


def test_a_system_that_is_none_is_refused(tmp_path):
    (tmp_path / "recipe.yaml").write_text("task: addition\nsystem: latnt_diffusion\n")
    with pytest.raises(ValueError, match="latnt_diffusion"):
        run_train.main([str(tmp_path / "recipe.yaml"), "--output_dir", str(tmp_path / "run")])


def test_a_recipe_with_a_section_that_nothing_reads_is_refused():
    with pytest.raises(ValueError, match="autoencodr"):
        run_train.fields_of(run_train.BaselineRecipe, {"task": "addition", "autoencodr": {}})


def test_the_script_trains_all_stages_and_writes_curves_and_card(tmp_path):
    (tmp_path / "all.yaml").write_text(RECIPE)
    keep = ["denoiser_training.save_steps=1", "denoiser_training.ema_decay=0.5"]
    run_train.main([str(tmp_path / "all.yaml"), "--output_dir", str(tmp_path / "run"), "--override", *keep])
    folder = tmp_path / "run" / "pipeline"
    curves = json.loads((folder / "results" / "curves.json").read_text())
    assert [point["training_steps"] for point in curves["training_curve"]] == [1, 2]
    assert len(curves["answer_decision"]) == 20
    card = (folder / "README.md").read_text()
    for name in ("trajectory", "answer_decision", "accuracy_against_training"):
        assert f"figures/{name}.png" in card
        assert (folder / "figures" / f"{name}.png").stat().st_size > 1000


def test_the_script_trains_a_baseline_of_a_table(tmp_path):
    small = ["num_parameters=20000", "num_layers=1", "evaluation.num_problems=3", "tokenizer.model_max_length=64"]
    steps = [f"baseline_training.{name}={value}" for name, value in {**STEPS, **SELECTION}.items()]
    recipe = Path(make_tables.PLAN).parent / "rotation_answer_last"
    run_train.main([str(recipe), "--output_dir", str(tmp_path), "--override", *small, *steps])
    results = json.loads((tmp_path / "results" / "evaluation.json").read_text())
    assert results["system"] == "sequence_to_sequence"
    assert results["task_arguments"] == {"answer_position": "last"}
    assert results["evaluation"]["num_problems"] == 3
    assert results["training"]["steps"] <= 2
