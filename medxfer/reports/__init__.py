"""What people read after a run, drawn from the files of its folder."""
