"""Files to documents: the first thing that happens to data, and the only one that knows formats.

    files         which files a source means, as streams of bytes
    urls          files in object stores and on hubs, used like paths
    text          running text, checked to be UTF-8 and cut into documents
    rows          JSON objects, one a line; what a bad row is
    columns       rows of Parquet and Arrow
    extents       files in parts that can be read at the same time
    documents     the documents of a file or a source, whichever its format
    tokens        text that is tokenised already: `megatron`, `datatrove`

Nothing is imported here.
"""
