"""How much of the texts comes back: whole texts, and tokens at their place."""

import datasets
import evaluate

from ldlm_hf.metrics.texts import reconstruction_scores


DESCRIPTION = "Agreement of texts with what they were reconstructed from, as whole texts and word by word."
INPUTS_DESCRIPTION = """
Args:
    predictions (`list[str]`): what came back for each text.
    references (`list[str]`): the texts; none of them empty.
Returns:
    exact_reconstruction (`float`): share of texts equal to their reference but for white space.
    token_accuracy (`float`): share of the places of the longer text at which both have the same word, all texts together.
Examples:
    >>> from ldlm_hf.metrics import load_metric
    >>> metric = load_metric("reconstruction")
    >>> metric.compute(predictions=["a b c", "a b d e"], references=["a b c", "a b c"])
    {'exact_reconstruction': 0.5, 'token_accuracy': 0.7142857142857143}
"""


class Reconstruction(evaluate.Metric):
    """How much of the texts comes back: whole texts, and tokens at their place."""

    def _info(self):
        features = datasets.Features({"predictions": datasets.Value("string"), "references": datasets.Value("string")})
        return evaluate.MetricInfo(
            description=DESCRIPTION, citation="", inputs_description=INPUTS_DESCRIPTION, features=features
        )

    def _compute(self, predictions, references):
        return reconstruction_scores(predictions, references)
