"""How likely a causal language model finds the written texts."""

import datasets
import evaluate

from ldlm_hf.metrics.likelihood import perplexities


DESCRIPTION = """
Perplexity of texts under a causal language model: exp of the mean negative log-likelihood of their tokens.
"""
INPUTS_DESCRIPTION = """
Args:
    predictions (`list[str]`): the texts.
    model_id (`str`): path or Hub id of a causal language model.
    batch_size (`int`): texts at a time, 16 by default; has no influence on the result.
    add_start_token (`bool`): begin each text with the tokenizer's `bos_token`, so that its first token is scored too;
        `True` by default.
    max_length (`int`): most tokens of a text; what is longer is cut. The tokenizer's `model_max_length` by default.
    device (`str`): where the model runs; by default on a GPU if there is one.
Returns:
    perplexity (`float`): of all texts together, every token with the same weight; `None` if no token was scored.
    perplexities (`list[float]`): of each text; `None` for an empty one.
    num_tokens (`int`): number of scored tokens.
Examples:
    >>> from ldlm_hf.metrics import load_metric
    >>> metric = load_metric("perplexity")
    >>> result = metric.compute(predictions=["a cat", ""], model_id="gpt2")
    >>> result["perplexities"][1] is None
    True
"""


class Perplexity(evaluate.Metric):
    """How likely a causal language model finds the written texts."""

    def _info(self):
        features = datasets.Features({"predictions": datasets.Value("string")})
        return evaluate.MetricInfo(
            description=DESCRIPTION, citation="", inputs_description=INPUTS_DESCRIPTION, features=features
        )

    def _compute(self, predictions, model_id, batch_size=16, add_start_token=True, max_length=None, device=None):
        return perplexities(
            predictions,
            model_id=model_id,
            batch_size=batch_size,
            add_start_token=add_start_token,
            max_length=max_length,
            device=device,
        )
