"""Accuracy and consistency of the chains."""
