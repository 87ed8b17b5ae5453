"""One runner for each trainer; `python -m peers.run_growlm JOB` in this folder."""
