"""BERTScore: how well the tokens of texts and references match in a pretrained encoder; it ignores their order."""
