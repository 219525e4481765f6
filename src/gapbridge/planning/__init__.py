"""`gapbridge plan`: what a run of these params will read, compute and need. It starts nothing and writes nothing."""
