"""Teacher signals: labelled data as propositions that are true or false (FreeLM, arXiv 2305.01616).

    tasks/        shipped families and tasks, one TOML file of data per language
    patterns      wordings with plain named fields
    templates     the TOML files, checked: what a task's rows look like, and how they are worded
    items         rows of a task as labelled items
    sift          copies and contradictions among the items
    pairs         items as propositions, as often true as false in each wording
    alone         how well the statements alone, without their texts, tell the truth
    make          the one entry: files in, one file of propositions out

Nothing is imported here.
"""
