"""Data: text to token shards, and the mixture that serves them to training.

What a user prepares:

    prepare       the one entry; `sources` what it is given, `folder` where it writes
    pipeline/     from documents to shards in phases of independent tasks, that survive a kill
    reading/      files of every format to documents, checked and cut
    cleaning/     pure functions on texts: normal form, quality, language, near duplicates, evaluation sets
    signals/      labelled data to propositions; `examples` propositions and prompts to `segments`
    tokenizer     byte-level BPE: train, load, check; `tiktoken_ranks` converts rank files
    vocabulary    a tokenizer on a weighted sample (`draw`), with its bytes per token
    card          the data card: facts, sample documents, a page to read
    demo_text     real English and Chinese text from two packages of the extra `demo`

What a run reads:

    manifest      what a prepared folder holds; `changed` what differs between two of them
    dataset       a prepared folder, memory-mapped and verified; `packing` puts whole examples into units
    learning      what is learnt of each source
    mixture       the batch at (span, step); `deal` says of which source, `permutation` is its shuffle

Nothing is imported here.
"""
