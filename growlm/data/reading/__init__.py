"""Files to documents: the first thing that happens to data, and the only one that knows formats.

    files         which files a source means, as streams of bytes
    text          running text, checked to be UTF-8 and cut into documents
    rows          JSON objects, one a line; what a bad row is
    columns       rows of Parquet
    extents       files in parts that can be read at the same time
    documents     the documents of a file or a source, whichever its format

Nothing is imported here.
"""
