"""What is suspicious about a data set; behind `data.doctor`."""
