"""The loop, the recipe and what makes both fast and resumable."""
