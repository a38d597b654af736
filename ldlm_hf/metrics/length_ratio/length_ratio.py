"""How long the written texts are beside their references, and how many are empty."""

import datasets
import evaluate

from ldlm_hf.metrics.texts import length_ratios


DESCRIPTION = "Length of written texts in words, divided by that of their references."
INPUTS_DESCRIPTION = """
Args:
    predictions (`list[str]`): the written texts.
    references (`list[str]`): the target texts; none of them empty.
Returns:
    mean_length_ratio (`float`): mean of the ratios of each pair.
    corpus_length_ratio (`float`): ratio of the mean lengths.
    empty_rate (`float`): share of written texts without a word.
Examples:
    >>> from ldlm_hf.metrics import load_metric
    >>> metric = load_metric("length_ratio")
    >>> metric.compute(predictions=["a b", ""], references=["a", "a b c"])
    {'mean_length_ratio': 1.0, 'corpus_length_ratio': 0.5, 'empty_rate': 0.5}
"""


class LengthRatio(evaluate.Metric):
    """How long the written texts are beside their references, and how many are empty."""

    def _info(self):
        features = datasets.Features({"predictions": datasets.Value("string"), "references": datasets.Value("string")})
        return evaluate.MetricInfo(
            description=DESCRIPTION, citation="", inputs_description=INPUTS_DESCRIPTION, features=features
        )

    def _compute(self, predictions, references):
        return length_ratios(predictions, references)
