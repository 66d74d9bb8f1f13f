"""A bundle's configuration: typed, read safely, written again."""
