"""Arrays in, scores with intervals and figures as data out."""
