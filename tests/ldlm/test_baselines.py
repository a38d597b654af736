"""The baselines: they learn, stop at their best, and a classifier gives no answer that it has not been trained on."""

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, EarlyStoppingCallback

from ldlm_hf.ldlm.recipe_baseline import BaselineRecipe, train_baseline
from ldlm_hf.ldlm.trainer_baseline import BaselineTrainer, write_greedily
from ldlm_hf.ldlm.trainer_classifier import ClassifierTrainer, answer_classes, classifier_of_size, classify
from ldlm_hf.training import ReproducibleTrainingArguments
from tests.tiny import tiny_bart, tiny_problems, tiny_tokenizer


EARLY_STOPPING = {
    "eval_strategy": "steps",
    "eval_steps": 2,
    "save_steps": 2,
    "load_best_model_at_end": True,
    "metric_for_best_model": "eval_loss",
    "greater_is_better": False,
}


def sums(first: int, last: int) -> Dataset:
    """Return the problems `n+1` for `n` from `first` to `last - 1`; every answer occurs once."""
    rows = [{"prompt": f"{n}+1", "target": f"{n + 1} {n}+1", "answer": str(n + 1)} for n in range(first, last)]
    return Dataset.from_list(rows)


def classifier(labels: list[str], seed: int = 0):
    torch.manual_seed(seed)
    return AutoModelForSequenceClassification.from_config(
        classifier_of_size(tiny_tokenizer(), labels, 10_000, num_layers=1)
    )


def trainer(folder, model, train, heldout=None, callbacks=(), **settings):
    values = {"per_device_train_batch_size": 8, "learning_rate": 1e-2, "logging_steps": 1, "disable_tqdm": True}
    args = ReproducibleTrainingArguments(output_dir=str(folder), **{**values, "max_steps": 60, **settings})
    kind = BaselineTrainer if model.config.is_encoder_decoder else ClassifierTrainer
    return kind(model, args, train, tiny_tokenizer(), eval_dataset=heldout, callbacks=list(callbacks))


def model_of(kind: str, labels: list[str]):
    return tiny_bart(dropout=0.0, init_std=0.1) if kind == "seq2seq" else classifier(labels)


@pytest.mark.parametrize("num_parameters", [20_000, 500_000, 2_000_000])
def test_the_classifier_is_of_the_size_that_is_nearest(num_parameters):
    labels = [str(n) for n in range(46)]
    sizes = []
    for width in range(32, 641, 32):
        config = classifier_of_size(tiny_tokenizer(), labels, 1)  # the smallest
        config.hidden_size, config.intermediate_size, config.num_attention_heads = width, 4 * width, width // 32
        with torch.device("meta"):
            model = AutoModelForSequenceClassification.from_config(config)
        sizes.append((abs(sum(p.numel() for p in model.parameters()) - num_parameters), width))
    found = classifier_of_size(tiny_tokenizer(), labels, num_parameters)
    assert (found.model_type, found.hidden_size, found.num_labels) == ("roberta", min(sizes)[1], 46)
    assert [found.id2label[i] for i in range(46)] == labels


def test_the_longest_prompt_has_positions():
    tokenizer, model = tiny_tokenizer(), classifier(["1", "2"])
    ids = torch.full((1, tokenizer.model_max_length), 9)
    assert model(ids).logits.shape == (1, 2)


def test_the_classifier_learns_and_answers_a_batch_as_it_answers_singles(tmp_path):
    train = sums(1, 9)
    labels = answer_classes(train)
    assert labels == sorted(str(n) for n in range(2, 10))
    run = trainer(tmp_path, classifier(labels), train, save_strategy="no")
    run.train()
    prompts = [*train["prompt"], "7+5+4+9"]  # a longer one, so that the others are padded
    answers = classify(run.model, tiny_tokenizer(), prompts, labels)
    assert answers[:8] == train["answer"][:]
    assert answers == classify(run.model, tiny_tokenizer(), prompts, labels, batch_size=1)
    run.save_final(tmp_path / "final")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "final")
    assert loaded.config.label2id == {label: index for index, label in enumerate(labels)}
    assert answers == classify(loaded, tiny_tokenizer(), prompts, labels)


def test_the_loss_is_the_cross_entropy_of_the_answers_class(tmp_path):
    train = sums(1, 9)
    labels = answer_classes(train)
    run = trainer(tmp_path, classifier(labels).eval(), train)
    batch = run.data_collator(list(run.train_dataset))
    wanted = torch.tensor([labels.index(answer) for answer in train["answer"]])
    with torch.no_grad():
        logits = run.model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        expected = -logits.log_softmax(-1)[range(8), wanted].mean()
        torch.testing.assert_close(run.compute_loss(run.model, batch), expected)


def test_a_heldout_answer_that_is_no_class_is_never_given_and_not_part_of_the_loss(tmp_path):
    train, heldout = sums(1, 9), sums(7, 12)  # answers 10, 11 and 12 are new
    labels = answer_classes(train)
    run = trainer(tmp_path, classifier(labels), train, heldout, save_strategy="no")
    assert len(run.eval_dataset) == 2
    run.train()
    assert run.evaluate()["eval_loss"] < 1
    answers = classify(run.model, tiny_tokenizer(), heldout["prompt"][:], labels)
    right = [one == other for one, other in zip(answers, heldout["answer"], strict=True)]
    assert right == [True, True, False, False, False]


def test_what_no_classifier_can_be_made_of_is_refused(tmp_path):
    for labels in ([], ["1"], ["1", "1"]):
        with pytest.raises(ValueError, match="labels"):
            classifier_of_size(tiny_tokenizer(), labels, 1000)
    with pytest.raises(ValueError, match="num_parameters"):
        classifier_of_size(tiny_tokenizer(), ["1", "2"], 0)
    model = classifier(["2", "3"])
    with pytest.raises(ValueError, match="3 answers.*2 classes"):
        classify(model, tiny_tokenizer(), ["1+1"], ["2", "3", "4"])
    with pytest.raises(ValueError, match="train_dataset.*no class"):
        trainer(tmp_path, model, sums(1, 5))
    with pytest.raises(ValueError, match="eval_dataset.*no class"):
        trainer(tmp_path, model, sums(1, 3), sums(5, 8))


@pytest.mark.parametrize(("kind", "column"), [("seq2seq", "target"), ("classifier", "answer")])
def test_a_data_set_without_a_column_is_refused(tmp_path, kind, column):
    train, model = sums(1, 9), model_of(kind, answer_classes(sums(1, 9)))
    for datasets in ((train.remove_columns(column), None), (train, train.remove_columns(column))):
        name = "train_dataset" if datasets[1] is None else "eval_dataset"
        with pytest.raises(ValueError, match=f"{name}.*{column}"):
            trainer(tmp_path, model, *datasets)


@pytest.mark.parametrize("kind", ["seq2seq", "classifier"])
@pytest.mark.parametrize("ema_decay", [None, 0.5])
def test_a_baseline_that_gets_worse_stops_and_goes_back_to_its_best(tmp_path, kind, ema_decay):
    train = sums(1, 9)
    # Held-out problems with other answers than in training: the better the fit, the worse their loss.
    rolled = train["target"][3:] + train["target"][:3], train["answer"][3:] + train["answer"][:3]
    heldout = Dataset.from_dict({"prompt": train["prompt"][:], "target": rolled[0], "answer": rolled[1]})
    model = model_of(kind, answer_classes(train))
    stopping = EarlyStoppingCallback(early_stopping_patience=2)
    run = trainer(tmp_path, model, train, heldout, [stopping], ema_decay=ema_decay, **EARLY_STOPPING)
    run.train()
    evaluations = {line["step"]: line["eval_loss"] for line in run.state.log_history if "eval_loss" in line}
    best = min(evaluations, key=evaluations.get)
    assert run.state.global_step == best + 4 < 60  # two evaluations of patience
    assert run.state.best_global_step == best
    saved = type(model).from_pretrained(tmp_path / f"checkpoint-{best}")
    assert all(torch.equal(tensor, saved.state_dict()[name]) for name, tensor in run.model.state_dict().items())
    assert run.evaluate()["eval_loss"] == pytest.approx(evaluations[best], abs=1e-6)


def test_the_seq2seq_baseline_learns_and_its_validation_loss_is_that_of_the_targets(tmp_path):
    train = sums(1, 9)
    run = trainer(tmp_path, tiny_bart(dropout=0.0, init_std=0.1), train, sums(3, 5), save_strategy="no")
    batch = run.data_collator(list(run.eval_dataset))
    with torch.no_grad():
        logits = run.model.eval()(**batch).logits
        expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())
    assert run.evaluate()["eval_loss"] == pytest.approx(expected.item(), abs=1e-5)
    run.train()
    assert write_greedily(run.model, tiny_tokenizer(), train["prompt"][:]) == train["target"][:]


def test_what_the_models_own_generation_configuration_asks_for_changes_nothing():
    model, prompts = tiny_bart(seed=3, init_std=0.5), tiny_problems(size=16)["prompt"][:]
    written = write_greedily(model, tiny_tokenizer(), prompts, max_new_tokens=12)
    of_bart_base = {"num_beams": 4, "no_repeat_ngram_size": 3, "early_stopping": True}
    model.generation_config.update(**of_bart_base, forced_bos_token_id=0, forced_eos_token_id=2)
    own = model.generation_config.to_dict()
    batch = tiny_tokenizer()(prompts, padding=True, return_tensors="pt")
    beams = tiny_tokenizer().batch_decode(model.generate(**batch, max_new_tokens=12), skip_special_tokens=True)
    assert beams != written  # so there is something to ignore
    assert write_greedily(model, tiny_tokenizer(), prompts, max_new_tokens=12) == written
    assert model.generation_config.to_dict() == own


def test_a_pretrained_baseline_is_saved_so_that_it_writes_greedily(tmp_path):
    model = tiny_bart()
    model.generation_config.update(num_beams=4, no_repeat_ngram_size=3, forced_bos_token_id=0)
    model.save_pretrained(tmp_path / "pretrained")
    tiny_tokenizer().save_pretrained(tmp_path / "pretrained")
    steps = {"max_steps": 1, "per_device_train_batch_size": 4, "disable_tqdm": True}
    arguments = {"task": "addition", "pretrained_seq2seq": str(tmp_path / "pretrained"), "baseline_training": steps}
    trained, _, _ = train_baseline(BaselineRecipe(output_dir=str(tmp_path / "run"), **arguments))
    kept = trained.generation_config
    assert (kept.num_beams, kept.no_repeat_ngram_size, kept.forced_bos_token_id) in ((None, None, None), (1, 0, None))
    with pytest.raises(ValueError, match="pretrained_seq2seq"):
        BaselineRecipe(output_dir=str(tmp_path), system="classifier", **arguments)


def test_validation_changes_no_step_of_the_training(tmp_path):
    train, weights = tiny_problems(size=16), []
    for heldout in (None, tiny_problems("validation", 8)):
        settings = {} if heldout is None else {"eval_strategy": "steps", "eval_steps": 1}
        model = tiny_bart(dropout=0.0)  # dropout draws from torch's global state, which any data loader advances
        trainer(tmp_path, model, train, heldout, max_steps=4, save_strategy="no", **settings).train()
        weights.append(list(model.parameters()))
    assert all(torch.equal(*pair) for pair in zip(*weights, strict=True))
