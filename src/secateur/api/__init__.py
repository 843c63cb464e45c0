"""The one door: `compress`, `Compressor`, `Result`, `load`, `plan`, and `run` for the command line."""

from secateur.api.compression import compress as compress
from secateur.api.compression import load as load
from secateur.api.compression import run as run
from secateur.api.own_loop import Compressor as Compressor
from secateur.api.result import Result as Result
