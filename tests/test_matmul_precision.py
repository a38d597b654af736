"""The flag of the training scripts: products are those of the precision it names, and torch is left as it was by default."""

import argparse

import pytest
import torch
from matmul_precision import PRECISIONS, add_matmul_precision, set_matmul_precision


@pytest.fixture(autouse=True)
def as_torch_does():
    yield
    set_matmul_precision("highest")


def parse(*arguments: str) -> str:
    parser = argparse.ArgumentParser()
    add_matmul_precision(parser)
    return parser.parse_args(arguments).matmul_precision


@pytest.mark.parametrize("precision", PRECISIONS)
def test_products_and_attention_stay_within_the_precision(precision):
    set_matmul_precision(parse("--matmul_precision", precision))
    assert torch.get_float32_matmul_precision() == precision
    generator = torch.Generator().manual_seed(0)
    one, other = torch.randn(64, 128, generator=generator), torch.randn(128, 96, generator=generator)
    exact = (one.double() @ other.double()).float()
    least = 1e-5 if precision == "highest" else 2e-2  # bfloat16 keeps eight bits
    assert (one @ other - exact).abs().max() < least * exact.abs().max()
    queries = torch.randn(2, 4, 16, 8, generator=generator)
    attended = torch.nn.functional.scaled_dot_product_attention(queries, queries, queries)
    weights = (queries.double() @ queries.double().mT / 8**0.5).softmax(-1)
    assert (attended - (weights @ queries.double()).float()).abs().max() < 5 * least


def test_by_default_products_are_torchs_own():
    assert parse() == "highest"
    set_matmul_precision(parse())
    assert torch.get_float32_matmul_precision() == "highest"
    assert torch.backends.cuda.flash_sdp_enabled()


def test_an_unknown_precision_is_refused():
    with pytest.raises(SystemExit):
        parse("--matmul_precision", "low")
