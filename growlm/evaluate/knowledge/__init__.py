"""Knowledge benchmarks through lm-evaluation-harness, on data of the user's.

    benchmarks    which sets there are: the harness's tasks, shots, official numbers of rows
    english, chinese   rows of known formats as the columns that the harness's tasks read
    sources       a benchmark's rows from a folder or an installed package, counted
    tasks/        tasks of our own for sets that the harness does not have (CLUE)
    ask           one benchmark, asked: the harness's samples
    scores        samples to scores and items
    averages      the Open LLM average, subjects and their categories
    run           the whole evaluation of a model

Nothing is imported here.
"""
