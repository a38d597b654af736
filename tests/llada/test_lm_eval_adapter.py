"""lm-eval scores and generates with our pipelines: its figures are those of direct calls, whatever order, batch or cache."""

import json
import math
import random
import statistics
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import yaml
from transformers import LlamaConfig, LlamaForCausalLM

from ldlm_hf import LLaDAForMaskedDiffusion, MaskedDiffusionPipeline
from ldlm_hf.llada.likelihood import conditional_log_likelihood
from tests.llada.tiny_llada import MASK, tiny_masked_pipeline


lm_eval = pytest.importorskip("lm_eval")

from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.api.model import CachingLM  # noqa: E402
from lm_eval.api.registry import get_model  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

from ldlm_hf.llada.lm_eval_adapter import MaskedDiffusionLM  # noqa: E402


NAME = "ldlm_hf_masked_diffusion"
PROBLEMS = [("1+2+3", ["6", "7", "1+5"], 0), ("4+5", ["10", "9", "2+7"], 1), ("9+8+7", ["4+20", "24", "5"], 0)]
TASKS = {
    "tiny_choice": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{gold}}",
        "metric_list": [{"metric": "acc"}],
    },
    "tiny_writing": {
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{choices[gold]}}",
        "generation_kwargs": {"until": ["+"], "max_gen_toks": 6, "do_sample": False},
        "metric_list": [{"metric": "exact_match"}],
    },
    "tiny_perplexity": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{question}}",
        "metric_list": [{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}],
    },
}
TEMPLATE = "<s>{% for m in messages %}{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}+{% endif %}"


@pytest.fixture
def tasks(tmp_path):
    """Return a folder with three tasks over a file of problems."""
    rows = [{"question": question, "choices": choices, "gold": gold} for question, choices, gold in PROBLEMS]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {"test": str(tmp_path / "problems.jsonl")}
    data = {"dataset_path": "json", "dataset_kwargs": {"data_files": files}, "test_split": "test"}
    for name, task in TASKS.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"task": name, **data, **task}))
    return tmp_path


def evaluate(tasks, model, names=tuple(TASKS), **options) -> dict:
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    return lm_eval.simple_evaluate(model, tasks=list(names), task_manager=manager, bootstrap_iters=0, **options)


def tiny_lm(seed: int = 0, **options) -> MaskedDiffusionLM:
    return MaskedDiffusionLM(tiny_masked_pipeline(task=None, seed=seed), **{"n_mc": 6, **options})


def requests(*arguments: tuple) -> list[Instance]:
    return [Instance("", {}, each, i) for i, each in enumerate(arguments)]


CONTINUATIONS = requests(*((question, f" {choice}") for question, choices, _ in PROBLEMS for choice in choices))
WHOLE_TEXTS = requests(("1+2+3",), ("",), ("4+5",), ("+".join(["12"] * 80),))
WRITINGS = requests(
    ("1+2+3", {"max_gen_toks": 6}),
    ("4+5", {"max_gen_toks": 6, "temperature": 0.8, "do_sample": True}),
    ("1+2+3+4+5+6", {"max_gen_toks": 6}),
    ("4+5", {"max_gen_toks": 9}),
    ("9", {"max_gen_toks": 6, "temperature": 0.8, "do_sample": True}),
)
METHODS = [("loglikelihood", CONTINUATIONS), ("loglikelihood_rolling", WHOLE_TEXTS), ("generate_until", WRITINGS)]
every_method = pytest.mark.parametrize("method, asked", METHODS, ids=[name for name, _ in METHODS])


def assert_same(found: list, expected: list) -> None:
    """Fail unless results are the same, log-likelihoods but for rounding."""
    if isinstance(expected[0], tuple):
        assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
        found, expected = [value for value, _ in found], [value for value, _ in expected]
    assert found == (expected if isinstance(expected[0], str) else pytest.approx(expected, rel=1e-4))


def direct(lm: MaskedDiffusionLM, prompt: list[int], text: str) -> float:
    """Return the estimate of the library's own function, from the draws that belong to the request."""
    response = lm.tokenizer(text, add_special_tokens=False)["input_ids"]
    ids = torch.tensor(prompt, dtype=torch.long), torch.tensor(response)
    return conditional_log_likelihood(
        lm.pipeline.language_model,
        *ids,
        n_mc=lm.n_mc,
        guidance_scale=lm.guidance_scale,
        generator=lm._generator("score", prompt, response),
    )


def test_the_harness_reports_what_direct_calls_give(tasks):
    pipeline = tiny_masked_pipeline(task=None)
    pipeline.save_pretrained(tasks / "pipeline")
    results = evaluate(tasks, NAME, model_args={"pretrained": str(tasks / "pipeline"), "n_mc": 6}, batch_size=4)
    lm, figures = tiny_lm(), results["results"]

    scores = [
        [direct(lm, lm.tokenizer(q)["input_ids"], f" {choice}") for choice in choices] for q, choices, _ in PROBLEMS
    ]
    found = [[value for ((value, _),) in row["resps"]] for row in results["samples"]["tiny_choice"]]
    assert found == [pytest.approx(row, rel=1e-4) for row in scores]
    right = [row.index(max(row)) == gold for row, (_, _, gold) in zip(scores, PROBLEMS, strict=True)]
    assert figures["tiny_choice"]["acc,none"] == pytest.approx(sum(right) / 3)

    # Two blocks of four hold six tokens, and what is more than six is cut off.
    tokens = pipeline([question for question, *_ in PROBLEMS], gen_length=8, block_length=4).sequences[:, :6]
    texts = [text.split("+")[0] for text in pipeline.decode(tokens)]
    assert [row["resps"][0][0] for row in results["samples"]["tiny_writing"]] == texts
    assert len(set(texts)) > 1

    wholes = [direct(lm, [], question) for question, *_ in PROBLEMS]
    num_bytes = sum(len(question) for question, *_ in PROBLEMS)
    assert figures["tiny_perplexity"]["bits_per_byte,none"] == pytest.approx(
        -sum(wholes) / num_bytes / math.log(2), 1e-4
    )
    assert figures["tiny_perplexity"]["word_perplexity,none"] == pytest.approx(
        math.exp(-statistics.fmean(wholes)), 1e-3
    )
    assert results["config"]["n_mc"] == 6 and results["config"]["scheduler"]["block_length"] == 4


def test_one_token_is_scored_exactly():
    lm = tiny_lm(n_mc=50)
    prompt = lm.tokenizer("1+2+3")["input_ids"]
    logits = lm.pipeline.model(input_ids=torch.tensor([[*prompt, MASK]])).logits[0, -1].log_softmax(dim=-1)
    tokens = [token for token in lm.tokenizer.get_vocab() if token.startswith("▁") and token[1:].isdigit()]
    scored = lm.loglikelihood(requests(*(("1+2+3", f" {token[1:]}") for token in tokens)))
    expected = [logits[lm.tokenizer.convert_tokens_to_ids(token)].item() for token in tokens]
    assert [value for value, _ in scored] == pytest.approx(expected, rel=1e-4)
    best = lm.tokenizer.convert_ids_to_tokens(logits.argmax().item())
    assert [greedy for _, greedy in scored] == [token == best for token in tokens]


def test_scores_are_guided_too():
    lm = tiny_lm(guidance_scale=2.0)
    ((found, _),) = lm.loglikelihood(CONTINUATIONS[2:3])
    assert found == pytest.approx(direct(lm, lm.tokenizer("1+2+3")["input_ids"], " 1+5"), rel=1e-4)
    assert found != pytest.approx(tiny_lm().loglikelihood(CONTINUATIONS[2:3])[0][0], rel=1e-2)


def test_the_windows_of_a_long_text_are_summed():
    text, lm = "+".join(["12"] * 80), tiny_lm(batch_size=1)
    ids, limit = lm.tokenizer(text, add_special_tokens=False)["input_ids"], lm.max_length
    assert limit < len(ids) < 2 * limit
    pieces = [[], ids[:limit]], [ids[-limit:][: 2 * limit - len(ids)], ids[limit:]]
    ids_of = [[torch.tensor(part, dtype=torch.long) for part in piece] for piece in pieces]
    parts = [
        conditional_log_likelihood(lm.pipeline.language_model, *ids, n_mc=6, generator=lm._generator("score", *piece))
        for ids, piece in zip(ids_of, pieces, strict=True)
    ]
    assert lm.loglikelihood_rolling(requests((text,))) == [pytest.approx(sum(parts), rel=1e-4)]


@pytest.mark.parametrize("guidance_scale", [1.0, 2.0])
@pytest.mark.parametrize("length", [1, 5])
def test_greedy_is_what_the_pipeline_writes_a_token_a_step(guidance_scale, length):
    lm = tiny_lm(guidance_scale=guidance_scale)
    prompts = torch.tensor([lm.tokenizer(question)["input_ids"] for question in ("1+2+3", "4+5+6", "7+8+9")])
    settings = {"block_length": length, "num_inference_steps": length, "output_type": "seq"}
    written = lm.pipeline(input_ids=prompts, gen_length=length, guidance_scale=guidance_scale, **settings).sequences
    assert lm._are_greedy(prompts, written) == [True, True, True]
    for place in range(length):
        other = written.clone()
        other[1, place] += 1 if other[1, place] < 30 else -1
        assert lm._are_greedy(prompts, other) == [True, False, True]


@every_method
def test_neither_batch_size_nor_order_has_an_influence(method, asked):
    expected = getattr(tiny_lm(), method)(asked)
    assert len(set(expected)) > 2
    for batch_size in (1, 3):
        order = random.Random(batch_size).sample(range(len(asked)), len(asked))
        found = getattr(tiny_lm(batch_size=batch_size), method)([asked[i] for i in order])
        assert_same(found, [expected[i] for i in order])


@every_method
def test_what_is_in_the_cache_is_not_computed_again_and_changes_nothing(method, asked, tmp_path):
    expected = getattr(tiny_lm(), method)(asked)
    cached = str(tmp_path / "answers.db")
    assert_same(getattr(CachingLM(tiny_lm(), cached), method)(asked[:2]), expected[:2])
    assert_same(getattr(CachingLM(tiny_lm(), cached), method)(asked), expected)
    # Another model gets the answers of the first: they come from the cache, all but those that are drawn.
    sampled = [i for i, request in enumerate(asked) if method == "generate_until" and "do_sample" in request.args[1]]
    other = getattr(CachingLM(tiny_lm(seed=1), cached), method)(asked)
    assert_same(
        [x for i, x in enumerate(other) if i not in sampled], [x for i, x in enumerate(expected) if i not in sampled]
    )
    assert getattr(tiny_lm(seed=1), method)(asked) != expected


@every_method
def test_a_result_is_kept_as_soon_as_it_is_there(method, asked):
    kept, lm = [], tiny_lm(batch_size=1)
    lm.set_cache_hook(SimpleNamespace(add_partial=lambda *result: kept.append(result)))
    results = getattr(lm, method)(asked)
    expected = [(method, request.args, result) for request, result in zip(asked, results, strict=True) if result]
    assert sorted(kept, key=str) == sorted(expected, key=str)  # an empty text has no likelihood to compute


def test_a_run_that_breaks_off_has_kept_its_results(tmp_path):
    cached = CachingLM(tiny_lm(batch_size=2), str(tmp_path / "answers.db"))
    with pytest.raises(ValueError, match="mask token"):
        cached.loglikelihood([*CONTINUATIONS, *requests(("", "<mask>"))])  # the shortest comes last
    assert len(cached.dbdict) == len(CONTINUATIONS)


def test_the_seed_decides_what_is_drawn():
    (sampled,) = requests(("4+5", {"max_gen_toks": 8, "temperature": 1.5, "do_sample": True}))
    one, other = tiny_lm(), MaskedDiffusionLM(tiny_masked_pipeline(task=None), n_mc=6, seed=1)
    assert one.generate_until([sampled] * 3) == tiny_lm().generate_until([sampled] * 3)
    assert len(set(one.generate_until([sampled] * 3))) == 3  # repeats of a request are samples of their own
    assert other.generate_until([sampled]) != one.generate_until([sampled])
    assert other.loglikelihood(CONTINUATIONS) != one.loglikelihood(CONTINUATIONS)
    greedy = tiny_lm(temperature=0.0)
    assert len(set(greedy.generate_until([sampled] * 3))) == 1


def test_settings_reach_the_pipeline():
    (asked,) = requests(("1+2+3", {"max_gen_toks": 3}))
    lm = tiny_lm(gen_length=12, block_length=6, num_inference_steps=4, guidance_scale=1.5, cache="prefix")
    settings = {"gen_length": 12, "block_length": 6, "num_inference_steps": 4, "guidance_scale": 1.5}
    assert lm.generate_until([asked]) == lm.pipeline("1+2+3", cache="prefix", **settings).texts
    lm = tiny_lm(threshold=0.3)
    tokens = lm.pipeline("1+2+3", gen_length=4, threshold=0.3).sequences[:, :3]
    assert lm.generate_until([asked]) == lm.pipeline.decode(tokens)
    assert tiny_lm().generate_until([asked]) != lm.generate_until([asked])


def test_texts_end_at_the_first_stop_even_one_that_is_a_special_token():
    lm = tiny_lm()
    ids = lm.tokenizer("12 3+4 5", add_special_tokens=False)["input_ids"]
    assert lm._text(torch.tensor(ids), ["5", "+", "4"]) == "12 3"
    assert lm._text(torch.tensor(ids), []) == "12 3+4 5"
    assert lm._text(torch.tensor([ids[0], lm.tokenizer.bos_token_id, *ids]), ["<s>"]) == "12"
    assert lm._text(torch.tensor([ids[0], lm.tokenizer.bos_token_id, *ids]), ["+"]) == "12 12 3"


def test_a_pipeline_says_how_much_to_write_where_a_request_does_not():
    pipeline = tiny_masked_pipeline(task=None)
    pipeline.register_to_config(gen_length=8)
    (asked,) = requests(("1+2+3", {"until": ["?"]}))
    assert MaskedDiffusionLM(pipeline).generate_until([asked]) == pipeline("1+2+3", gen_length=8).texts


def test_long_contexts_lose_their_beginning(caplog):
    lm = tiny_lm()
    long, limit = "+".join(["12", "7"] * 60), lm.max_length
    ids = lm.tokenizer(long)["input_ids"]
    assert len(ids) > limit
    ((found, _),) = lm.loglikelihood(requests((long, " 6")))
    assert found == pytest.approx(direct(lm, ids[-(limit - 1) :], " 6"), rel=1e-4)
    (text,) = lm.generate_until(requests((long, {"max_gen_toks": 8})))
    assert text == lm.pipeline(input_ids=torch.tensor([ids[-(limit - 8) :]]), gen_length=8).texts[0]
    assert "1 of 1 contexts" in caplog.text
    with pytest.raises(ValueError, match="256 tokens.*128 positions.*gen_length"):
        lm.generate_until(requests(("1+2", {"until": []})))


def test_chat_templates_are_applied_as_in_the_pipeline(tasks):
    lm = tiny_lm()
    with pytest.raises(ValueError, match="chat_template"):
        lm.chat_template("other")
    lm.tokenizer.chat_template = TEMPLATE
    assert lm.chat_template(True) == TEMPLATE and lm.chat_template(False) is None
    message = {"role": "user", "content": "1+2"}
    assert lm.apply_chat_template([message]) == "<s>1+2+"
    assert lm.apply_chat_template([message, {"role": "assistant", "content": "3"}], False) == "<s>1+23"
    results = evaluate(tasks, lm, ["tiny_writing"], apply_chat_template=True)
    messages = [[{"role": "user", "content": question}] for question, *_ in PROBLEMS]
    tokens = lm.pipeline(messages=messages, gen_length=8, output_type="seq").sequences[:, :6]
    texts = [text.split("+")[0] for text in lm.pipeline.decode(tokens)]
    assert [row["resps"][0][0] for row in results["samples"]["tiny_writing"]] == texts


def test_a_bare_model_with_its_tokenizer_loads_as_a_pipeline_does(tmp_path):
    pipeline = tiny_masked_pipeline(task=None)
    pipeline.save_pretrained(tmp_path / "pipeline")
    pipeline.model.save_pretrained(tmp_path / "model")
    pipeline.tokenizer.save_pretrained(tmp_path / "model")
    expected = tiny_lm().loglikelihood(CONTINUATIONS)
    for folder in ("pipeline", "model"):
        lm = get_model(NAME).create_from_arg_string(f"pretrained={tmp_path / folder},n_mc=6", {"batch_size": "3"})
        assert_same(lm.loglikelihood(CONTINUATIONS), expected)
        assert isinstance(lm.pipeline, MaskedDiffusionPipeline) and isinstance(
            lm.pipeline.model, LLaDAForMaskedDiffusion
        )
        assert lm.batch_size == 3 and lm.tokenizer_name.endswith(f"__{folder}") and "/" not in lm.tokenizer_name
        assert MaskedDiffusionLM(str(tmp_path / folder), dtype="bfloat16").pipeline.model.dtype == torch.bfloat16


def test_a_given_pipeline_is_cast_and_stays_where_it_is_without_a_gpu():
    # The command line asks for "cuda:0" where it is not told otherwise.
    lm = MaskedDiffusionLM(tiny_masked_pipeline(task=None), dtype="bfloat16", device="cuda:0")
    assert lm.pipeline.model.dtype == torch.bfloat16
    assert lm.device.type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_a_pushed_pipeline_loads_by_its_name(hub):
    tiny_masked_pipeline(task=None).push_to_hub("tester/masked")
    lm = MaskedDiffusionLM("tester/masked", n_mc=6)
    assert_same(lm.loglikelihood(CONTINUATIONS), tiny_lm().loglikelihood(CONTINUATIONS))
    with pytest.raises(OSError, match="tester/nothing"):
        MaskedDiffusionLM("tester/nothing")


def test_what_does_not_fit_is_refused_by_name(tmp_path):
    bad = {"batch_size": "auto", "n_mc": 0, "gen_length": -1, "block_length": 2.5, "cache": "all", "dtype": "int8"}
    tiny_masked_pipeline(task=None).save_pretrained(tmp_path / "pipeline")
    for name, value in bad.items():
        with pytest.raises(ValueError, match=f"{name}.*{value}"):
            MaskedDiffusionLM(str(tmp_path / "pipeline"), **{name: value})
    pipeline = tiny_masked_pipeline(task=None)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=99)).save_pretrained(tmp_path / "causal")
    pipeline.tokenizer.save_pretrained(tmp_path / "causal")
    with pytest.raises(ValueError, match="from_causal_lm"):
        MaskedDiffusionLM(str(tmp_path / "causal"))
    with pytest.raises(ValueError, match="without a tokenizer"):
        MaskedDiffusionLM(MaskedDiffusionPipeline(pipeline.model, pipeline.scheduler))


@pytest.mark.slow
def test_the_command_line_knows_the_model(tasks):
    tiny_masked_pipeline(task=None).save_pretrained(tasks / "pipeline")
    arguments = ["--model", NAME, "--model_args", f"pretrained={tasks / 'pipeline'},n_mc=6", "--batch_size", "2"]
    places = ["--tasks", ",".join(TASKS), "--include_path", str(tasks), "--output_path", str(tasks / "out.json")]
    command = [sys.executable, "-m", "ldlm_hf.llada.lm_eval_adapter", *arguments, *places]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = tasks.glob("out*.json")
    expected = evaluate(tasks, tiny_lm())["results"]
    found = json.loads(path.read_text())["results"]
    for name, metric in [
        ("tiny_choice", "acc"),
        ("tiny_writing", "exact_match"),
        ("tiny_perplexity", "bits_per_byte"),
    ]:
        assert found[name][f"{metric},none"] == pytest.approx(expected[name][f"{metric},none"], rel=1e-4)
