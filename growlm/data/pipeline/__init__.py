"""Preparation at any size: phases of independent tasks, whose results are folders that appear whole.

    plan          what is asked, as a file that says whether two commands mean the same
    work          the folder of results: committed by rename, found again after a kill
    parts         the input, cut into the tasks of the first phase
    steps         the cleaning of one document, and what it left out
    scan          phase 1, a part each: read and clean, into chunks of plain text
    chunks        files of a chunk: its text, a table of its documents, keys for finding copies
    copies        phases 2 and 3, a bucket of keys each: which documents are copies or near copies
    settle        phase 4, a chunk each: which documents stay, and what is left
    sample        phase 5: the tokenizer, from an even draw of the training text
    encode        phase 6, a chunk each: tokens
    assemble      phase 7, a shard each: the tokens of many chunks as one file, hashed by block
    tasks         any task by phase and number; all that an executor has to know
    local         executors: this process, or one process per core (`worker`)
    cluster       executors: Slurm and Ray, through datatrove
    run           the phases in their order

No result depends on how many workers there are, nor on how often they were killed. Nothing is imported here.
"""
