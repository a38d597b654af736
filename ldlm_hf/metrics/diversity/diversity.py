"""How varied the written texts are: different n-grams per n-gram."""

import datasets
import evaluate

from ldlm_hf.metrics.texts import diversity_scores


DESCRIPTION = """
Share of different n-grams among all n-grams of the written texts, for n from 2 to 4, and the product of the three.
"""
INPUTS_DESCRIPTION = """
Args:
    predictions (`list[str]`): the written texts. More texts repeat more, so compare equally many.
Returns:
    distinct_2, distinct_3, distinct_4 (`float`): different n-grams per n-gram; `None` if no text is that long.
    diversity (`float`): their product; `None` if one of them is.
Examples:
    >>> from ldlm_hf.metrics import load_metric
    >>> metric = load_metric("diversity")
    >>> metric.compute(predictions=["a b a b a"])
    {'distinct_2': 0.5, 'distinct_3': 0.6666666666666666, 'distinct_4': 1.0, 'diversity': 0.3333333333333333}
"""


class Diversity(evaluate.Metric):
    """How varied the written texts are: different n-grams per n-gram."""

    def _info(self):
        features = datasets.Features({"predictions": datasets.Value("string")})
        return evaluate.MetricInfo(
            description=DESCRIPTION, citation="", inputs_description=INPUTS_DESCRIPTION, features=features
        )

    def _compute(self, predictions):
        return diversity_scores(predictions)
