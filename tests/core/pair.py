"""The stand-in for training over several processes, each of which holds a share of every array.

python -m tests.core.pair FOLDER STEPS [CHECKPOINT]      under `simscale launch`
"""

import sys

import jax
import numpy as np

from simscaleai_jax.core import distributed, sharding

from . import stand_in


def main(folder: str, steps: str, resume_from: str | None = None) -> None:
    distributed.initialize()
    mesh = sharding.make_mesh()

    def start():
        arrays = {f"w{i}": np.arange(8_000, dtype=np.uint32) + np.uint32(i) for i in range(4)}
        return {name: sharding.put(array, sharding.batch_sharding(mesh)) for name, array in arrays.items()}

    @jax.jit
    def step_once(state, step):
        return {name: x * np.uint32(1664525) + step for name, x in state.items()}

    def step(state, number):
        return step_once(state, np.uint32(number))

    try:
        with distributed.peer_errors():
            stand_in.run(folder, int(steps), resume_from=resume_from, start=start, step_once=step)
            distributed.barrier("finish", 60)
    except distributed.PeerLostError as error:
        distributed.leave_broken_run(error)


if __name__ == "__main__":
    main(*sys.argv[1:])
