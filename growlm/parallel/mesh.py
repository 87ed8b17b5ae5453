"""The ranks of a layout as a mesh, and the process groups along its dimensions."""

from __future__ import annotations

from dataclasses import dataclass

import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.distributed_c10d import _set_pg_timeout

from growlm.parallel.world import NEVER
from growlm.plan.layout import Layout, Place

NAMES = ("pp", "replica", "shard", "tp")


@dataclass(frozen=True)
class Mesh:
    """A layout, this rank's place in it, and its groups; without ranks there are no groups."""

    layout: Layout
    rank: int
    device_mesh: DeviceMesh | None

    @classmethod
    def of(cls, layout: Layout, rank: int, device_type: str) -> Mesh:
        """The mesh of `layout.world` ranks, of which this process is one. All of them must call this."""
        if layout.world == 1:
            return cls(layout, rank, None)
        shape = (layout.pp, layout.copies, layout.shards, layout.tp)
        mesh = init_device_mesh(device_type, shape, mesh_dim_names=NAMES)
        for group in mesh.get_all_groups():  # torch gives each a timeout of its own
            if dist.get_backend(group) != "fake":  # of a rehearsal
                _set_pg_timeout(NEVER, group)
        return cls(layout, rank, mesh)

    @property
    def place(self) -> Place:
        """Where this rank stands."""
        return self.layout.place(self.rank)

    @property
    def dp_rank(self) -> int:
        """Place in data parallelism."""
        return self.layout.dp_rank(self.place)

    def group(self, name: str) -> dist.ProcessGroup:
        """The group of this rank along one dimension."""
        assert self.device_mesh is not None
        return self.device_mesh[name].get_group()

    @property
    def data(self) -> DeviceMesh:
        """The ranks that share or repeat this one's pieces of the state, for FSDP2: with copies, HSDP."""
        assert self.device_mesh is not None
        return self.device_mesh["replica", "shard"] if self.layout.copies > 1 else self.device_mesh["shard"]

    def peer(self, pp: int) -> int:
        """The rank at the same place of another pipeline stage."""
        per_stage = self.layout.dp * self.layout.tp
        return pp * per_stage + self.rank % per_stage
