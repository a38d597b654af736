"""Accuracy of the answers."""
