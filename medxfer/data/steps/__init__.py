"""Deterministic steps between reader and cache; each can write itself as MONAI configuration."""
