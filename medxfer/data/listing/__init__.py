"""What lies in a folder: label tables, datalists, series, patients; behind `data.cases`."""
