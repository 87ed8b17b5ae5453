"""Checkpoints: safetensors files and a JSON manifest, committed by fsync and rename (docs/checkpoints.md).

    disk      fsync, atomic writes, free space; OSError becomes DiskError here
    format    safetensors files, written and read by rows in bounded memory
    manifest  what a checkpoint holds, with the hash of every file and tensor and of itself
    store     a folder of checkpoints: commit, verify, fall back, prune
    lock      one owner per run folder

Nothing is imported here: only `format` needs torch.
"""
