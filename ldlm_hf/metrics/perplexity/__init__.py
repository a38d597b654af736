"""How likely a causal language model finds the written texts."""
