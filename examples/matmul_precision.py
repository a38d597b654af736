"""How the training scripts multiply float32 matrices: as torch does, or faster where a CPU has AMX."""

from __future__ import annotations

import argparse

import torch


PRECISIONS = ("highest", "high", "medium")


def add_matmul_precision(parser: argparse.ArgumentParser) -> None:
    """Add `--matmul_precision` to the parser of a script."""
    parser.add_argument(
        "--matmul_precision",
        default="highest",
        choices=PRECISIONS,
        help="of float32 products, see torch.set_float32_matmul_precision; medium rounds what is multiplied to bfloat16",
    )


def set_matmul_precision(precision: str) -> None:
    """Multiply float32 matrices in this precision, in the whole process."""
    torch.set_float32_matmul_precision(precision)
    # Torch's fused attention on a CPU multiplies small pieces, for each of which bfloat16 has to be packed: it gets slower.
    torch.backends.cuda.enable_flash_sdp(precision == "highest" or torch.cuda.is_available())
