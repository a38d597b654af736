"""BERTScore: how well the tokens of texts and references match in a pretrained encoder; it ignores their order."""

import datasets
import evaluate

from ldlm_hf.metrics.bert_score import bert_scores


DESCRIPTION = """
Agreement of written prose with references, by the cosine of hidden states of a pretrained encoder, each token with its
best match. BERTScore ignores the order of the tokens: it is for prose and never used for the reasoning tasks.
"""
CITATION = """
@inproceedings{zhang2020bertscore,
    title={BERTScore: Evaluating Text Generation with BERT},
    author={Tianyi Zhang and Varsha Kishore and Felix Wu and Kilian Q. Weinberger and Yoav Artzi},
    booktitle={International Conference on Learning Representations},
    year={2020}
}
"""
INPUTS_DESCRIPTION = """
Args:
    predictions (`list[str]`): the written texts.
    references (`list[str]`): the target texts.
    model_type (`str`): path or Hub id of the encoder; "roberta-large" by default.
    num_layers (`int`): which hidden state, 0 being the embeddings; has to be given for every encoder but the default one.
    idf (`bool`): weigh tokens by their inverse document frequency in the references; `False` by default.
    rescale_with_baseline (`bool`): map the score of unrelated texts to 0; `False` by default.
    baseline_path (`str`): CSV file with the columns LAYER, P, R and F, for the rescaling.
    batch_size (`int`): pairs at a time, 64 by default; has no influence on the scores.
    device (`str`): where the encoder runs; by default on a GPU if there is one.
Returns:
    precision, recall, f1 (`list[float]`): of each text; 0 (before rescaling) where a text or its reference is empty.
    mean_precision, mean_recall, mean_f1 (`float`): their means.
Examples:
    >>> from ldlm_hf.metrics import load_metric
    >>> metric = load_metric("bertscore")
    >>> result = metric.compute(predictions=["a cat"], references=["a cat"], model_type="path/to/encoder", num_layers=6)
    >>> round(result["mean_f1"], 4)
    1.0
"""


class BERTScore(evaluate.Metric):
    """BERTScore: how well the tokens of texts and references match in a pretrained encoder; it ignores their order."""

    def _info(self):
        features = datasets.Features({"predictions": datasets.Value("string"), "references": datasets.Value("string")})
        return evaluate.MetricInfo(
            description=DESCRIPTION, citation=CITATION, inputs_description=INPUTS_DESCRIPTION, features=features
        )

    def _compute(
        self,
        predictions,
        references,
        model_type="roberta-large",
        num_layers=None,
        idf=False,
        rescale_with_baseline=False,
        baseline_path=None,
        batch_size=64,
        device=None,
    ):
        return bert_scores(
            predictions,
            references,
            model_type=model_type,
            num_layers=num_layers,
            idf=idf,
            rescale_with_baseline=rescale_with_baseline,
            baseline_path=baseline_path,
            batch_size=batch_size,
            device=device,
        )
