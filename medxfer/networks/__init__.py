"""Encoder and head as one network; what is frozen."""
