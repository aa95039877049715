"""A backbone that takes its time: what is to be interrupted has to last."""

import os
import time

from file_backbone import FileBackbone
from torch import Tensor


class SlowBackbone(FileBackbone):
    """The states of `FileBackbone`, each clip SLOW_SECONDS (a variable of the job) later."""

    def states(self, audio: Tensor) -> Tensor:
        time.sleep(float(os.environ.get("SLOW_SECONDS", "0")) * len(audio))
        return super().states(audio)
