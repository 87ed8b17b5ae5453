"""Checkpoints: safetensors files and a JSON manifest, committed by fsync and rename (docs/checkpoints.md).

    disk      fsync, atomic writes, free space; OSError becomes DiskError here
    format    safetensors files, written and read by rows in bounded memory
    tiling    pieces of a tensor, and whether they make it up
    manifest  what a checkpoint holds, with the hash of every file and tensor and of itself
    pending   a checkpoint while it is written
    store     a folder of checkpoints: verify, fall back, prune
    tensors   any rows and columns of a tensor, read from its pieces
    weights   the same as the weights of a model
    lock      one owner per run folder

Nothing is imported here: only `format`, `tensors` and `weights` need torch.
"""
