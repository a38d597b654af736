"""How long the written texts are beside their references, and how many are empty."""
