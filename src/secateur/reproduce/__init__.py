"""Published results as recipes: `<name>.yaml` beside this file is one result, rerun by `secateur reproduce <name>`."""

from secateur.reproduce.study import Study, names, run
from secateur.reproduce.table import table

__all__ = ["Study", "names", "run", "table"]
