"""How much of the texts comes back: whole texts, and tokens at their place."""
