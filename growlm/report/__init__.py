"""Views of a run: the report, the live page and the comparison. They read a run folder, nothing else."""
