"""How varied the written texts are: different n-grams per n-gram."""
