"""How a command becomes one process of several: the same options everywhere."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class JoinOptions:
    """Which process of a run over several ones this is; needed only where no scheduler says it.

    Attributes:
      coordinator: "host:port" of process 0.
      num_processes: processes of the run.
      process_id: number of this one, from 0.
    """

    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None


@dataclasses.dataclass(frozen=True)
class DistributionOptions(JoinOptions):
    """A run over several processes.

    Attributes:
      distributed: one of several processes; which one is found out by itself on TPU pods, Slurm, Kubernetes and under
        `simscale launch`.
      backend: how CPUs exchange data: "gloo" or "mpi"; "auto" leaves it to JAX.
      coordinator: "host:port" of process 0, where no scheduler says it.
      num_processes: processes of the run, likewise.
      process_id: number of this one, from 0, likewise.
    """

    distributed: bool = False
    backend: str = "auto"

    def join(self) -> None:
        """Joins the run where this is a process of several; raises like `core.distributed.initialize`."""
        from simscaleai_jax.core import distributed

        if self.distributed:
            given = (self.coordinator, self.num_processes, self.process_id)
            distributed.initialize(*given, backend=self.backend)
