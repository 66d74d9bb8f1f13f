"""Encoders: which are there, how they are built, where their weights come from and what of them was used."""
