"""The command line: one small file per verb, no logic; torch is imported only inside the verbs."""
