"""MONAI networks cut into stages, one file a family."""
