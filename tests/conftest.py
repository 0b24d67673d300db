"""What every test shares."""

import torch

from tests import typechecks

typechecks.install()
# Threads gain nothing on the small tensors of the tests, and wait long for each other on a busy machine.
torch.set_num_threads(1)
