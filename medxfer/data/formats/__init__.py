"""File formats: each reader behind the gate in `data.readers`, and the geometry they share."""
