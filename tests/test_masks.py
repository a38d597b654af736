"""Attention masks."""

import torch
import torch.nn.functional as F

from ldlm_hf.masks import padding_mask


def test_padded_keys_have_no_influence():
    query, key, value = torch.randn(2, 1, 3, 4), torch.randn(2, 1, 5, 4), torch.randn(2, 1, 5, 4)
    mask = padding_mask(torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]))
    masked = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    cut = F.scaled_dot_product_attention(query[:1], key[:1, :, :3], value[:1, :, :3])
    torch.testing.assert_close(masked[:1], cut)


def test_the_mask_is_additive_and_of_the_asked_dtype():
    mask = padding_mask(torch.tensor([[1, 0]]), torch.bfloat16)
    assert mask.shape == (1, 1, 1, 2)
    assert mask.dtype == torch.bfloat16
    assert mask[0, 0, 0, 0] == 0
    assert mask[0, 0, 0, 1] == torch.finfo(torch.bfloat16).min
