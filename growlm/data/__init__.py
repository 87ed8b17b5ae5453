"""Data: text to token shards, and the mixture that serves them to training.

    reading/      files of every format to documents, checked and cut
    scan          first pass: duplicates, the train/validation split, the tokenizer's sample
    tokenizer     byte-level BPE: train, load, check; `tiktoken_ranks` converts rank files
    prepare       second pass: tokens into shards, committed as one folder
    manifest      what a prepared folder holds
    dataset       a prepared folder, memory-mapped and verified
    mixture       the batch at (span, step); `permutation` is its shuffle
    demo_text     real English and Chinese text from two packages of the extra `demo`

Nothing is imported here.
"""
